"""What an exported network takes and gives."""

from __future__ import annotations

from typing import Any

from torch.export import ExportedProgram


def ports(program: ExportedProgram) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Shapes of the images and of the logits; a size is a number, or a symbol where any will do."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    signature = program.graph_signature
    images, logits = (
        values[str(next(iter(names)))] for names in (signature.user_inputs, signature.user_outputs)
    )
    return tuple(images.shape), tuple(logits.shape)


def image_shape(program: ExportedProgram) -> tuple[Any, ...]:
    """B, C, H, W of the images, as `ports`."""
    return ports(program)[0]
