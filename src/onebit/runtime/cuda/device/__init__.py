"""A GPU as the rest of this room sees it (`interface`), its driver, and the compiler of kernels."""
