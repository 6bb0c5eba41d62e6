"""Runs a module's own forward on tensors without storage and keeps a row per operation."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from . import arguments, fallback
from .containers import Held, held_by, put_back
from .errors import DataDependentError, ShapeError, UnsizableError
from .geometry import RESHAPE, Geometry
from .operation import Operation
from .strides import known
from .tensor import RULES, Traced, make_traced, rule_of
from .trace import Checkpoint

# Rules for the whole forward of a module type, and the forward that each stands for.
LEAVES: dict[type[nn.Module], Callable[[Tracer, nn.Module, Traced], Any]] = {}
_FORWARDS: dict[type[nn.Module], Any] = {}
_FOREIGN: dict[str, tuple[Any, frozenset[str]]] = {}
_UNKNOWN = object()
_new_tuple = tuple.__new__
_new_size = torch.Size


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


def foreign_leaf(name: str, words: str) -> Callable[[Any], Any]:
    """Registers a rule for the forward, in eval mode, of a module type of a package that may not be there.

    Args:
        name: of the type, with its module.
        words: all names that its forward uses. Where another version of the package uses others, the forward
            runs itself.
    """

    def register(rule: Any) -> Any:
        _FOREIGN[name] = (rule, frozenset(words.split()))
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
    """Records one forward pass.

    Attributes:
        rows: one per operation, in execution order.
        deaths: per storage, the number of rows recorded when its last tensor died; only if lives are watched.
        alias: rows whose first output lies in another storage (views, in-place operations), with its key.
        slots: (row, position of an input) to the output that it reads, where that is not the first.
        slot_dtypes: (row, place) to the dtype of an output that is not the first.
        calls: first row, and row after the last, of each call of a childless module that made several.
        unclaimed: elements of each parameter that no row has used yet, by id.
        made: every new output of a row, while the forward runs; None if lives are watched.
    """

    def __init__(
        self,
        dtype: torch.dtype,
        device: torch.device,
        cast: bool = False,
        use_leaves: bool = True,
        lives: bool = False,
    ) -> None:
        self.dtype = dtype
        # Bytes of a floating-point parameter's element; 0 where each has its own.
        self.itemsize = dtype.itemsize if cast else 0
        self.device = device
        self.use_leaves = use_leaves
        self.lives = lives
        self.rows: list[Operation] = []
        self.deaths: dict[Any, int] = {}
        self.alias: dict[int, Any] = {}
        self.slots: dict[tuple[int, int], int] = {}
        self.slot_dtypes: dict[tuple[int, int], torch.dtype] = {}
        self.calls: list[tuple[int, int]] = []
        self.unclaimed: dict[int, int] = {}
        self.made: list[Traced] | None = None if lives else []
        self.path = ""
        self.total_params = 0
        # (first row, row after the last, rows and storages of its inputs, whether it is reentrant) of each
        # checkpointed part.
        self.checkpoints: list[Checkpoint] = []
        self.train = False
        self._graded: set[int] = set()
        self._seen_rows = 0
        # Ids of the parameters that the forward looks at; None if nobody wants to know.
        self.looked_at: set[int] | None = None
        # Whether functions run on tensors of the meta device instead of traced ones.
        self.suspended = False
        self.thread = threading.get_ident()
        self._claims: list[tuple[int, int]] = []
        self._undo: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._leaves: list[tuple[dict[str, Any], bool]] = []
        self._held: list[Held] = []
        self._wrapped: dict[int, Traced] = {}
        self._rule_of: dict[type[nn.Module], Any] = {}
        self._hooked = _has_global_hooks()

    # Recording

    def input(self, index: int, shape: tuple[int, ...], dtype: torch.dtype) -> Traced:
        """The network's `index`-th input."""
        key = -1 - index
        return make_traced(self, torch.Size(shape), dtype, key, key, self._store(key))

    def constant(self, source: torch.Tensor) -> Traced:
        """A tensor from outside the graph, as a traced one."""
        out = self._wrapped.get(id(source))
        if out is None:
            out = make_traced(self, source.shape, self.dtype_of(source), None, None, None)
            out.source = source
            self._wrapped[id(source)] = out
        return out

    def dtype_of(self, x: torch.Tensor) -> torch.dtype:
        """The dtype that a tensor counts in."""
        return self.dtype if self.itemsize and type(x) is not Traced and x.is_floating_point() else x.dtype

    def _store(self, key: Any) -> Store | None:
        return Store(key, self) if self.lives else None

    def emit(
        self,
        op: str,
        kind: str,
        inputs: Sequence[Any],
        shape: Any,
        dtype: torch.dtype,
        *,
        macs: int = 0,
        flops: int = 0,
        bias: int = 0,
        geometry: Geometry | None = None,
        counted: bool = True,
        macs_counted: bool = True,
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
            counted: False if `flops` may lack something.
            macs_counted: False if even `macs` may.
            out: the input that an in-place operation writes to, which is then what is returned.
            view: the input whose storage the output shares.
        """
        nodes: list[int] = []
        shapes: list[Any] = []
        params = constants = read = 0
        for x in inputs:
            source = x
            if type(x) is Traced:
                if x.node is not None:
                    if x.slot:
                        self.slots[len(self.rows), len(nodes)] = x.slot
                    nodes.append(x.node)
                    shapes.append(x.shape)
                    continue
                source = x.source
            if source is not None:
                elements = source.numel()
                constants += elements
                read += elements * self.dtype_of(source).itemsize
                claimed = self.unclaimed.pop(id(source), 0)
                if claimed:
                    params += claimed
                    self._claims.append((id(source), claimed))
        return self.record(
            op, kind, tuple(nodes), tuple(shapes), _new_size(shape), dtype, params, constants,
            read, macs, flops, bias, geometry, counted, macs_counted, out, view,
        )  # fmt: skip

    def record(
        self, op: str, kind: str, nodes: tuple[int, ...], shapes: tuple[Any, ...], shape: torch.Size,
        dtype: torch.dtype, params: int, constants: int, read: int, macs: int, flops: int,
        bias: int, geometry: Geometry | None, counted: bool = True, macs_counted: bool = True,
        out: Traced | None = None, view: Any = None,
    ) -> Traced:  # fmt: skip
        """As `emit`, which says what the arguments are, for inputs that are already told apart.

        `nodes` are the rows of which the inputs from the graph are the first outputs, `shapes` their shapes;
        `params` counts elements of parameters used for the first time, `constants` those of all parameters
        and buffers that are read, in `read` bytes.
        """
        rows = self.rows
        index = len(rows)
        row = (
            index, self.path, op, kind, nodes, shapes, (shape,), dtype, params, constants,
            read, macs, flops, bias, counted, macs_counted, out is not None, geometry,
        )  # fmt: skip
        rows.append(_new_tuple(Operation, row))
        if out is not None:
            if out.key is not None:
                self.alias[index] = out.key
                out.node = index
                out.slot = 0
            return out
        if view is not None:
            self.alias[index] = view.key
            return make_traced(self, shape, dtype, index, view.key, view.store)
        made = self.made
        if made is None:
            return make_traced(self, shape, dtype, index, index, Store(index, self))
        result = make_traced(self, shape, dtype, index, index, None)
        made.append(result)
        return result

    def view(
        self, op: str, x: Traced, shape: Any, strides: tuple[int, ...], geometry: Geometry | None = RESHAPE
    ) -> Traced:
        """Records another view of the same storage, whose elements lie as `strides` say."""
        out = self.emit(op, "view", (x,), shape, x.dtype, geometry=geometry, view=x)
        out.strides = known(out.shape, strides)
        return out

    def more(self, first: Traced, shape: Any, dtype: torch.dtype, shares: Any = None) -> Traced:
        """One more output of the row that made `first`; `shares` is the tensor whose storage it views."""
        index = first.node
        assert index is not None
        row = self.rows[index]
        shape = torch.Size(shape)
        slot = len(row.output_shapes)
        self.rows[index] = row._replace(output_shapes=(*row.output_shapes, shape))
        key: Any = (index, slot)
        self.slot_dtypes[key] = dtype
        if shares is None:
            out = make_traced(self, shape, dtype, index, key, self._store(key))
        else:
            out = make_traced(self, shape, dtype, index, shares.key, shares.store)
        out.slot = slot
        return out

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Answers an operation on traced tensors: by its rule, else on the meta device."""
        rule = RULES.get(func) or rule_of(func)
        if rule is None:
            return fallback.call(self, func, args, kwargs)
        begin, claims = len(self.rows), len(self._claims)
        try:
            out = kwargs.get("out") if kwargs else None
            if out is None:
                result = rule(self, *args, **kwargs)
            else:
                result = self._into(out, rule(self, *args, **{k: v for k, v in kwargs.items() if k != "out"}))
            if result is not NotImplemented:
                return result
            misfit = None
        except DataDependentError:
            raise
        except ShapeError as error:
            misfit = error
        except Exception:
            misfit = None
        self._forget(begin, claims)
        for given, named in arguments.reordered(fallback.name_of(func), args, kwargs):
            try:
                result = rule(self, *given, **named)
                if result is not NotImplemented:
                    return result
            except DataDependentError:
                raise
            except ShapeError as error:
                misfit = error
            except Exception:
                pass
            self._forget(begin, claims)
        try:
            return fallback.call(self, func, args, kwargs)
        except ShapeError as error:
            raise misfit or error from None

    def needs_grad(self, node: int | None) -> bool:
        """Whether a row's output depends on what learns; in eval mode nothing is said to."""
        if not self.train or node is None:
            return False
        for row in self.rows[self._seen_rows :]:
            if row.constants or any(source in self._graded for source in row.inputs):
                self._graded.add(row.index)
        self._seen_rows = len(self.rows)
        return node in self._graded

    def checkpointed(self, begin: int, given: Any, reentrant: bool) -> None:
        """Notes that the rows from `begin` on run again in the backward pass, from these arguments."""
        inputs = [x for x in tree_leaves(given) if type(x) is Traced and x.node is not None]
        nodes, keys = tuple(x.node for x in inputs), tuple(x.key for x in inputs)
        self.checkpoints.append(Checkpoint(begin, len(self.rows), nodes, keys, reentrant))

    def _into(self, out: Any, result: Any) -> Any:
        """What an operation returns that writes its results into given tensors."""
        if result is NotImplemented:
            return result
        single = isinstance(out, torch.Tensor)
        for given, made in zip((out,) if single else out, (result,) if single else result, strict=True):
            if type(given) is not Traced or made.node is None:
                return NotImplemented
            given.shape, given.strides = made.shape, made.strides
            given.node, given.slot, given.key, given.store = made.node, made.slot, made.key, made.store
        return out

    def _forget(self, begin: int, claims: int) -> None:
        """Takes back the rows, and the parameters that they were the first to use, of a rule that failed."""
        del self.rows[begin:]
        for key, elements in self._claims[claims:]:
            self.unclaimed[key] = elements
        del self._claims[claims:]
        for index in [index for index in self.alias if index >= begin]:
            del self.alias[index]
        for found in (self.slots, self.slot_dtypes):
            for key in [key for key in found if key[0] >= begin]:
                del found[key]

    # Reaching the modules

    def install(self, net: nn.Module, train: bool) -> None:
        """Puts this tracer in the way of each module's call, until `uninstall`."""
        self.train = train
        self._visit(net, "", train, set())
        self.total_params = sum(self.unclaimed.values())

    def uninstall(self) -> None:
        """Leaves every module exactly as it was, what its forward wrote into attributes included."""
        for state, training in self._leaves:
            state.pop("_compiled_call_impl", None)
            state["training"] = training
        for live, saved in reversed(self._undo):
            live.clear()
            live.update(saved)
        put_back(self._held)
        self._held.clear()
        self._undo.clear()
        self._leaves.clear()
        self._wrapped.clear()

    def _visit(self, module: nn.Module, path: str, train: bool, seen: set[int]) -> None:
        seen.add(id(module))
        state = module.__dict__
        kind = type(module)
        if kind not in self._rule_of:
            _refuse(module, path)
        params = state["_parameters"]
        if params:
            unclaimed = self.unclaimed
            for p in params.values():
                if p is not None and id(p) not in unclaimed:
                    unclaimed[id(p)] = p.numel()
        rule = self._rule_of.get(kind, _UNKNOWN)
        if rule is _UNKNOWN:
            rule = self._rule_of[kind] = self._rule_for(kind, train)
        hooked = (
            state["_forward_hooks"] or state["_forward_pre_hooks"]
            or state["_backward_hooks"] or state["_backward_pre_hooks"]
        )  # fmt: skip
        if rule is None or hooked or "forward" in state or "_compiled_call_impl" in state:
            self._undo.append((state, state.copy()))
            self._held += held_by(state)
            self._shadow(state, train)
            forward = module._call_impl if hooked or self._hooked else module.forward
            state["_compiled_call_impl"] = partial(_scope_call, self, forward, module, path)
        else:
            self._leaves.append((state, state["training"]))
            state["_compiled_call_impl"] = partial(_leaf_call, self, rule, module, path)
        state["training"] = train
        children = state["_modules"]
        if children:
            prefix = path + "." if path else ""
            for name, child in children.items():
                if child is not None and id(child) not in seen:
                    self._visit(child, prefix + name, train, seen)

    def _rule_for(self, kind: type[nn.Module], train: bool) -> Any:
        """The rule for all of a module type's forward, if it is the forward that the rule stands for."""
        if not self.use_leaves or self._hooked:
            return None
        if kind in LEAVES:
            return LEAVES[kind] if kind.forward is _FORWARDS[kind] else None
        rule, words = _FOREIGN.get(f"{kind.__module__}.{kind.__qualname__}", (None, None))
        return rule if not train and words == frozenset(kind.forward.__code__.co_names) else None

    def _shadow(self, state: dict[str, Any], train: bool) -> None:
        """Replaces tensors that the module holds by traced ones, so that arithmetic among them counts too.

        Vectors stay (in eval mode, where nothing writes to them): work on them costs nothing. Vectors that
        are not saved with the weights, such as the frequencies of a position's encoding, become matrices.
        """
        params, buffers = state["_parameters"], state["_buffers"]
        if params:
            shown = {
                name: p if p is None or (not train and p.dim() < 2) else self._constant_parameter(p)
                for name, p in params.items()
            }
            watched = self.looked_at
            state["_parameters"] = shown if watched is None else _Watched(shown, params, watched)
        if buffers:
            tables = state["_non_persistent_buffers_set"]
            shadowed = dict(buffers)
            for name, b in buffers.items():
                if b is not None and (
                    train or (b.dim() > (0 if name in tables else 1) and b.is_floating_point())
                ):
                    shadowed[name] = self.constant(b)
            state["_buffers"] = shadowed

    def _constant_parameter(self, p: torch.Tensor) -> Traced:
        out = self.constant(p)
        out._is_param = True  # type: ignore[attr-defined]
        return out


def _refuse(module: Any, path: str) -> None:
    """Refuses what no trace can enter."""
    name = path or "the network"
    if isinstance(module, torch.jit.ScriptModule):
        raise UnsizableError(
            f"{name} is a ScriptModule, whose forward is not Python; size what it was made from"
        )
    if any(map(nn.parameter.is_lazy, module._parameters.values())):
        raise UnsizableError(f"{name} has no shape yet (a lazy module); run it once on a batch, then size it")


class _Watched(dict[str, Any]):
    """A module's parameters; it notes which of them are looked at."""

    def __init__(self, shown: dict[str, Any], params: dict[str, Any], seen: set[int]) -> None:
        super().__init__(shown)
        self.params = params
        self.seen = seen

    def __getitem__(self, name: str) -> Any:
        self.seen.add(id(self.params.get(name)))
        return super().__getitem__(name)


def _has_global_hooks() -> bool:
    hooks = torch.nn.modules.module
    return bool(hooks._global_forward_hooks or hooks._global_forward_pre_hooks)


def _leaf_call(
    tracer: Tracer, rule: Any, module: nn.Module, path: str, x: Any = None, /, *rest: Any, **kwargs: Any
) -> Any:
    if rest or kwargs or type(x) is not Traced:
        elsewhere = tracer.suspended or tracer.thread != threading.get_ident()
        if rest or kwargs or type(x) is not torch.Tensor or elsewhere:
            given = rest if x is None else (x, *rest)
            return _scope_call(tracer, module._call_impl, module, path, *given, **kwargs)
        x = tracer.constant(x)
    outer = tracer.path
    tracer.path = path
    begin = len(tracer.rows)
    out = rule(tracer, module, x)
    if len(tracer.rows) - begin > 1 and not module._modules:
        tracer.calls.append((begin, len(tracer.rows)))
    # Not in a `finally`: after an error the path says where it happened.
    tracer.path = outer
    return out


def _scope_call(
    tracer: Tracer, forward: Any, module: nn.Module, path: str, /, *args: Any, **kwargs: Any
) -> Any:
    if tracer.thread != threading.get_ident():
        return module._call_impl(*args, **kwargs)
    outer = tracer.path
    tracer.path = path
    begin = len(tracer.rows)
    out = forward(*args, **kwargs)
    if path and len(tracer.rows) - begin > 1 and not module._modules:
        tracer.calls.append((begin, len(tracer.rows)))
    tracer.path = outer
    return out
