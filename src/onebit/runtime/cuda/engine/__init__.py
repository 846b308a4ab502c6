"""CudaEngine: from a Program to stages, and how these are run."""
