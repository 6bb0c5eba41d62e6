"""The loop over epochs and steps, and what makes it safe to interrupt.

Nothing here has a state that a function could give: the order of the samples, augmentation, dropout, learning
rate and image size are functions of the step. So a training is its tensors and a few numbers, `TrainState`;
to stop and to go on is to write them and to read them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convatlas.data.batches import Batch, read_batches
from convatlas.data.sets import Samples, choose_rows
from convatlas.metrics.classification import Evaluation
from convatlas.models.network import Network
from convatlas.runs import checkpoint as files
from convatlas.runs.checkpoint import CHECKPOINTS
from convatlas.training import nonfinite
from convatlas.training.evaluation import GivenUpError, evaluate
from convatlas.training.head_probe import check_probed, probed_layer
from convatlas.training.logging.metrics_logger import MetricsLogger, Stopwatch
from convatlas.training.setup import TrainSetup
from convatlas.training.signals import StopFlag, StoppedError
from convatlas.training.start import fit_classifier, make_learner
from convatlas.training.state import StepSync, TrainState

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
        self.learner = make_learner(setup, setup.net, self.recipe)
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
        if self.state.step == 0 and self.recipe.head_start == "probe" and self.recipe.optimizer != "lbfgs":
            self.begin_with_probe()

    def run(self) -> Evaluation:
        """Trains from where it stands to the end, and measures the weights that it ends with.

        Raises:
            StoppedError: a signal asked for the end; a checkpoint has been written.
            TrainingError: the loss is NaN or infinite, and nothing helps.
            SpaceError: the disk is full; the last checkpoint is as it was.
        """
        evaluation: Evaluation | None = None
        while not self.state.over:
            try:
                if self._is_unmeasured():
                    watch, lr = Stopwatch(), self._lr_before()
                else:
                    watch, lr = self.learn_epoch()
                evaluation = self.close_epoch(watch, lr)
            except nonfinite.NotFiniteError as error:
                nonfinite.go_back(self, str(error))
        early = self.state.step < self.batch_order.num_steps and self.setup.execution.autocast is not None
        is_chosen = self.take_final()
        return self.evaluate(exactly=True) if evaluation is None or early or is_chosen else evaluation

    def take_final(self) -> bool:
        """Takes the final weights where they are not the last: those of the best epoch, or a mean."""
        learner, state = self.learner, self.state
        # A mean of fewer epochs than asked for, where training ended early, is none.
        soup = learner.soup if state.souped == min(self.recipe.soup, self.recipe.epochs) else None
        if learner.best is None and soup is None:
            return False
        if soup is not None:
            learner.take_final(soup.state())
        if learner.best is not None:
            loss = self.measure(self.validation, exactly=True).loss if soup is not None else None
            if loss is None or state.best_loss is None or not loss <= state.best_loss:
                learner.take_final(learner.best.state())
        return True

    @property
    def validation(self) -> Samples:
        """The images that are held back."""
        assert self.setup.validation is not None
        return self.setup.validation

    def begin_with_probe(self) -> None:
        """Gives the classifier what logistic regression finds, and writes down the loss before."""
        setup, layer = self.setup, probed_layer(self.learner.net)
        if layer is None:
            self.note(f"{setup.spec.network}: its classifier is not one linear layer, and begins as it is")
            return
        before = self.first_loss()
        features = self.fit_head(layer)
        after = F.cross_entropy(
            layer(features.to(self.ranks.device)), setup.source.train.labels.to(self.ranks.device)
        )
        if self.metrics_logger is not None:
            self.metrics_logger.begin(before, float(after.detach()))
        if self.learner.ema is not None:
            self.learner.ema.load(self.learner.net.state_dict())
        if self.learner.best is not None:
            self.keep_if_best(self.measure(self.validation, exactly=False).loss, 0)

    def first_loss(self) -> float:
        """The mean loss over some training images before anything is learnt."""
        rows = np.arange(len(self.setup.source.train))[:: max(1, len(self.setup.source.train) // 64)]
        part = choose_rows(self.setup.source.train, rows)
        return self.measure(part, exactly=True).loss

    def fit_head(self, layer: nn.Linear) -> Tensor:
        """Fits the classifier on the features of the training images, which are returned: (N, C)."""
        features, found = fit_classifier(self.setup, self.learner.net, self.recipe, layer)
        if found is not None:
            self.note(
                f"the classifier is a logistic regression on features, with a penalty of {found.strength:g}"
            )
        return features

    def learn_probe(self) -> tuple[Stopwatch, float]:
        """The one epoch of a probe: the features of all images, once, and the classifier on them."""
        watch, train = Stopwatch(), self.setup.source.train
        layer = check_probed(self.learner.net, self.setup.spec.network)
        before = self.first_loss()
        features = self.fit_head(layer).to(self.ranks.device)
        with torch.no_grad():
            logits = layer(features)
        labels = train.labels.to(self.ranks.device)
        state = self.state
        state.loss_sum = float(F.cross_entropy(logits, labels, reduction="sum"))
        state.images, state.right = len(train), int((logits.argmax(dim=1) == labels).sum())
        state.step = self.batch_order.num_steps
        if self.metrics_logger is not None:
            self.metrics_logger.begin(before, state.loss_sum / len(train))
        watch.images = len(train)
        return watch, 0.0

    def keep_if_best(self, loss: float, epoch: int) -> None:
        """Keeps the weights where their loss on the validation images is the lowest so far."""
        state = self.state
        if self.learner.best is not None and (state.best_loss is None or loss < state.best_loss):
            state.best_loss, state.kept_epoch = loss, epoch
            with self.learner.averaged():
                self.learner.best.keep()

    def _is_unmeasured(self) -> bool:
        """Whether an epoch has just been trained and its evaluation was given up."""
        step = self.state.step
        return step > 0 and step % self.batch_order.steps_per_epoch == 0 and self.state.images > 0

    def _lr_before(self) -> float:
        return self.recipe.lr_at(self.state.step - 1, self.batch_order.num_steps) * self.state.lr_factor

    def learn_epoch(self) -> tuple[Stopwatch, float]:
        """Takes the steps that are left of an epoch.

        Returns:
            How fast it went, and the learning rate of its last step.
        """
        if self.recipe.optimizer == "lbfgs":
            return self.learn_probe()
        state, per_epoch = self.state, self.batch_order.steps_per_epoch
        epoch, first = divmod(state.step, per_epoch)
        self.learner.train(state.step / self.batch_order.num_steps)
        watch, lr = Stopwatch(), 0.0
        for batches in watch.waiting(self.read(epoch, first)):
            begin, end = self.batch_order.bounds(state.step % per_epoch)
            lr = self.recipe.lr_at(state.step, self.batch_order.num_steps) * state.lr_factor
            progress = state.step / self.batch_order.num_steps
            self.learner.tuning.set_progress(progress)
            if isinstance(self.learner.net, Network):
                self.learner.net.set_progress(progress)
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
            NotFiniteError: the loss is NaN or infinite, and such steps are not skipped.
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
        evaluation, held = self.evaluate(exactly=last), None
        if self.setup.validation is not None:
            held = self.measure(self.setup.validation, exactly=last, gives_up=True)
        # Up to here, nothing of the state was changed: where a signal came, the next process begins here.
        loss, right = (total / max(1, state.images) for total in (state.loss_sum, state.right))
        state.loss_sum, state.images, state.right = 0.0, 0, 0
        accuracy = evaluation.accuracy if held is None else held.accuracy
        if held is not None:
            self.keep_if_best(held.loss, epoch)
        if self.learner.soup is not None and epoch > self.recipe.epochs - self.recipe.soup:
            self.learner.soup.add(state.souped)
            state.souped += 1
        if accuracy > state.best_accuracy:
            state.best_accuracy, state.best_epoch = accuracy, epoch
        state.over = last or (patience is not None and epoch - state.best_epoch >= patience)
        if self.metrics_logger is not None:
            train_accuracy = None if self.recipe.augment.mixes else right
            self.metrics_logger.epoch(state.step, loss, lr, watch, evaluation, train_accuracy, held)
        soon = self.save_every is None and time.perf_counter() - self._saved_at < LEAST_S
        stop, due = self._any(self.stop.asked, state.over or not soon)
        if stop or due:
            if evaluation.accuracy > state.best_saved_accuracy:
                state.best_saved, state.best_saved_accuracy = state.step, evaluation.accuracy
            self.save()
        self._leave_if(stop and not state.over)
        return evaluation

    def evaluate(self, *, exactly: bool) -> Evaluation:
        """Measures the network on all test images; `exactly` is in float32, whatever is trained in.

        Raises:
            StoppedError: a signal asked for the end meanwhile; a checkpoint has been written before.
        """
        return self.measure(self.setup.source.test, exactly=exactly, gives_up=True)

    def measure(self, part: Samples, *, exactly: bool, gives_up: bool = False) -> Evaluation:
        """Measures the network on some images, as `evaluate` does on those of the test.

        Args:
            part: the images.
            exactly: in float32.
            gives_up: where a signal comes, save and end.
        """
        setup = self.setup
        dtype = None if exactly else setup.execution.autocast
        self.learner.follow_first()
        if gives_up and self._any(self.stop.asked)[0]:
            self._leave_unmeasured()
        # Of several processes, all would have to give up at the same batch; they go on to the end.
        alone = gives_up and self.ranks.world_size == 1
        with self.learner.averaged(), contextlib.suppress(GivenUpError):
            return evaluate(
                self.learner.net,
                part,
                setup.eval_transform,
                num_classes=setup.num_classes,
                ranks=self.ranks,
                loss=self.recipe.loss,
                dtype=dtype,
                stops=lambda: alone and self.stop.asked,
            )
        self._leave_unmeasured()

    def _leave_unmeasured(self) -> NoReturn:
        """Saves a state whose epoch is trained but not measured, with which the next process begins."""
        if not self.state.over:  # Else the checkpoint of the end is there, and these are the final weights.
            self.save()
        raise StoppedError(str(self.folder), self.state.step)

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
