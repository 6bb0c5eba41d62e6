"""The loop over epochs and steps, and what makes it safe to interrupt.

Nothing here has a state that a function could give: the order of the samples, augmentation, dropout, learning
rate and image size are functions of the step. So a training is its tensors and a few numbers, `TrainState`;
to stop and to go on is to write them and to read them.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from convatlas.data.batches import Batch, read_batches
from convatlas.metrics.classification import Evaluation
from convatlas.models.network import Network
from convatlas.runs import checkpoint as files
from convatlas.runs.checkpoint import CHECKPOINTS
from convatlas.training import nonfinite
from convatlas.training.evaluation import evaluate
from convatlas.training.logging.metrics_logger import MetricsLogger, Stopwatch
from convatlas.training.setup import TrainSetup
from convatlas.training.signals import StopFlag, StoppedError
from convatlas.training.state import StepSync, TrainState
from convatlas.training.train_step import Learner

# A GPU is not asked after each step: to wait for its answer would leave it idle.
LOOK_EVERY_ON_GPU = 10
# Where the user says nothing: in long epochs, a checkpoint is written after this time, s, ...
SAVE_EVERY_S = 600.0
# ... and none at the end of an epoch that follows the last checkpoint faster than this, s.
LEAST_S = 2.0


class Training:
    """A training that runs.

    Args:
        setup: what is to be done.
        folder: of the run.
        facts: what each checkpoint holds beside tensors and `TrainState`.
        stop: set by a signal.
        save_every: steps between checkpoints; None for what the time says.
        keep: the newest checkpoints that are kept, beside the best.

    Attributes:
        learner: the network and its optimiser.
        state: where it stands.
        metrics_logger: writes and tells; the first process sets one, others have none.
    """

    def __init__(
        self,
        setup: TrainSetup,
        folder: Path,
        facts: dict[str, Any],
        stop: StopFlag,
        *,
        save_every: int | None = None,
        keep: int = 3,
    ) -> None:
        self.setup, self.ranks, self.batch_order, self.recipe = (
            setup,
            setup.ranks,
            setup.batch_order,
            setup.spec.recipe,
        )
        self.folder, self.checkpoints = folder, folder / CHECKPOINTS
        self.facts, self.stop, self.save_every, self.keep = facts, stop, save_every, keep
        self.learner = Learner(
            setup.net,
            self.recipe,
            ranks=setup.ranks,
            execution=setup.execution,
            seed=setup.spec.seed,
            mean=setup.transform.mean,
            std=setup.transform.std,
            num_classes=setup.num_classes,
            labels=setup.source.train.labels,
        )
        self.state = TrainState()
        self.metrics_logger: MetricsLogger | None = None
        # Losses added up and right answers, since the last look.
        self.unseen, self._unseen_images = torch.zeros(2, device=setup.ranks.device), 0
        self._counted_from = self._saved_at = time.perf_counter()
        self._skipped: set[str] = set()

    def start(self) -> None:
        """Clears what a killed process left, and saves first weights that nothing else could bring back."""
        if self.ranks.is_first:
            files.clean(self.checkpoints, self.state.step)
        ours = isinstance(self.learner.net, Network) and self.learner.net.name == self.setup.spec.network
        if self.state.step == 0 and (not ours or self.setup.spec.on_nan == "rollback"):
            self.save()

    def run(self) -> Evaluation:
        """Trains from where it stands to the end, and measures the weights that it ends with.

        Raises:
            StoppedError: a signal asked for the end; a checkpoint has been written.
            TrainingError: the loss is no number, and nothing helps.
            SpaceError: the disk is full; the last checkpoint is as it was.
        """
        evaluation: Evaluation | None = None
        while not self.state.over:
            try:
                watch, lr = self.learn_epoch()
                evaluation = self.close_epoch(watch, lr)
            except nonfinite.NotFiniteError as error:
                nonfinite.go_back(self, str(error))
        early = self.state.step < self.batch_order.num_steps and self.setup.execution.autocast is not None
        return self.evaluate(exactly=True) if evaluation is None or early else evaluation

    def learn_epoch(self) -> tuple[Stopwatch, float]:
        """Takes the steps that are left of an epoch.

        Returns:
            How fast it went, and the learning rate of its last step.
        """
        state, per_epoch = self.state, self.batch_order.steps_per_epoch
        epoch, first = divmod(state.step, per_epoch)
        self.learner.net.train()
        watch, lr = Stopwatch(), 0.0
        for batches in watch.waiting(self.read(epoch, first)):
            begin, end = self.batch_order.bounds(state.step % per_epoch)
            lr = self.recipe.lr_at(state.step, self.batch_order.num_steps) * state.lr_factor
            if isinstance(self.learner.net, Network):
                self.learner.net.set_progress(state.step / self.batch_order.num_steps)
            with nonfinite.buffers_kept(self):
                self.unseen += self.learner.gradients(batches, of=end - begin, epoch=epoch, step=state.step)
                self._unseen_images += end - begin
                sync = self.synchronise() if self.syncs_at(state.step) else None
                # Where every image of the step was skipped there is nothing to learn from.
                empty = self.learner.ranks.world_size == 1 and not any(len(batch.labels) for batch in batches)
                if not empty and (sync is None or sync.usable):
                    self.learner.update(lr, state.step)
            state.step += 1
            watch.images += end - begin
            watch.waited_s += self.learner.take_preparing_s()
            if sync is not None:
                self.after_sync(sync, lr, watch)
        return watch, lr

    def read(self, epoch: int, first: int) -> Iterator[tuple[Batch, ...]]:
        """This process's images for each step of an epoch from `first` on, in the parts of a step."""
        setup, steps = self.setup, self.batch_order.batches(epoch, self.ranks, first)
        begin = epoch * self.batch_order.steps_per_epoch
        batch_order = [
            (part, setup.px_at(begin + number)) for number, parts in enumerate(steps, first) for part in parts
        ]
        fit, bad = setup.train_fit(epoch), setup.spec.on_bad_image
        batches = read_batches(setup.source.train, batch_order, fit, workers=setup.workers, on_bad_image=bad)
        return zip(*[map(self._report, batches)] * self.batch_order.accumulate, strict=True)

    def syncs_at(self, step: int) -> bool:
        """Whether there is a look before the update of a step, counted from 0."""
        often = self.ranks.device.type != "cuda" or self.setup.spec.on_nan == "skip"
        counts = (LOOK_EVERY_ON_GPU, self.batch_order.steps_per_epoch, self.save_every)
        return often or any((step + 1) % every == 0 for every in counts if every)

    def synchronise(self) -> StepSync:
        """All processes learn the loss, and whether to stop or save: their one exchange beside gradients.

        Raises:
            NotFiniteError: the loss is no number, and such steps are not skipped.
        """
        state, skips = self.state, self.setup.spec.on_nan == "skip"
        bad = skips and not self.learner.has_finite_gradients()
        late = self.save_every is None and time.perf_counter() - self._saved_at > SAVE_EVERY_S
        mine = [*self.unseen.tolist(), bad, self.stop.asked, late and self.ranks.is_first]
        loss, right, bad, stop, late = self.ranks.all_reduce_sum(
            torch.tensor(mine, dtype=torch.float64)
        ).tolist()
        images, save = self._unseen_images, self.save_every and (state.step + 1) % self.save_every == 0
        self.unseen, self._unseen_images = torch.zeros_like(self.unseen), 0
        if not math.isfinite(loss) or bad:
            nonfinite.skip(self, f"{loss:g}")
            return StepSync(0.0, 0, usable=False, stop=stop > 0, save=False)
        state.skipped = 0
        state.loss_sum, state.images = state.loss_sum + loss, state.images + images
        state.right += int(right)
        return StepSync(loss, images, usable=True, stop=stop > 0, save=late > 0 or bool(save))

    def after_sync(self, sync: StepSync, lr: float, watch: Stopwatch) -> None:
        """Tells what was learnt after a step, and within an epoch saves and stops where that is asked for."""
        step = self.state.step
        if self.metrics_logger is not None:
            self.metrics_logger.step(step, sync.loss, sync.images, lr, watch)
        # At an epoch's end, its evaluation comes first.
        if step % self.batch_order.steps_per_epoch and (sync.stop or sync.save):
            self.save()
            self._leave_if(sync.stop)

    def close_epoch(self, watch: Stopwatch, lr: float) -> Evaluation:
        """Measures the network after an epoch, tells, and writes a checkpoint."""
        state, patience = self.state, self.recipe.patience
        epoch = state.step // self.batch_order.steps_per_epoch
        last = state.step >= self.batch_order.num_steps
        evaluation = self.evaluate(exactly=last)
        loss, right = (total / max(1, state.images) for total in (state.loss_sum, state.right))
        state.loss_sum, state.images, state.right = 0.0, 0, 0
        if evaluation.accuracy > state.best_accuracy:
            state.best_accuracy, state.best_epoch = evaluation.accuracy, epoch
        state.over = last or (patience is not None and epoch - state.best_epoch >= patience)
        if self.metrics_logger is not None:
            accuracy = None if self.recipe.augment.mixes else right
            self.metrics_logger.epoch(state.step, loss, lr, watch, evaluation, accuracy)
        soon = self.save_every is None and time.perf_counter() - self._saved_at < LEAST_S
        stop, due = self._any(self.stop.asked, state.over or not soon)
        if stop or due:
            if evaluation.accuracy > state.best_saved_accuracy:
                state.best_saved, state.best_saved_accuracy = state.step, evaluation.accuracy
            self.save()
        self._leave_if(stop and not state.over)
        return evaluation

    def evaluate(self, *, exactly: bool) -> Evaluation:
        """Measures the network on all test images; `exactly` is in float32, whatever is trained in."""
        setup = self.setup
        dtype = None if exactly else setup.execution.autocast
        self.learner.follow_first()
        with self.learner.averaged():
            return evaluate(
                self.learner.net,
                setup.source.test,
                setup.eval_transform,
                num_classes=setup.num_classes,
                ranks=self.ranks,
                loss=self.recipe.loss,
                dtype=dtype,
            )

    def save(self) -> None:
        """Writes a checkpoint, and deletes old ones.

        Raises:
            NotFiniteError: the weights are spoilt; what a gradient did, the next loss would have shown.
            SpaceError: the disk is full.
        """
        if not self.learner.is_finite():
            raise nonfinite.NotFiniteError(nonfinite.write_down(self, "weights", self.state.step - 1))
        if self.ranks.is_first:
            self.count_time()
            saved = self.facts | {
                "train_state": dataclasses.asdict(self.state),
                "scaling": self.learner.scaling(),
            }
            files.write_checkpoint(self.checkpoints, self.state.step, saved, self.learner.groups())
            files.prune(self.checkpoints, self.keep, self.state.best_saved)
        self._saved_at = time.perf_counter()

    def restore(self, found: files.Checkpoint | None) -> None:
        """Goes to where a checkpoint stands. The first process passes it; the others get it from there."""
        saved: dict[str, Any] = self.ranks.broadcast_object(None if found is None else found.state)
        groups: dict[str, dict[str, Tensor]] = {}
        for name, own in self.learner.groups().items():
            # What is sent is memory, so it must be laid out as it was read.
            group = {
                key: torch.empty_like(t, memory_format=torch.contiguous_format) for key, t in own.items()
            }
            groups[name] = group if found is None else found.tensors(name)
            if groups[name].keys() != group.keys():
                break  # `load` below says what differs.
            self.ranks.broadcast_(groups[name][key] for key in sorted(group))
        self.learner.load(groups)
        self.learner.load_scaling(saved["scaling"])
        self.state = TrainState(**saved["train_state" if "train_state" in saved else "standing"])
        self.unseen, self._unseen_images = torch.zeros_like(self.unseen), 0
        if self.ranks.is_first:
            files.clean(self.checkpoints, self.state.step)

    def count_time(self) -> None:
        """Adds the time since the last call to the time trained."""
        now = time.perf_counter()
        self.state.seconds += now - self._counted_from
        self._counted_from = now

    def note(self, text: str) -> None:
        """Tells something that a person should know."""
        if self.metrics_logger is not None:
            self.metrics_logger.note(text)

    def _any(self, *mine: bool) -> list[bool]:
        """For each, whether it is so in any of the processes."""
        return (self.ranks.all_reduce_sum(torch.tensor(mine, dtype=torch.float64)) > 0.0).tolist()

    def _leave_if(self, stop: bool) -> None:
        if stop:
            raise StoppedError(str(self.folder), self.state.step)

    def _report(self, batch: Batch) -> Batch:
        """Tells of images that could not be read, once of each."""
        for skipped in batch.skipped:
            if skipped.path not in self._skipped:
                self._skipped.add(skipped.path)
                self.note(f"{skipped.path}: {skipped.reason}; left out")
        return batch
