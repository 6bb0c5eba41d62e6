"""Attention: scores, softmax and weighted sum in one operation, and the module around it."""

from __future__ import annotations

from typing import Any

from convatlas.sizing import strides
from convatlas.sizing.errors import ShapeError
from convatlas.sizing.geometry import EVERYTHING
from convatlas.sizing.tensor import Traced

from .base import prod, rule, traced
from .window import linear


@rule("scaled_dot_product_attention")
def attention(
    t: Any, query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: Any = None, enable_gqa: bool = False,
) -> Any:  # fmt: skip
    """softmax(Q K^T) V: two matrix products, five operations per score for the softmax."""
    q = traced(t, query)
    if enable_gqa or len(q.shape) != len(key.shape):
        return NotImplemented
    if q.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2]:
        raise ShapeError(
            f"scaled_dot_product_attention: query {tuple(q.shape)}, key {tuple(key.shape)} and value "
            f"{tuple(value.shape)} do not fit"
        )
    batch = tuple(max(sizes) for sizes in zip(q.shape[:-2], key.shape[:-2], value.shape[:-2], strict=True))
    scores = prod(batch) * q.shape[-2] * key.shape[-2]
    macs = scores * (q.shape[-1] + value.shape[-1])
    shape = (*batch, q.shape[-2], value.shape[-1])
    mask = attn_mask if type(attn_mask) is Traced else None
    out = t.emit(
        "scaled_dot_product_attention", "attention", (q, key, value, mask), shape, q.dtype,
        macs=macs, flops=2 * macs + 6 * scores, geometry=EVERYTHING,
    )  # fmt: skip
    if len(shape) == 4 and dropout_p == 0 and mask is None:
        # The fused kernel writes all heads of a position next to each other.
        _, heads, length, width = shape
        out.strides = strides.known(shape, (length * heads * width, width, heads * width, 1))
    return out


@rule("multi_head_attention_forward")
def multi_head(
    t: Any, query: Any, key: Any, value: Any, embed_dim_to_check: int, num_heads: int, in_proj_weight: Any,
    in_proj_bias: Any, bias_k: Any, bias_v: Any, add_zero_attn: bool, dropout_p: float, out_proj_weight: Any,
    out_proj_bias: Any, training: bool = True, key_padding_mask: Any = None, need_weights: bool = True,
    attn_mask: Any = None, use_separate_proj_weight: bool = False, q_proj_weight: Any = None,
    k_proj_weight: Any = None, v_proj_weight: Any = None, static_k: Any = None, static_v: Any = None,
    average_attn_weights: bool = True, is_causal: bool = False,
) -> Any:  # fmt: skip
    """`nn.MultiheadAttention`: projections, attention, projection; sequences first."""
    odd = (bias_k, bias_v, static_k, static_v, key_padding_mask)
    if use_separate_proj_weight or add_zero_attn or any(x is not None for x in odd) or len(query.shape) != 3:
        return NotImplemented
    length, batch, width = query.shape
    source = key.shape[0]
    if width != embed_dim_to_check:
        raise ShapeError(
            f"multi_head_attention: expects {embed_dim_to_check} features, got {tuple(query.shape)}"
        )
    if query is key and key is value:
        packed = linear(t, query, in_proj_weight, in_proj_bias)
        q, k, v = packed.unflatten(-1, (3, width)).unbind(-2)
    else:
        biases = (None,) * 3 if in_proj_bias is None else in_proj_bias.chunk(3)
        weights = in_proj_weight.chunk(3)
        q, k, v = (linear(t, x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))
    head = width // num_heads
    q = q.reshape(length, batch * num_heads, head).transpose(0, 1)
    k, v = (x.reshape(source, batch * num_heads, head).transpose(0, 1) for x in (k, v))
    if need_weights:
        scores = (q @ k.transpose(1, 2)).softmax(-1)
        mixed = scores @ v
        weights_out = scores.reshape(batch, num_heads, length, source)
        weights_out = weights_out.mean(1) if average_attn_weights else weights_out
    else:
        mixed, weights_out = attention(t, q, k, v, attn_mask, dropout_p), None
    mixed = mixed.transpose(0, 1).reshape(length, batch, width)
    return linear(t, mixed, out_proj_weight, out_proj_bias), weights_out
