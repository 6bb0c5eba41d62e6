"""What two processes do together; started by torchrun, and anew by it when one of them is killed.

Prints nothing; the first process writes what it found into the folder that is the argument. With a second
argument, "lose": they only train, and the second is killed.
"""

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convatlas import train
from convatlas.data.sets import ImageSet, Source
from convatlas.data.sources import load_source
from convatlas.models.registry import create_model
from convatlas.training.cpu import choose as fast
from convatlas.training.distributed import Ranks, RanksError, open_ranks
from convatlas.training.evaluation import EvalTransform, evaluate
from convatlas.training.train_step import Learner

OPTIONS: dict[str, Any] = {"recipe": "lenet5", "epochs": 2, "save_every": 4}


def few_digits() -> Source:
    """Ten batches of digits to train on, and 101 images to test on, which two processes cannot halve."""
    whole = load_source("digits")
    assert isinstance(whole.train, ImageSet)
    images, labels = whole.train.images, whole.train.labels
    parts = [ImageSet(images[part], labels[part]) for part in (slice(321), slice(321, 422))]
    return dataclasses.replace(whole, name="few", train=parts[0], test=parts[1])


class WithNorm(nn.Module):
    """A network with normalisation, and a part that no image reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 10)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.norm(self.conv(x)).relu().mean(dim=(2, 3)))


def measured(ranks: Ranks) -> dict[str, Any]:
    """The evaluation of a fixed network, as JSON."""
    torch.manual_seed(0)
    net, eval_transform = create_model("lenet5").eval(), EvalTransform((0.1,), (0.3,), batch_size=16)
    found = evaluate(net, few_digits().test, eval_transform, num_classes=10, ranks=ranks)
    return {
        "correct": found.correct,
        "top5": found.top5,
        "count": found.count,
        "loss": found.loss,
        "confusion": found.confusion.tolist(),
    }


def refused(ranks: Ranks) -> str:
    ranks.check_same("configuration", "the same")
    try:
        ranks.check_same("configuration", f"rank {ranks.rank}")
    except RanksError as error:
        return str(error)
    return ""


def in_float32(_: torch.device) -> tuple[None, str]:
    """Every machine computes alike: bfloat16 would round the gradients of each process."""
    return None, "float32"


def kill_second_at(step: int) -> None:
    """The second process dies in a step of the first life of this launch."""
    real = Learner.update

    def update(self: Learner, lr: float, at: int) -> bool:
        if at == step and self.ranks.rank == 1 and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, lr, at)

    Learner.update = update


def lose_one(root: Path) -> None:
    kill_second_at(3)
    with open_ranks("cpu"):
        train("lenet5", data=few_digits(), out=root, name="lost", **OPTIONS)


def main(root: Path) -> None:
    fast._autocast = in_float32
    with open_ranks("cpu") as ranks:
        facts = {"evaluation": measured(ranks), "refused": refused(ranks), "world_size": ranks.world_size}
        data = few_digits()
        facts["refused_training"] = ""
        try:
            train("lenet5", data=data, out=root, name="never", seed=ranks.rank, **OPTIONS)
        except RanksError as error:
            facts["refused_training"] = str(error)
        train("lenet5", data=data, out=root, name="two", **OPTIONS)
        torch.manual_seed(ranks.rank)  # The first process's weights count.
        net = WithNorm()
        train(net, data=data, out=root, name="norm", accumulate=2, **OPTIONS)
        every = ranks.all_reduce_sum(torch.cat([p.detach().flatten() for p in net.parameters()]))
        own = torch.cat([p.detach().flatten() for p in net.parameters()])
        facts["equal_weights"] = bool(torch.equal(every, own * ranks.world_size))
        kill_second_at(13)
        run = train("lenet5", data=data, out=root, name="killed", **OPTIONS)
        facts["restarts"] = os.environ["TORCHELASTIC_RESTART_COUNT"]
        facts["accuracy"] = run.test_accuracy
        if ranks.is_first:
            (root / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    (lose_one if sys.argv[2:] == ["lose"] else main)(Path(sys.argv[1]))
