"""Optimisers over lists of tensors: their state is plain tensors, and each step is told its learning rate.

They give the numbers of `torch.optim`, whose first use imports torch's compiler: that takes longer than
LeNet-5 needs to learn half its epochs.
"""

# torch's fused and foreach kernels are not exported, yet `torch.optim` itself is built from them:
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from convatlas.training.recipes.recipe import Recipe

SLOTS = {
    "sgd": {"velocity": 0.0},
    "rmsprop": {"velocity": 0.0, "mean_square": 1.0},
    "adamw": {"mean": 0.0, "mean_square": 0.0},
    "lbfgs": {},
}
"""What each optimiser keeps for each parameter, and the value that it starts from."""


@dataclasses.dataclass(frozen=True)
class ParamOptions:
    """How one parameter moves.

    Attributes:
        lr_scale: what the learning rate of a step is multiplied with.
        pulled: whether it is pulled toward its first value, by the recipe's `l2_sp`, in place of toward 0.
    """

    lr_scale: float = 1.0
    pulled: bool = False


class Optimiser:
    """Moves parameters against their gradients, as a recipe says.

    Args:
        params: leaves; one without a gradient stays where it is.
        recipe: its optimizer, momentum, weight decay and clipping.
        fused: use torch's fused kernels where there are some.
        options: how each parameter moves; None for all alike.

    Attributes:
        num_steps: how many are done.
        slots: tensors by the names of `SLOTS`, one for each parameter; with `l2_sp`, "first" holds their
            first values.
        counts: how many steps each parameter has taken, (P,); those that begin frozen take fewer.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        recipe: Recipe,
        fused: bool = True,
        options: Sequence[ParamOptions] | None = None,
    ) -> None:
        self.params = list(params)
        self.recipe = recipe
        self.fused = fused and all(p.device.type in ("cpu", "cuda") for p in self.params)
        self.num_steps = self._count = 0
        self.slots = {
            name: [torch.full_like(p, start) for p in self.params]
            for name, start in SLOTS[recipe.optimizer].items()
            if name != "velocity" or recipe.momentum > 0.0
        }
        self._options = [ParamOptions()] * len(self.params) if options is None else list(options)
        if recipe.l2_sp > 0.0:
            self.slots["first"] = [p.detach().clone() for p in self.params]
        self._begins_late = recipe.head_first > 0.0 or recipe.unfreeze > 0.0
        self.counts = [0] * len(self.params)
        self._groups: dict[tuple[float, ParamOptions], list[int]] = {}
        for i, (p, how) in enumerate(zip(self.params, self._options, strict=True)):
            decay = recipe.weight_decay if decays(p, recipe) and not self._is_pulled(how) else 0.0
            self._groups.setdefault((decay, how), []).append(i)

    def _is_pulled(self, how: ParamOptions) -> bool:
        return how.pulled and self.recipe.l2_sp > 0.0

    def zero_grad(self) -> None:
        """Forgets the gradients."""
        for p in self.params:
            p.grad = None

    @torch.no_grad()
    def unscale(self, scale: float) -> bool:
        """Divides the gradients by what the loss was multiplied with; says whether all are finite."""
        grads = [p.grad for p in self.params if p.grad is not None]
        found = torch.zeros(1, device=grads[0].device)
        inverse = torch.full_like(found, 1.0 / scale)
        torch._amp_foreach_non_finite_check_and_unscale_(grads, found, inverse)
        return not found.item()

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Moves every parameter one step, after the clipping of the gradients to the recipe's `clip_norm`."""
        if self.recipe.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.params, self.recipe.clip_norm)
        self.num_steps += 1
        move = {"sgd": self._sgd, "rmsprop": self._rmsprop, "adamw": self._adamw}[self.recipe.optimizer]
        for (weight_decay, how), group in self._groups.items():
            moving = [i for i in group if self.params[i].grad is not None]
            for i in moving:
                self.counts[i] = self.counts[i] + 1 if self._begins_late else self.num_steps
            # Adam's means are corrected for the steps that they are of.
            for count in sorted({self.counts[i] for i in moving}):
                chosen = [i for i in moving if self.counts[i] == count]
                params = [self.params[i] for i in chosen]
                slots = {name: [tensors[i] for i in chosen] for name, tensors in self.slots.items()}
                grads = [_gradient(p) for p in params]
                if self._is_pulled(how):
                    self._pull(params, grads, slots["first"], lr * how.lr_scale)
                self._count = count
                move(params, grads, slots, weight_decay, lr * how.lr_scale)

    def _pull(self, params: list[Tensor], grads: list[Tensor], first: list[Tensor], lr: float) -> None:
        """Pulls parameters toward their first values.

        Source: Li, Grandvalet and Davoine 2018, "Explicit Inductive Bias for Transfer Learning with
        Convolutional Networks", Equation 3 ("L2-SP").
        """
        if self.recipe.optimizer == "adamw":
            torch._foreach_lerp_(params, first, lr * self.recipe.l2_sp)
            return
        torch._foreach_add_(grads, params, alpha=self.recipe.l2_sp)
        torch._foreach_sub_(grads, first, alpha=self.recipe.l2_sp)

    def state(self) -> dict[str, Tensor]:
        """All that a resumed training needs: "velocity.3" is parameter 3's slot, "num_steps" the count."""
        named = {f"{name}.{i}": t for name, tensors in self.slots.items() for i, t in enumerate(tensors)}
        counts = {"counts": torch.tensor(self.counts)} if self._begins_late else {}
        return named | {"num_steps": torch.tensor(self.num_steps)} | counts

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Takes over what `state` gave.

        Raises:
            ValueError: it is of another optimiser or of other parameters; nothing has changed then.
        """
        own = self.state()
        wrong = sorted(own.keys() ^ state.keys()) or [
            name for name, tensor in own.items() if tensor.shape != state[name].shape
        ]
        if wrong:
            raise ValueError(
                f"the state does not fit {self.recipe.optimizer!r} over {len(self.params)} parameters: "
                f"{len(wrong)} entries differ, the first is {wrong[0]!r}"
            )
        for name, tensor in own.items():
            tensor.copy_(state[name])
        self.num_steps = int(state["num_steps"])
        if self._begins_late:
            self.counts = state["counts"].tolist()

    def _sgd(
        self,
        params: list[Tensor],
        grads: list[Tensor],
        slots: dict[str, list[Tensor]],
        weight_decay: float,
        lr: float,
    ) -> None:
        """As torch has it, with the rate outside of the velocity.

        Source: Sutskever et al. 2013, "On the importance of initialization and momentum in deep learning".
        """
        recipe, velocities = self.recipe, slots.get("velocity", [])
        if self.fused:
            torch._fused_sgd_(
                params,
                grads,
                velocities,
                weight_decay=weight_decay,
                momentum=recipe.momentum,
                lr=lr,
                dampening=0.0,
                nesterov=recipe.nesterov,
                maximize=False,
                is_first_step=False,
            )
            return
        grads = list(torch._foreach_add(grads, params, alpha=weight_decay))
        if velocities:
            torch._foreach_mul_(velocities, recipe.momentum)
            torch._foreach_add_(velocities, grads)
            if recipe.nesterov:
                torch._foreach_add_(grads, velocities, alpha=recipe.momentum)
            else:
                grads = velocities
        torch._foreach_add_(params, grads, alpha=-lr)

    def _rmsprop(
        self,
        params: list[Tensor],
        grads: list[Tensor],
        slots: dict[str, list[Tensor]],
        weight_decay: float,
        lr: float,
    ) -> None:
        """TensorFlow's: `eps` is inside the root, mean squares start at 1, the rate is part of the velocity.

        Source: tf.train.RMSPropOptimizer, which Inception v3, NASNet and EfficientNet were trained by.
        """
        grads = list(torch._foreach_add(grads, params, alpha=weight_decay))
        squares = slots["mean_square"]
        torch._foreach_mul_(squares, self.recipe.rms_decay)
        torch._foreach_addcmul_(squares, grads, grads, value=1.0 - self.recipe.rms_decay)
        roots = torch._foreach_add(squares, self.recipe.eps)
        torch._foreach_sqrt_(roots)
        velocities = slots.get("velocity")
        if velocities is None:
            torch._foreach_addcdiv_(params, grads, roots, value=-lr)
            return
        torch._foreach_mul_(velocities, self.recipe.momentum)
        torch._foreach_addcdiv_(velocities, grads, roots, value=lr)
        torch._foreach_sub_(params, velocities)

    def _adamw(
        self,
        params: list[Tensor],
        grads: list[Tensor],
        slots: dict[str, list[Tensor]],
        weight_decay: float,
        lr: float,
    ) -> None:
        """Source: Loshchilov and Hutter 2017, "Decoupled Weight Decay Regularization", Algorithm 2."""
        means, squares = slots["mean"], slots["mean_square"]
        (beta1, beta2), eps = self.recipe.betas, self.recipe.eps
        if self.fused:
            count = torch.full((), float(self._count), device=params[0].device)
            torch._fused_adamw_(
                params,
                grads,
                means,
                squares,
                [],
                [count] * len(params),
                lr=lr,
                beta1=beta1,
                beta2=beta2,
                weight_decay=weight_decay,
                eps=eps,
                amsgrad=False,
                maximize=False,
            )
            return
        torch._foreach_mul_(params, 1.0 - lr * weight_decay)
        torch._foreach_lerp_(means, grads, 1.0 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, grads, grads, value=1.0 - beta2)
        roots = torch._foreach_sqrt(squares)
        torch._foreach_div_(roots, math.sqrt(1.0 - beta2**self._count))
        torch._foreach_add_(roots, eps)
        torch._foreach_addcdiv_(params, means, roots, value=-lr / (1.0 - beta1**self._count))


def decays(param: Tensor, recipe: Recipe) -> bool:
    """Whether a parameter has weight decay: vectors and depthwise filters may be spared."""
    if param.dim() <= 1:
        return recipe.decay_norm_and_bias
    return recipe.decay_depthwise or param.dim() != 4 or param.shape[1] != 1


def _gradient(param: Tensor) -> Tensor:
    """A gradient laid out as its parameter: the fused kernels walk through memory and do not look."""
    grad = param.grad
    assert grad is not None
    if param.dim() > 1 and grad.stride() != param.stride():
        grad = torch.empty_like(param).copy_(grad)
    return grad
