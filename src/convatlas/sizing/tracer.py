"""Runs a module's own forward on tensors without storage and keeps a row per operation."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from . import fallback
from .errors import DataDependentError, ShapeError, SizingError
from .geometry import RESHAPE, Geometry
from .row import Row
from .tensor import RULES, Traced, find_traced, make_traced

LEAVES: dict[type[nn.Module], Callable[[Tracer, nn.Module, Traced], Any]] = {}
_FORWARDS: dict[type[nn.Module], Any] = {}
_new_tuple = tuple.__new__


def leaf(*types: type[nn.Module]) -> Callable[[Any], Any]:
    """Registers a rule that stands for the whole forward of these exact module types.

    It must record exactly what the module's own forward would; it saves the time of that forward's Python.
    """

    def register(rule: Any) -> Any:
        for kind in types:
            LEAVES[kind] = rule
            _FORWARDS[kind] = kind.forward
        return rule

    return register


class Store:
    """The life of a storage: held by the tensors that view it, it notes when the last of them dies."""

    __slots__ = ("key", "tracer")

    def __init__(self, key: Any, tracer: Tracer) -> None:
        self.key = key
        self.tracer = tracer

    def __del__(self) -> None:
        tracer = self.tracer
        tracer.deaths[self.key] = len(tracer.rows)


class Tracer:
    """The graph of one forward pass, while it is recorded and after.

    Attributes:
        rows: one per operation, in execution order.
        deaths: per storage, the number of rows recorded when its last tensor died.
        alias: rows whose first output lies in another storage (views, in-place operations), with its key.
        slots: (row, position of an input) to the output that it reads, where that is not the first.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device, use_leaves: bool = True) -> None:
        self.dtype = dtype
        self.device = device
        self.use_leaves = use_leaves
        self.rows: list[Row] = []
        self.deaths: dict[Any, int] = {}
        self.alias: dict[int, Any] = {}
        self.slots: dict[tuple[int, int], int] = {}
        self.unclaimed: dict[int, int] = {}
        self.modules: dict[str, nn.Module] = {}
        self.path = ""
        self.total_params = 0
        self.output_keys: tuple[Any, ...] = ()
        self.trace: Any = None
        self.thread = threading.get_ident()
        self._undo: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._leaves: list[tuple[dict[str, Any], bool]] = []
        self._wrapped: dict[int, Traced] = {}

    # Recording

    def input(self, index: int, shape: tuple[int, ...], dtype: torch.dtype) -> Traced:
        """The network's `index`-th input."""
        out = make_traced(self, torch.Size(shape), dtype)
        out.node = -1 - index
        out.store = Store(out.node, self)
        return out

    def constant(self, source: torch.Tensor) -> Traced:
        """A tensor from outside the graph, as a traced one."""
        out = self._wrapped.get(id(source))
        if out is None:
            dtype = self.dtype if source.dtype.is_floating_point else source.dtype
            out = make_traced(self, source.shape, dtype)
            out.node = out.store = None
            out.source = source
            self._wrapped[id(source)] = out
        return out

    def emit(
        self,
        op: str,
        kind: str,
        inputs: tuple[Any, ...],
        shape: Any,
        dtype: torch.dtype,
        *,
        macs: int = 0,
        flops: int = 0,
        bias: int = 0,
        geometry: Geometry | None = None,
        counted: bool = True,
        out: Traced | None = None,
        view: Any = None,
    ) -> Traced:
        """Records an operation and returns its output.

        Args:
            op: name of the operation.
            kind: its family.
            inputs: tensors it reads: traced ones, parameters, buffers; None is skipped.
            shape: of the output.
            dtype: of the output.
            macs: multiply-adds.
            flops: arithmetic operations without the bias.
            bias: additions of a bias.
            geometry: how positions map.
            counted: False if the arithmetic is unknown.
            out: the input that an in-place operation writes to, which is then what is returned.
            view: the input whose storage the output shares.
        """
        rows = self.rows
        index = len(rows)
        nodes: list[int] = []
        shapes: list[Any] = []
        params = constants = 0
        for x in inputs:
            if x is None:
                continue
            source: Any = x
            if type(x) is Traced:
                node = x.node
                if node is not None:
                    if x.slot:
                        self.slots[index, len(nodes)] = x.slot
                    nodes.append(node)
                    shapes.append(x.shape)
                    continue
                source = x.source
            size = self.unclaimed.get(id(source))
            if size is None:
                size = source.numel()
            elif size:
                params += size
                self.unclaimed[id(source)] = 0
                constants += size
                continue
            constants += size or source.numel()
        shape = torch.Size(shape)
        row = (
            index, self.path, op, kind, tuple(nodes), tuple(shapes), (shape,), dtype,
            params, constants, macs, flops, bias, counted, out is not None, geometry, self.trace,
        )  # fmt: skip
        rows.append(_new_tuple(Row, row))
        if out is not None:
            if out.store is not None:
                self.alias[index] = out.store.key
                out.node = index
                out.slot = 0
            return out
        result = make_traced(self, shape, dtype)
        result.node = index
        if view is None:
            result.store = Store(index, self)
        else:
            store = result.store = view.store
            self.alias[index] = None if store is None else store.key
        return result

    def view(
        self, op: str, x: Traced, shape: Any, geometry: Geometry = RESHAPE, dtype: torch.dtype | None = None
    ) -> Traced:
        """Records another view of the same storage."""
        return self.emit(op, "view", (x,), shape, dtype or x.dtype, geometry=geometry, view=x)

    def more(self, first: Traced, shape: Any, dtype: torch.dtype, shares: Any = None) -> Traced:
        """One more output of the row that made `first`; `shares` is the tensor whose storage it views."""
        index = first.node
        assert index is not None
        row = self.rows[index]
        shape = torch.Size(shape)
        slot = len(row.output_shapes)
        self.rows[index] = row._replace(output_shapes=(*row.output_shapes, shape))
        out = make_traced(self, shape, dtype)
        out.node = index
        out.slot = slot
        out.store = Store((index, slot), self) if shares is None else shares.store
        return out

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Answers an operation on traced tensors: by its rule, else on the meta device."""
        rule = RULES.get(func)
        try:
            if rule is not None:
                result = rule(self, *args, **kwargs)
                if result is not NotImplemented:
                    return result
            return fallback.call(self, func, args, kwargs)
        except SizingError:
            raise
        except Exception as error:
            name = fallback.name_of(func)
            if type(error).__name__ in ("DataDependentOutputException", "GuardOnDataDependentSymNode"):
                raise DataDependentError(f"{name}: the shape of its output depends on values") from error
            shapes = fallback.shapes_of(args, kwargs)
            raise ShapeError(f"{name} on {shapes}: {error}") from error

    # Reaching the modules

    def install(self, net: nn.Module, train: bool) -> None:
        """Puts this tracer in the way of each module's call, until `uninstall`."""
        self._visit(net, "", train, set())
        self.total_params = sum(self.unclaimed.values())

    def uninstall(self) -> None:
        """Leaves every module exactly as it was, attributes set by its forward included."""
        for state, training in self._leaves:
            state.pop("_compiled_call_impl", None)
            state["training"] = training
        for live, saved in reversed(self._undo):
            live.clear()
            live.update(saved)
        self._undo.clear()
        self._leaves.clear()
        self._wrapped.clear()

    def _visit(self, module: nn.Module, path: str, train: bool, seen: set[int]) -> None:
        seen.add(id(module))
        self.modules[path] = module
        state = module.__dict__
        for p in state["_parameters"].values():
            if p is not None and id(p) not in self.unclaimed:
                self.unclaimed[id(p)] = p.numel()
        self._enter(module, state, path, train)
        children = state["_modules"]
        if children:
            prefix = path + "." if path else ""
            for name, child in children.items():
                if child is not None and id(child) not in seen:
                    self._visit(child, prefix + name, train, seen)

    def _enter(self, module: nn.Module, state: dict[str, Any], path: str, train: bool) -> None:
        kind = type(module)
        hooked = bool(
            state["_forward_pre_hooks"] or state["_forward_hooks"]
            or state["_backward_hooks"] or state["_backward_pre_hooks"]
        )  # fmt: skip
        rule = LEAVES.get(kind) if self.use_leaves and not hooked else None
        light = rule is not None and kind.forward is _FORWARDS[kind] and "forward" not in state
        if light and "_compiled_call_impl" not in state:
            self._leaves.append((state, state["training"]))
        else:
            self._undo.append((state, state.copy()))
        if state["training"] is not train:
            state["training"] = train
        if light:
            state["_compiled_call_impl"] = partial(_leaf_call, self, rule, module, path)
        else:
            state["_compiled_call_impl"] = self._scope(module, state, path, train, hooked)

    def _scope(self, module: nn.Module, state: dict[str, Any], path: str, train: bool, hooked: bool) -> Any:
        self._shadow(state, train)
        forward = module._call_impl if hooked or _has_global_hooks() else module.forward
        return partial(_scope_call, self, forward, module, path)

    def _shadow(self, state: dict[str, Any], train: bool) -> None:
        """Replaces tensors that the module holds by traced ones, so that arithmetic among them counts too.

        Vectors stay (in eval mode, where nothing writes to them): work on them costs nothing.
        """
        params, buffers = state["_parameters"], state["_buffers"]
        if params and any(p is not None and (train or p.dim() > 1) for p in params.values()):
            state["_parameters"] = {
                name: p if p is None or (p.dim() < 2 and not train) else self._constant_parameter(p)
                for name, p in params.items()
            }
        if buffers:
            state["_buffers"] = {
                name: b
                if b is None or not (train or (b.is_floating_point() and b.dim() > 1))
                else self.constant(b)
                for name, b in buffers.items()
            }

    def _constant_parameter(self, p: torch.Tensor) -> Traced:
        out = self.constant(p)
        out._is_param = True  # type: ignore[attr-defined]
        return out


def _has_global_hooks() -> bool:
    hooks = torch.nn.modules.module
    return bool(hooks._global_forward_hooks or hooks._global_forward_pre_hooks)


def _leaf_call(tracer: Tracer, rule: Any, module: nn.Module, path: str, *args: Any, **kwargs: Any) -> Any:
    if len(args) != 1 or kwargs or tracer.thread != threading.get_ident():
        return _scope_call(tracer, module._call_impl, module, path, *args, **kwargs)
    x = args[0]
    if type(x) is not Traced:
        if type(x) is not torch.Tensor:
            return _scope_call(tracer, module._call_impl, module, path, *args)
        x = tracer.constant(x)
    outer = tracer.path
    tracer.path = path
    out = rule(tracer, module, x)
    tracer.path = outer
    return out


def _scope_call(tracer: Tracer, forward: Any, module: nn.Module, path: str, *args: Any, **kwargs: Any) -> Any:
    if tracer.thread != threading.get_ident():
        return module._call_impl(*args, **kwargs)
    outer = tracer.path
    tracer.path = path
    out = forward(*args, **kwargs)
    # Not in a `finally`: after an error the path says where it happened.
    tracer.path = outer
    return out


def is_traced(tree: Any) -> bool:
    """Whether nested tuples, lists and dicts hold a traced tensor."""
    return find_traced(tree) is not None
