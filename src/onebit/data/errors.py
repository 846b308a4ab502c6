"""The one exception type of the `data` room."""


class DataError(ValueError):
    """A data set cannot be had, or is not what was asked for. The message names it and says what to do."""
