"""What a PyTorch value is while it is being lowered: its kinds, where its elements lie, its few numbers."""
