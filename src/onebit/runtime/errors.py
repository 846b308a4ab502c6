"""The one exception type of the `runtime` room."""


class EngineError(RuntimeError):
    """The engine cannot be built or run: an instruction set, a limit, memory, or the compiled library."""
