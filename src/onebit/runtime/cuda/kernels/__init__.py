"""The host side of the kernels, one file a family of csrc/cuda, and what the families share."""
