"""Layers, order and places of the nodes of a graph that is neither series nor parallel (Sugiyama's steps)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

_SWEEPS = 12
# Counting crossings is quadratic; beyond this many edges between two layers the order is not compared.
_MOST_ENDS = 400


@dataclass
class Place:
    """An item of the layout: a node, or a bend of an edge that passes a layer.

    Attributes:
        size: room across the flow.
        layer: its layer, from 0.
        w: middle, across the flow.
        before: items that it is joined to in the layer before.
        after: items in the layer behind.
        offsets: for edges that do not arrive at the middle: from the item before to where it arrives.
    """

    size: float
    layer: int = 0
    w: float = 0.0
    before: list[int] = field(default_factory=list)
    after: list[int] = field(default_factory=list)
    offsets: dict[int, float] = field(default_factory=dict)


def lay_out(
    places: list[Place], pairs: Sequence[tuple[int, int]], gap: float, *, swaps: bool = False
) -> list[tuple[int, ...]]:
    """Gives each item its layer and its place; appends the bends of long edges.

    Args:
        places: items in topological order.
        pairs: edges.
        gap: room of a bend.
        swaps: whether neighbours are exchanged too, as long as that saves crossings.

    Returns:
        For each edge the items that it passes, its ends among them.
    """
    for a, b in pairs:
        places[b].layer = max(places[b].layer, places[a].layer + 1)
    _pull(places, pairs)
    ways = [_way(places, a, b, gap) for a, b in pairs]
    for way in ways:
        for a, b in pairwise(way):
            places[a].after.append(b)
            places[b].before.append(a)
    layers = ordered(places)
    if swaps:
        _swap(places, layers)
    _place(places, layers)
    return ways


def _pull(places: list[Place], pairs: Sequence[tuple[int, int]]) -> None:
    """Moves what is read late, and reads nothing here itself, towards its reader."""
    readers: dict[int, list[int]] = {}
    for a, b in pairs:
        readers.setdefault(a, []).append(b)
    sources = {b for _, b in pairs}
    for i in readers:
        if i not in sources:
            places[i].layer = max(places[i].layer, min(places[b].layer for b in readers[i]) - 1)


def _way(places: list[Place], start: int, end: int, gap: float) -> tuple[int, ...]:
    way = [start]
    for layer in range(places[start].layer + 1, places[end].layer):
        places.append(Place(gap, layer))
        way.append(len(places) - 1)
    return (*way, end)


def ordered(places: Sequence[Place]) -> list[list[int]]:
    """The layers, each in the order with the fewest crossings that barycentres find."""
    layers: list[list[int]] = [[] for _ in range(max(place.layer for place in places) + 1)]
    for i, place in enumerate(places):
        layers[place.layer].append(i)
    best, fewest = [list(layer) for layer in layers], _crossings(places, layers)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        for k in range(len(layers)) if down else reversed(range(len(layers))):
            rank = {i: p for layer in layers for p, i in enumerate(layer)}
            _sort(places, layers[k], rank, down)
        crossings = _crossings(places, layers)
        if crossings < fewest:
            best, fewest = [list(layer) for layer in layers], crossings
    return best


def _swap(places: Sequence[Place], layers: list[list[int]]) -> None:
    """Exchanges neighbours of a layer as long as fewer edges cross."""
    fewest = _crossings(places, layers)
    improved = True
    while improved:
        improved = False
        for layer in layers:
            for k in range(len(layer) - 1):
                layer[k], layer[k + 1] = layer[k + 1], layer[k]
                crossings = _crossings(places, layers)
                if crossings < fewest:
                    fewest, improved = crossings, True
                else:
                    layer[k], layer[k + 1] = layer[k + 1], layer[k]


def _sort(places: Sequence[Place], layer: list[int], rank: dict[int, int], down: bool) -> None:
    weight: dict[int, float] = {}
    for i in layer:
        near = places[i].before if down else places[i].after
        weight[i] = sum(rank[n] for n in near) / len(near) if near else float(rank[i])
    layer.sort(key=lambda i: (weight[i], i))


def _crossings(places: Sequence[Place], layers: Sequence[Sequence[int]]) -> int:
    total = 0
    rank = {i: p for layer in layers for p, i in enumerate(layer)}
    for layer in layers[:-1]:
        ends = [
            rank[b] - places[b].offsets.get(a, 0.0) / 1e4
            for a in layer
            for b in sorted(places[a].after, key=rank.__getitem__)
        ]
        if len(ends) > _MOST_ENDS:
            return 0
        total += sum(1 for i, a in enumerate(ends) for b in ends[i + 1 :] if a > b)
    return total


def _place(places: Sequence[Place], layers: Sequence[Sequence[int]]) -> None:
    """Each layer as near as its order allows to the means of what it is joined to."""
    for layer in layers:
        at = -sum(places[i].size for i in layer) / 2
        for i in layer:
            places[i].w = at + places[i].size / 2
            at += places[i].size
    for sweep in range(2 * _SWEEPS):
        down = sweep % 2 == 0
        for k in range(len(layers)) if down else reversed(range(len(layers))):
            wanted = [_wanted(places, i, down, sweep > 3) for i in layers[k]]
            sizes = [places[i].size for i in layers[k]]
            for i, w in zip(layers[k], _spread(wanted, sizes), strict=True):
                places[i].w = w
    top = max(place.w + place.size / 2 for place in places)
    bottom = min(place.w - place.size / 2 for place in places)
    for place in places:
        place.w -= (top + bottom) / 2


def _wanted(places: Sequence[Place], i: int, down: bool, both: bool) -> float:
    place = places[i]
    near: list[float] = []
    if down or both:
        near += [places[n].w - place.offsets.get(n, 0.0) for n in place.before]
    if not down or both:
        near += [places[n].w + places[n].offsets.get(i, 0.0) for n in place.after]
    return sum(near) / len(near) if near else place.w


def _spread(wanted: Sequence[float], sizes: Sequence[float]) -> list[float]:
    """The places nearest to the wanted ones, in order and without overlap: isotonic regression."""
    offsets: list[float] = []
    at = 0.0
    for k, size in enumerate(sizes):
        at += size / 2 + (sizes[k - 1] / 2 if k else 0.0)
        offsets.append(at)
    blocks: list[tuple[float, int]] = []
    for want, offset in zip(wanted, offsets, strict=True):
        blocks.append((want - offset, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, n), (b, m) = blocks[-2], blocks[-1]
            blocks[-2:] = [((a * n + b * m) / (n + m), n + m)]
    means = [mean for mean, many in blocks for _ in range(many)]
    return [mean + offset for mean, offset in zip(means, offsets, strict=True)]
