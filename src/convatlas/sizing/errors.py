"""What can go wrong while a network is sized."""


class SizingError(ValueError):
    """The network cannot be sized with this input; the message names the layer and what arrived there."""


class ShapeError(SizingError):
    """A shape does not fit an operation. Rules raise it; the tracer adds the layer's path."""


class DataDependentError(SizingError):
    """The forward reads a tensor's values, which a tensor without storage does not have."""


class UnsizableError(TypeError):
    """A network of which a part is no Python, or has no shape yet, whatever the input."""
