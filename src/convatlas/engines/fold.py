"""A network as a plain list of operations, with each batch normalisation folded into its convolution."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.fx.graph import CodeGen

_CONVOLUTIONS = (torch.ops.aten.conv2d.default, torch.ops.aten.conv2d.padding)
_NORM = torch.ops.aten.batch_norm.default


def fold(program: ExportedProgram) -> fx.GraphModule:
    """The operations of an exported network, without what evaluation does not need.

    A batch normalisation whose input is a convolution that nothing else reads becomes that convolution's
    weights, computed in float64; dropout and the checks of the input go.

    Args:
        program: exported in evaluation mode, with one input.

    Returns:
        A module that takes the images and returns the logits.
    """
    net = program.module()
    assert isinstance(net, fx.GraphModule)
    graph = net.graph
    graph.set_codegen(CodeGen())  # Images in, logits out, with no tree to flatten.
    for node in list(graph.nodes):
        if node.op == "call_module" and node.target == "_guards_fn":
            graph.erase_node(node)
        elif node.target is torch.ops.aten.dropout.default:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif node.op == "output" and isinstance(node.args[0], tuple | list) and len(node.args[0]) == 1:
            node.args = (node.args[0][0],)
    for node in list(graph.nodes):
        if node.target is _NORM and _follows_only(node):
            _fold_into(net, node.args[0], node)
    graph.eliminate_dead_code()
    net.delete_all_unused_submodules()
    return fx.GraphModule(net, graph)


def _follows_only(norm: fx.Node) -> bool:
    """Whether a normalisation, in evaluation mode, is all that reads a convolution."""
    conv, training = norm.args[0], norm.args[5]
    return (
        isinstance(conv, fx.Node)
        and conv.target in _CONVOLUTIONS
        and len(conv.users) == 1
        and not training
        and norm.args[3] is not None
    )


def _fold_into(net: fx.GraphModule, conv: Any, norm: fx.Node) -> None:
    gamma, beta, mean, var = (_value(net, node) for node in norm.args[1:5])
    weight, bias = (_value(net, conv.args[i]) if len(conv.args) > i else None for i in (1, 2))
    assert weight is not None and mean is not None and var is not None
    scale = (var + float(norm.args[7])).rsqrt()  # pyright: ignore[reportArgumentType]
    if gamma is not None:
        scale = scale * gamma
    shift = -mean * scale if bias is None else (bias - mean) * scale
    if beta is not None:
        shift = shift + beta
    like: Tensor = _get(net, conv.args[1].target)
    shape = (-1, *(1 for _ in weight.shape[1:]))
    name = f"folded_{conv.name}"
    net.register_buffer(f"{name}_weight", (weight * scale.reshape(shape)).to(like.dtype))
    net.register_buffer(f"{name}_bias", shift.to(like.dtype))
    with net.graph.inserting_before(conv):
        new_weight = net.graph.get_attr(f"{name}_weight")
        new_bias = net.graph.get_attr(f"{name}_bias")
    conv.args = (conv.args[0], new_weight, new_bias, *conv.args[3:])
    norm.replace_all_uses_with(conv)
    net.graph.erase_node(norm)


def _value(net: fx.GraphModule, node: Any) -> Tensor | None:
    """A constant of the graph in float64; None where there is none."""
    return None if node is None else _get(net, node.target).detach().double()


def _get(net: fx.GraphModule, path: str) -> Tensor:
    owner, _, name = path.rpartition(".")
    return getattr(net.get_submodule(owner), name)
