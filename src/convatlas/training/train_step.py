"""A network that learns: one step of training, and all that such a step changes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from convatlas.data.apply import augment_batch
from convatlas.data.batches import Batch
from convatlas.data.counter_random import uniform
from convatlas.data.mixing import mix
from convatlas.models.network import AuxLogits, Network
from convatlas.training.cpu.choose import ExecutionPlan, prepare
from convatlas.training.cpu.fused_layers import part
from convatlas.training.distributed import Ranks
from convatlas.training.ema import BestWeights, Ema, Soup
from convatlas.training.losses import aux_loss, balanced_weights, make_loss
from convatlas.training.optim import Optimiser
from convatlas.training.recipes.recipe import Recipe
from convatlas.training.tuning import Tuning
from convatlas.weights.load import load_own

# The scale of the loss for float16, as torch's own scaler has it: where it begins, and how long it stays.
FIRST_SCALE = 2.0**16
GROWTH_STEPS = 2000


class Learner:
    """A network with its optimiser and its average.

    Args:
        net: on the device of `ranks`; changed in place.
        recipe: how it learns.
        ranks: the processes.
        execution: how it is computed.
        seed: of augmentation and dropout.
        mean: per channel, for values in [0, 1].
        std: standard deviation of each channel, in the units of `mean`.
        num_classes: K.
        labels: of all training images, for class weights.

    Attributes:
        net: as given.
        scale: what the loss is multiplied with; 1 unless gradients are float16.
    """

    def __init__(
        self,
        net: nn.Module,
        recipe: Recipe,
        *,
        ranks: Ranks,
        execution: ExecutionPlan,
        seed: int,
        mean: Sequence[float],
        std: Sequence[float],
        num_classes: int,
        labels: Tensor,
    ) -> None:
        if execution.channels_last:
            net.to(memory_format=torch.channels_last)
        self.net, self.recipe, self.ranks, self.seed = net, recipe, ranks, seed
        self.mean, self.std, self.num_classes = mean, std, num_classes
        weights = balanced_weights(labels, num_classes) if recipe.class_weights == "balanced" else None
        self.loss = make_loss(recipe, None if weights is None else weights.to(ranks.device))
        self.tuning = Tuning(net, recipe)
        self.tuning.set_progress(1.0)  # What learns at the end is all that learns.
        answering = _Answering(net, with_aux=recipe.aux_weight > 0.0 and _has_aux(net))
        unused = self.tuning.changes or _may_leave_unused(net, answering.with_aux)
        self._wrapped = ranks.wrap(answering, unused=unused)
        self.forward = prepare(self._wrapped, execution)
        params, options = self.tuning.params()
        self.optimiser = Optimiser(params, recipe, fused=execution.fused, options=options)
        self.best = BestWeights(net) if recipe.validation > 0.0 else None
        self.soup = Soup(net) if recipe.soup else None
        self._is_settled = False
        self.ema = None if recipe.ema_decay is None else Ema(net, recipe.ema_decay)
        self.scale = FIRST_SCALE if execution.scaler else 1.0
        self._preparing_s = 0.0
        self._scales, self._since_growth = execution.scaler, 0

    def gradients(self, batches: Sequence[Batch], *, of: int, epoch: int, step: int) -> Tensor:
        """Computes the gradients of a step.

        Args:
            batches: this process's share of the step's images, in parts.
            of: images of the step in all processes.
            epoch: counted from 0.
            step: counted from 0.

        Returns:
            Of this process's images, on the device: the sum of their losses, and how many are right before
            the step; the latter is 0 where labels are mixed.
        """
        # What dropout draws is a function of the step, so its generator's state need not be saved.
        self._seed_torch(step)
        total = torch.zeros(2, device=self.ranks.device)
        for number, batch in enumerate(batches):
            if not len(batch.labels) and self.ranks.world_size == 1:
                continue  # All its images were bad, and are to be skipped.
            began = time.perf_counter()
            images, targets = self._inputs(batch, epoch)
            self._preparing_s += time.perf_counter() - began
            with self._syncing(last=number == len(batches) - 1):
                answer: AuxLogits = self.forward(images)
                answer = AuxLogits(answer.main.float(), tuple(logits.float() for logits in answer.aux))
                loss = aux_loss(self.loss, answer, targets, self.recipe.aux_weight)
                # The mean over the processes of what is weighted so is the mean over all images.
                weight = len(images) * self.ranks.world_size / of
                (loss * (weight * self.scale)).backward()
            total[0] += loss.detach() * len(images)
            if not self.recipe.augment.mixes:
                total[1] += (answer.main.detach().argmax(dim=1) == targets).sum()
        return total

    def update(self, lr: float, step: int) -> bool:
        """Moves the weights by the gradients, and the average with them; says whether it did.

        It does not where float16 gradients were too large: then the scale is halved.
        """
        if self._scales:
            if not self.optimiser.unscale(self.scale):
                self.scale, self._since_growth = self.scale / 2.0, 0
                self.optimiser.zero_grad()
                return False
            self._since_growth += 1
            if self._since_growth == GROWTH_STEPS:
                self.scale, self._since_growth = self.scale * 2.0, 0
        self.optimiser.step(lr)
        self.optimiser.zero_grad()
        if self.ema is not None:
            self.ema.update(step)
        return True

    def take_preparing_s(self) -> float:
        """Time spent on augmentation since this was last asked, s."""
        spent, self._preparing_s = self._preparing_s, 0.0
        return spent

    def is_finite(self) -> bool:
        """Whether no weight and no statistic is infinite or not a number."""
        tensors = (t for t in self.net.state_dict().values() if t.is_floating_point())
        return bool(torch.stack([t.isfinite().all() for t in tensors]).all())

    def has_finite_gradients(self) -> bool:
        """Whether no gradient is infinite or not a number."""
        return self._scales or self.optimiser.unscale(1.0)  # With float16, `update` looks itself.

    def follow_first(self) -> None:
        """Gives every process the first one's statistics and average: each has kept its own."""
        average = {} if self.ema is None else self.ema.state()
        self.ranks.broadcast_([*self.net.buffers(), *average.values()])

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """While it lasts, the network has the averaged weights, where the recipe has them: the final ones."""
        if self.ema is None or self._is_settled:
            return contextlib.nullcontext()
        return self.ema.applied()

    def train(self, progress: float) -> None:
        """Goes into training mode, where `progress` of the training is over: what is frozen stays so."""
        self.net.train()
        self.tuning.set_progress(progress)

    def take_final(self, weights: Mapping[str, Tensor]) -> None:
        """Gives the network the weights that the training ends with."""
        self.net.load_state_dict(weights)
        self._is_settled = True

    def settle(self) -> None:
        """Leaves the network with its own layers, and with the weights that are saved, perhaps averaged."""
        part(self.net)
        self.tuning.release()
        if self.ema is not None and not self._is_settled:
            self.net.load_state_dict(self.ema.state())

    def groups(self) -> dict[str, dict[str, Tensor]]:
        """The tensors of a checkpoint."""
        kept = {"average": self.ema, "best": self.best, "soup": self.soup}
        states = {name: each.state() for name, each in kept.items() if each is not None}
        return {"weights": self.net.state_dict(), "optimiser": self.optimiser.state()} | states

    def load(self, groups: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Takes over what `groups` gave.

        Raises:
            ValueError: it is of another network or another recipe.
        """
        load_own(self.net, groups["weights"])
        self.optimiser.load(groups["optimiser"])
        for name, each in (("average", self.ema), ("best", self.best), ("soup", self.soup)):
            if each is not None:
                each.load(groups[name])

    def scaling(self) -> dict[str, Any]:
        """What is to be remembered of the scale, beside the tensors."""
        return {"scale": self.scale, "since_growth": self._since_growth}

    def load_scaling(self, state: Mapping[str, Any]) -> None:
        """Takes over what `scaling` gave; without float16, there is nothing to take over."""
        if self._scales:
            self.scale, self._since_growth = state["scale"], state["since_growth"]

    def _inputs(self, batch: Batch, epoch: int) -> tuple[Tensor, Tensor]:
        """Augmented images and their targets."""
        device, augment = self.ranks.device, self.recipe.augment
        images = augment_batch(
            batch.images.to(device, non_blocking=True),
            batch.samples,
            augment=augment,
            seed=self.seed,
            epoch=epoch,
            mean=self.mean,
            std=self.std,
        )
        labels = batch.labels.to(device, non_blocking=True)
        if not augment.mixes:
            return images, labels
        return mix(
            images,
            labels,
            batch.samples,
            augment=augment,
            seed=self.seed,
            epoch=epoch,
            num_classes=self.num_classes,
        )

    def _seed_torch(self, step: int) -> None:
        draw = uniform(self.seed, step, np.array([self.ranks.rank]), "torch", 1)[0, 0]
        number = int(draw * 2**53)
        torch.default_generator.manual_seed(number)
        if self.ranks.device.type == "cuda":
            torch.cuda.default_generators[self.ranks.device.index].manual_seed(number)

    def _syncing(self, *, last: bool) -> contextlib.AbstractContextManager[Any]:
        """The processes exchange gradients once a step, with its last part."""
        if last or not isinstance(self._wrapped, DistributedDataParallel):
            return contextlib.nullcontext()
        return self._wrapped.no_sync()


class _Answering(nn.Module):
    """A network that answers with a record in training, whether it has auxiliary classifiers or not."""

    def __init__(self, net: nn.Module, with_aux: bool) -> None:
        super().__init__()
        self.net = net
        self.with_aux = with_aux

    def forward(self, x: Tensor) -> AuxLogits:
        if self.with_aux:
            return self.net.forward_aux(x)  # pyright: ignore[reportCallIssue]
        return AuxLogits(self.net(x), ())


def _has_aux(net: nn.Module) -> bool:
    heads = getattr(net, "aux_heads", None)
    return isinstance(heads, nn.ModuleList) and len(heads) > 0


def _may_leave_unused(net: nn.Module, with_aux: bool) -> bool:
    """Whether some step may give some parameter no gradient; of a network from elsewhere, who knows."""
    ours = isinstance(net, Network) and not net.name.startswith("fractalnet")  # It drops whole paths.
    return not ours or (_has_aux(net) and not with_aux)
