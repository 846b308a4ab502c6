"""The exception types of the `train` room."""


class TrainError(ValueError):
    """Training cannot begin or go on. The message says why and what to do."""


class RecipeError(TrainError):
    """A recipe, or an override of one of its fields, is wrong. The message repeats the user's words."""


class CheckpointError(TrainError):
    """A checkpoint cannot be read, or belongs to a run that differs from the one asked for."""
