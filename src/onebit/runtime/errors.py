"""What this room raises. The kinds stand in `onebit.errors`, which every room may import."""

from onebit.errors import EngineError

__all__ = ["EngineError"]
