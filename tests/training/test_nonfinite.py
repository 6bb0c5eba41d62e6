"""A loss that is NaN or infinite: training stops, goes back, or skips the step."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from convatlas import train
from convatlas.data.sets import ImageSet, Source
from convatlas.training.batch_order import BatchOrder
from convatlas.training.distributed import Ranks
from convatlas.training.logging.events import Silent
from convatlas.training.nonfinite import MOST_SKIPPED, MOST_TIMES_BACK, TrainingError
from convatlas.training.recipes.recipe import Recipe
from convatlas.training.train_step import Learner

POISON = 17
RECIPE = Recipe(epochs=2, batch_size=8, lr=0.05, momentum=0.9)


def source() -> Source:
    """48 images of three brightnesses; the sample POISON, and it alone, has a white corner."""
    labels = torch.arange(48) % 3
    images = torch.randint(
        0, 40, (48, 1, 8, 8), generator=torch.Generator().manual_seed(0)
    ) + 60 * labels.view(-1, 1, 1, 1)
    images[POISON, :, 0, 0] = 255
    part = ImageSet(images.to(torch.uint8), labels)
    return Source("spots", part, part, ("dark", "grey", "light"), "0" * 64, (1, 8, 8))


class Brittle(nn.Module):
    """A network whose prediction `spoil` spoils while it trains on a white corner."""

    def __init__(self, spoil: Callable[["Brittle", Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.fc = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 3)
        self.spoil = spoil

    def forward(self, x: Tensor) -> Tensor:
        white = (x[:, 0, 0, 0] > 2.0).any() and self.training
        x = self.conv(x)
        if white:
            x = self.spoil(self, x)
        return self.fc(F.relu(self.norm(x)).mean(dim=(2, 3)))


def always(net: Brittle, x: Tensor) -> Tensor:
    return x * torch.nan


class Notes(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


def poisoned_step(epoch: int) -> int:
    """The step whose batch holds the poisoned sample, counted from 1."""
    batch_order = BatchOrder(num_samples=48, batch_size=8, num_epochs=2, seed=0)
    steps = batch_order.batches(epoch, Ranks(torch.device("cpu")))
    return 6 * epoch + 1 + next(i for i, (part,) in enumerate(steps) if POISON in part.tolist())


def run(net: nn.Module, out: Path, **options: Any) -> tuple[Any, Notes]:
    notes = Notes()
    return train(net, data=source(), recipe=RECIPE, out=out, name="run", watcher=notes, **options), notes


def test_it_stops_and_says_where(tmp_path: Path) -> None:
    step = poisoned_step(0)
    message = (
        rf"the loss is nan at step {step} \(epoch 1; its images are listed in .*-step-{step}\.json\); "
        r"a smaller `lr` than 0\.05 may help, or `on_nan` 'rollback' or 'skip'"
    )
    with pytest.raises(TrainingError, match=message):
        run(Brittle(always), tmp_path)
    dump = json.loads((tmp_path / "run" / f"not-finite-step-{step}.json").read_text())
    assert (dump["step"], dump["epoch"], dump["found"], dump["lr"]) == (step, 1, "loss nan", 0.05)
    batch_order = BatchOrder(num_samples=48, batch_size=8, num_epochs=2, seed=0)
    expected = batch_order.batches(0, Ranks(torch.device("cpu")))[step - 1][0].tolist()
    assert dump["samples_by_step"] == {str(step): expected}
    assert dump["names"][str(POISON)] == f"image {POISON}"
    steps = [int(path.name[5:]) for path in (tmp_path / "run" / "checkpoints").iterdir()]
    assert max(steps, default=0) < step
    assert not (tmp_path / "run" / "weights.safetensors").exists()


def test_it_skips_the_step_and_what_it_did_to_the_statistics(tmp_path: Path) -> None:
    net = Brittle(always)
    result, notes = run(net, tmp_path, on_nan="skip")
    skipped = [line for line in notes.lines if line.endswith("the step is skipped")]
    assert [f"step {poisoned_step(epoch)} " in line for epoch, line in enumerate(skipped)] == [True, True]
    assert all(bool(torch.isfinite(tensor).all()) for tensor in net.state_dict().values())
    assert int(net.norm.num_batches_tracked) == 10  # Of twelve steps.
    assert result.record["result"]["steps"] == 12


def test_a_gradient_that_is_no_number_is_skipped_too(tmp_path: Path) -> None:
    def spoil(net: Brittle, x: Tensor) -> Tensor:
        return x + 0.0 * torch.sqrt(x * 0.0)  # 0 forwards; backwards 0 times infinity.

    net = Brittle(spoil)
    _, notes = run(net, tmp_path, on_nan="skip")
    assert "a gradient is no finite number at step" in notes.lines[0]
    assert all(bool(torch.isfinite(tensor).all()) for tensor in net.state_dict().values())


def test_skipping_for_ever_ends(tmp_path: Path) -> None:
    class Broken(Brittle):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * (torch.nan if self.training else 1.0)

    with pytest.raises(TrainingError, match=rf"and so it was in the {MOST_SKIPPED} steps before"):
        run(Broken(always), tmp_path, on_nan="skip")


def test_it_goes_back_with_half_the_rate(tmp_path: Path) -> None:
    rates: list[float] = []

    def twice(net: Brittle, x: Tensor) -> Tensor:
        rates.append(0.0)
        return x * torch.nan if len(rates) < 3 else x

    lines: list[dict[str, Any]] = []
    result, notes = run(Brittle(twice), tmp_path, on_nan="rollback", save_every=2, callbacks=[lines.append])
    saved = (poisoned_step(0) - 1) // 2 * 2
    assert [line.partition(": ")[2] for line in notes.lines] == [
        f"back to step {saved}, on with 0.5 of the learning rate",
        f"back to step {saved}, on with 0.25 of the learning rate",
    ]
    assert [line["lr"] for line in result.metrics()] == [0.0125, 0.0125]
    assert result.record["result"]["steps"] == 12


def test_it_goes_back_to_the_first_weights_where_there_is_no_other_checkpoint(tmp_path: Path) -> None:
    calls: list[int] = []

    def once(net: Brittle, x: Tensor) -> Tensor:
        calls.append(1)
        return x * torch.nan if len(calls) == 1 else x

    _, notes = run(Brittle(once), tmp_path, on_nan="rollback")
    assert "back to step 0, on with 0.5 of the learning rate" in notes.lines[0]


def test_going_back_for_ever_ends(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=rf"after going back {MOST_TIMES_BACK} times; a smaller `lr`"):
        run(Brittle(always), tmp_path, on_nan="rollback")


@pytest.mark.parametrize("policy", ["stop", "rollback"])
def test_spoilt_weights_are_not_saved(tmp_path: Path, policy: str) -> None:
    def spoil(net: Brittle, x: Tensor) -> Tensor:
        return x + 0.0 * torch.sqrt(x * 0.0)  # The loss is finite, the gradient is not.

    step = poisoned_step(0)
    message = rf"a weight is no finite number at step {step} " if step % 6 else "no finite number|loss is nan"
    with pytest.raises(TrainingError, match=message):
        run(Brittle(spoil), tmp_path, save_every=1, on_nan=policy)
    checkpoints = tmp_path / "run" / "checkpoints"
    for path in checkpoints.iterdir():
        assert all(bool(t.isfinite().all()) for t in load_file(path / "weights.safetensors").values())


def test_a_full_memory_says_what_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gradients(*_: Any, **__: Any) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(Learner, "gradients", gradients)
    with pytest.raises(TrainingError, match=r"the memory of cpu is full; `--set accumulate=2` computes"):
        run(Brittle(always), tmp_path)


def test_a_rate_that_is_far_too_high(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"the loss is (nan|inf) at step \d+ .*a smaller `lr` than 1e\+38 may help"
    ):
        train("lenet5", out=tmp_path, epochs=1, lr=1e38)
