"""The one exception type of the `program` room."""


class ProgramError(ValueError):
    """A program, a file or an input breaks a rule. The message names the place and the rule."""
