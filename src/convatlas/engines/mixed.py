"""int8 with some layers in float: which layers lose most by quantising, and the first mix that agrees."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from convatlas.engines.fold import fold

LAYERS = {
    torch.ops.aten.conv2d.default: "conv2d",
    torch.ops.aten.conv2d.padding: "conv2d",
    torch.ops.aten.linear.default: "linear",
}
"""The operations that are quantised, with the arguments images and weights in front."""
RANKED_IMAGES = 16
PORTION = 4
RECORD = "mix.json"


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """What quantising one layer loses, and what it does for the time.

    Attributes:
        name: of its operation in the exported network, such as "conv2d_3".
        kind: "conv2d" or "linear".
        effect: root mean square of what quantising this layer alone changes the margin between the two most
            likely classes by, to first order, relative to the mean margin.
        macs: its share of the network's multiply-adds.
        in_float: whether it stays in float32.
    """

    name: str
    kind: str
    effect: float
    macs: float
    in_float: bool = False


def rank_layers(program: ExportedProgram, images: Tensor) -> tuple[LayerCost, ...]:
    """The layers of a network, those that lose most by quantising first.

    One pass forward and backward: each layer's output is also computed with images and weights rounded to
    8 bits, and the difference is multiplied by the gradient of the margin with respect to that output.

    Args:
        program: exported in evaluation mode, for any batch size or a fixed one.
        images: (N, C, H, W); the first 16, or the least that a fixed batch size allows.
    """
    batch = next(node.meta["val"].shape[0] for node in program.graph.nodes if node.name in _inputs(program))
    portion = batch if isinstance(batch, int) else PORTION
    count = max(portion, min(RANKED_IMAGES, len(images)) // portion * portion)
    chosen = images[torch.arange(count) % len(images)]
    sensitivity = _Sensitivity(fold(program))
    for part in chosen.split(portion):
        sensitivity.add(part)
    return sensitivity.ranked()


def _inputs(program: ExportedProgram) -> tuple[str, ...]:
    return tuple(map(str, program.graph_signature.user_inputs))


class _Sensitivity(fx.Interpreter):
    """Runs a folded network, and adds up what quantising each of its layers changes."""

    def __init__(self, net: fx.GraphModule) -> None:
        super().__init__(net)
        self.kinds: dict[str, str] = {}
        self.macs: dict[str, float] = {}
        self.squares: dict[str, list[Tensor]] = {}
        self.margins: list[Tensor] = []
        self.now: dict[str, tuple[Tensor, Tensor]] = {}

    def run_node(self, n: fx.Node) -> Any:
        """The node's value; of a layer, also what rounding changes."""
        found = super().run_node(n)
        if n.target not in LAYERS:
            return found
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        images, weights = args[0], args[1]
        with torch.no_grad():
            exact = n.target(images, weights, *args[2:], **kwargs)  # pyright: ignore[reportCallIssue]
            rounded = n.target(_round(images), _round_rows(weights), *args[2:], **kwargs)  # pyright: ignore[reportCallIssue]
        found.retain_grad()
        self.kinds[n.name] = LAYERS[n.target]  # pyright: ignore[reportArgumentType]
        self.macs[n.name] = found[0].numel() * weights[0].numel()
        self.now[n.name] = (found, rounded - exact)
        return found.clone()  # What comes next may work in place.

    @torch.enable_grad()
    def add(self, images: Tensor) -> None:
        """Takes in some images."""
        logits = self.run(images.clone().requires_grad_())
        best = logits.topk(min(2, logits.shape[1]), dim=1).values
        margins = best[:, 0] - best[:, -1] if logits.shape[1] > 1 else best[:, 0]
        margins.sum().backward()
        self.margins.append(margins.detach())
        for name, (found, change) in self.now.items():
            grad = torch.zeros_like(change) if found.grad is None else found.grad
            self.squares.setdefault(name, []).append((grad * change).flatten(1).sum(1).double() ** 2)
        self.now = {}

    def ranked(self) -> tuple[LayerCost, ...]:
        """All layers, the worst first."""
        margin = max(torch.cat(self.margins).abs().mean().item(), 1e-12)
        total = sum(self.macs.values())
        found = [
            LayerCost(
                name,
                self.kinds[name],
                math.sqrt(torch.cat(squares).mean().item()) / margin,
                self.macs[name] / total,
            )
            for name, squares in self.squares.items()
        ]
        return tuple(sorted(found, key=lambda layer: -layer.effect))


def _round(images: Tensor) -> Tensor:
    """Images rounded to 256 steps between their least and largest value, or 0."""
    low, high = images.min().clamp_max(0.0), images.max().clamp_min(0.0)
    step = ((high - low) / 255).clamp_min(1e-12)
    zero = (low / step).round()
    return ((images / step).round().clamp(zero, zero + 255)) * step


def _round_rows(weights: Tensor) -> Tensor:
    """Weights rounded to 127 steps between minus and plus the largest of each output channel."""
    largest = weights.abs().flatten(1).amax(1).reshape(-1, *(1,) * (weights.dim() - 1))
    step = (largest / 63).clamp_min(1e-12)
    return (weights / step).round() * step


def mixes(rank: Callable[[], Sequence[LayerCost]]) -> Iterator[tuple[LayerCost, ...]]:
    """What to try, one after the other: none in float; the worst layer, two, four, eight, to half of them.

    Args:
        rank: gives the layers, the worst first; called when the first mix has not been enough.

    Yields:
        All layers, with those marked that stay in float; none before they are ranked.
    """
    yield ()
    layers = rank()
    count = 1
    while count <= (len(layers) + 1) // 2:
        yield tuple(
            dataclasses.replace(layer, in_float=number < count) for number, layer in enumerate(layers)
        )
        count *= 2


def names_in_float(mix: Sequence[LayerCost]) -> tuple[str, ...]:
    """The names of the layers of a mix that stay in float."""
    return tuple(layer.name for layer in mix if layer.in_float)


def describe_mix(mix: Sequence[LayerCost]) -> str:
    """What stays in float, in words; "" where nothing does."""
    kept = [layer for layer in mix if layer.in_float]
    if not kept:
        return ""
    share = sum(layer.macs for layer in kept)
    shown = ", ".join(f"{layer.name} (effect {layer.effect:.2g})" for layer in kept[:8])
    more = f" and {len(kept) - 8} more" if len(kept) > 8 else ""
    return f"in float: {shown}{more}; {share:.1%} of the multiply-adds"


def write_mix(folder: Path, mix: Sequence[LayerCost]) -> None:
    """Writes a mix beside what was built of it."""
    (folder / RECORD).write_text(json.dumps([dataclasses.asdict(layer) for layer in mix]), encoding="utf-8")


def read_mix(folder: Path) -> tuple[LayerCost, ...]:
    """What `write_mix` wrote; empty where it did not."""
    path = folder / RECORD
    if not path.is_file():
        return ()
    return tuple(LayerCost(**entry) for entry in json.loads(path.read_text(encoding="utf-8")))
