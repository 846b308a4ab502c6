"""The one exception type of the `program` room."""


class ProgramError(ValueError):
    """A program, or a file that claims to hold one, breaks a rule. The message names the place and the rule."""
