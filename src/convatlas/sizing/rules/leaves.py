"""Module types whose whole forward is one rule: the same row as through their forward, sooner."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from convatlas.sizing.tensor import RULES, Traced
from convatlas.sizing.tracer import foreign_leaf, leaf

from .norm import batch_norm, layer_norm
from .shape import flatten
from .window import conv, conv2d, linear


@leaf(nn.Conv1d, nn.Conv3d)
def conv_leaf(t: Any, m: Any, x: Traced) -> Any:
    """The convolution, unless it pads by copying."""
    if m.padding_mode != "zeros":
        return m.forward(x)
    params = m.__dict__["_parameters"]
    return conv(t, x, params["weight"], params["bias"], m.stride, m.padding, m.dilation, m.groups)


@leaf(nn.Conv2d)
def conv2d_leaf(t: Any, m: Any, x: Traced) -> Any:
    """The convolution, unless it pads by copying."""
    state = m.__dict__
    if state["padding_mode"] != "zeros":
        return m.forward(x)
    params = state["_parameters"]
    return conv2d(
        t, x, params["weight"], params["bias"], state["stride"], state["padding"], state["dilation"],
        state["groups"],
    )  # fmt: skip


@leaf(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
def batch_norm_leaf(t: Any, m: Any, x: Traced) -> Any:
    """Statistics from the batch in training or where none are kept."""
    if len(x.shape) != 4 or not isinstance(m, nn.BatchNorm2d):
        m._check_input_dim(x)
    state = m.__dict__
    params, buffers = state["_parameters"], state["_buffers"]
    mean, var = buffers["running_mean"], buffers["running_var"]
    training = state["training"] or (mean is None and var is None)
    return batch_norm(t, x, mean, var, params["weight"], params["bias"], training)


@foreign_leaf(
    "timm.layers.norm_act.BatchNormAct2d",
    "_assert ndim momentum training track_running_stats num_batches_tracked add_ float running_mean "
    "running_var F batch_norm weight bias eps drop act",
)
def norm_act_leaf(t: Any, m: Any, x: Traced) -> Any:
    """The norm of timm's networks, with the dropout and the activation that it holds."""
    if len(x.shape) != 4:
        return m.forward(x)
    x = batch_norm_leaf(t, m, x)
    children = m.__dict__["_modules"]
    for child in (children["drop"], children["act"]):
        x = child.__dict__.get("_compiled_call_impl", child)(x)
    return x


@leaf(nn.Sequential)
def sequential_leaf(t: Any, m: Any, x: Any) -> Any:
    """Its modules in turn, each entered as a call would enter it."""
    for child in m.__dict__["_modules"].values():
        x = child.__dict__.get("_compiled_call_impl", child)(x)
    return x


@leaf(nn.ModuleList, nn.ModuleDict)
def container_leaf(t: Any, m: Any, x: Traced) -> Any:
    """Never called itself."""
    return m.forward(x)


@leaf(nn.Linear)
def linear_leaf(t: Any, m: Any, x: Traced) -> Any:
    """The layer."""
    params = m.__dict__["_parameters"]
    return linear(t, x, params["weight"], params["bias"])


@leaf(nn.LayerNorm)
def layer_norm_leaf(t: Any, m: Any, x: Traced) -> Any:
    """The layer."""
    params = m.__dict__["_parameters"]
    return layer_norm(t, x, m.normalized_shape, params["weight"], params["bias"])


@leaf(nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.Hardsigmoid, nn.ELU)
def activation_leaf(t: Any, m: Any, x: Traced) -> Any:
    """In place or not."""
    return _RULES_BY_TYPE[type(m)](t, x, inplace=m.inplace)


@leaf(nn.Sigmoid, nn.Tanh, nn.GELU)
def pure_activation_leaf(t: Any, m: Any, x: Traced) -> Any:
    """Never in place."""
    return _RULES_BY_TYPE[type(m)](t, x)


@leaf(nn.MaxPool2d)
def max_pool_leaf(t: Any, m: Any, x: Traced) -> Any:
    """The layer."""
    return _MAX_POOL(t, x, m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode, m.return_indices)


@leaf(nn.AvgPool2d)
def avg_pool_leaf(t: Any, m: Any, x: Traced) -> Any:
    """The layer."""
    return _AVG_POOL(t, x, m.kernel_size, m.stride, m.padding, m.ceil_mode)


@leaf(nn.AdaptiveAvgPool2d)
def adaptive_leaf(t: Any, m: Any, x: Traced) -> Any:
    """The layer."""
    return _ADAPTIVE(t, x, m.output_size)


@leaf(nn.Identity)
def identity_leaf(t: Any, m: Any, x: Traced) -> Any:
    """Nothing."""
    return x


@leaf(nn.Dropout)
def dropout_leaf(t: Any, m: Any, x: Traced) -> Any:
    """Nothing in eval mode."""
    return _DROPOUT(t, x, m.p, m.training, m.inplace) if m.training else x


@leaf(nn.Flatten)
def flatten_leaf(t: Any, m: Any, x: Traced) -> Any:
    """The view."""
    return flatten(t, x, m.start_dim, m.end_dim)


_F = nn.functional
_RULES_BY_TYPE: dict[type, Any] = {
    nn.ReLU: RULES[_F.relu], nn.ReLU6: RULES[_F.hardtanh], nn.SiLU: RULES[_F.silu],
    nn.Hardswish: RULES[_F.hardswish],
    nn.Hardsigmoid: RULES[_F.hardsigmoid], nn.ELU: RULES[_F.elu], nn.Sigmoid: RULES[_F.sigmoid],
    nn.Tanh: RULES[_F.tanh], nn.GELU: RULES[_F.gelu],
}  # fmt: skip

_MAX_POOL = RULES[torch.max_pool2d]
_AVG_POOL = RULES[_F.avg_pool2d]
_ADAPTIVE = RULES[_F.adaptive_avg_pool2d]
_DROPOUT = RULES[_F.dropout]
