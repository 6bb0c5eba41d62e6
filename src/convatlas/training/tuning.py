"""What of a network learns, and how fast, while it is fine-tuned: a function of the step."""

from __future__ import annotations

from torch import Tensor, nn

from convatlas.training.layer_groups import layer_groups
from convatlas.training.optim import ParamOptions
from convatlas.training.recipes.recipe import Recipe

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


class Tuning:
    """Freezes and unfreezes the stages of a network.

    Args:
        net: its parameters' `requires_grad` is changed, and the mode of its norms; one that is frozen
            already stays frozen.
        recipe: its `freeze`, `head_first`, `unfreeze`, `freeze_norms`, `head_lr`, `layer_decay`, `l2_sp`.

    Attributes:
        changes: whether some parameters learn only later.

    Raises:
        ValueError: more stages are to be frozen than there are.
    """

    def __init__(self, net: nn.Module, recipe: Recipe) -> None:
        self.recipe = recipe
        self.changes = recipe.head_first > 0.0 or recipe.unfreeze > 0.0
        self._named = dict(net.named_parameters())
        self._own = {name: p.requires_grad for name, p in self._named.items()}
        self._is_idle = not (self.changes or recipe.freeze is not None or recipe.freeze_norms)
        self._groups = layer_groups(net)
        stages = self._groups.head
        if isinstance(recipe.freeze, int) and recipe.freeze > stages:
            raise ValueError(
                f"`freeze`={recipe.freeze}: the network has {stages} stages before its classifier; "
                f"expected 1 to {stages}, or 'backbone'"
            )
        self._frozen = stages if recipe.freeze == "backbone" else recipe.freeze or 0
        self._in_norms = {
            f"{path}.{name}" if path else name
            for path, module in net.named_modules()
            if isinstance(module, _NORMS)
            for name, _ in module.named_parameters(recurse=False)
        }

    def params(self) -> tuple[list[Tensor], list[ParamOptions]]:
        """The parameters that learn at some time, in the network's order, and how each does."""
        recipe, head = self.recipe, self._groups.head
        params: list[Tensor] = []
        options: list[ParamOptions] = []
        for name, p in self._named.items():
            depth = self._groups.params[name]
            if not self._learns(name, self._frozen):
                continue
            scale = recipe.layer_decay ** (head - depth)
            if depth == head and recipe.head_lr is not None:
                scale = recipe.head_lr / recipe.lr
            params.append(p)
            options.append(ParamOptions(scale, pulled=recipe.l2_sp > 0.0 and depth < head))
        return params, options

    def set_progress(self, progress: float) -> None:
        """Freezes what does not learn where `progress` of the training, 0 to 1, is over."""
        if self._is_idle:
            return
        least = self.first_stage(progress)
        for name, p in self._named.items():
            p.requires_grad_(self._learns(name, least))
        for norm, depth in self._groups.norms:
            if self.recipe.freeze_norms or depth < least:
                norm.eval()

    def first_stage(self, progress: float) -> int:
        """The depth of the first stage that learns where `progress` of the training is over."""
        recipe, head = self.recipe, self._groups.head
        if progress < recipe.head_first:
            return head
        if progress >= recipe.unfreeze:
            return self._frozen
        share = (progress - recipe.head_first) / (recipe.unfreeze - recipe.head_first)
        # One stage learns at once, and the first of all at `unfreeze`.
        return max(self._frozen, head - 1 - int(share * (head - 1 - self._frozen)))

    def release(self) -> None:
        """Gives each parameter back what it had."""
        for name, p in self._named.items():
            p.requires_grad_(self._own[name])

    def _learns(self, name: str, least: int) -> bool:
        is_free = self._groups.params[name] >= least
        return self._own[name] and is_free and not (self.recipe.freeze_norms and name in self._in_norms)
