"""Runs Programs on an NVIDIA GPU. Needs PyTorch and `cuda-core` (the extra `onebit[cuda]`)."""
