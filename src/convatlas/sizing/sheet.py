"""A sized network that shows itself."""

from __future__ import annotations

from .render import to_html
from .sizes import Sizes


class Sheet(Sizes):
    """The sizes of one network for one input; made by `size`."""

    def __repr__(self) -> str:
        return f"Sheet({len(self.trace.rows)} rows, {self.params:,} parameters, {self.macs:,} MACs)"

    def _repr_html_(self) -> str:
        return to_html(self)
