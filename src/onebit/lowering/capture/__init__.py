"""A PyTorch model as a flat list of calls: checked, exported, read, and its constants folded."""
