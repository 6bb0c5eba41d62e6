"""The one error of this room."""


class WeightsError(ValueError):
    """Weights that cannot be read, or that do not fit the network."""
