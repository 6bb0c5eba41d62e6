"""The verdict on made-up predictions of either side, and what the predictions cost, counted by hand."""

from pathlib import Path

import pytest
import torch
from torch import nn

from convatlas.models.registry import create_model
from convatlas.studies.context import run_study
from convatlas.studies.fractal import Predictions, Results, columns, find, settled
from convatlas.studies.verdict import Verdict, conclude

NOISE = (-0.5, 0.0, 0.5)


def results(alone_without: float, columns_with: tuple[float, float, float], whole: float) -> Results:
    """Three seeds: errors of the columns without drop-path, of each with it, and of the whole network."""
    return {
        False: [Predictions((alone_without - noise,) * 3, 20.0, 20.0) for noise in NOISE],
        True: [Predictions(tuple(c + noise for c in columns_with), whole - noise, whole) for noise in NOISE],
    }


@pytest.mark.parametrize(
    ("made", "verdict"),
    [
        (results(80.0, (30.0, 24.0, 22.0), 20.0), Verdict.HOLDS),
        (results(24.0, (30.0, 24.0, 22.0), 20.0), Verdict.FAILS),
        (results(80.0, (40.0, 36.0, 34.0), 20.0), Verdict.FAILS),
        (results(80.0, (20.0, 20.0, 20.0), 20.0), Verdict.OPEN),
    ],
    ids=["as said", "columns work without drop-path", "columns much worse", "no better with more time"],
)
def test_verdict(made: Results, verdict: Verdict) -> None:
    assert conclude(find(made)) is verdict


def test_columns_share_weights_with_the_whole_network() -> None:
    net = create_model("fractalnet20_cifar", in_chans=1, widths=(4,) * 5)

    @torch.no_grad()
    def sums() -> list[float]:
        return [column.eval()(torch.ones(1, 1, 32, 32)).sum().item() for column in columns(net)]

    before = sums()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.5)
    after = sums()
    assert len(before) == 3
    assert all(a != b for a, b in zip(after, before, strict=True))


def test_settled_statistics_are_those_of_the_images() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2, affine=False), nn.Dropout(0.5))
    images = torch.randn(8, 1, 4, 4)
    ready = settled(net, images, batch_size=8)
    assert not ready.training
    maps = net[0](images)
    norm = ready.get_submodule("1")
    assert isinstance(norm, nn.BatchNorm2d)
    torch.testing.assert_close(norm.running_mean, maps.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(norm.running_var, maps.var(dim=(0, 2, 3)))
    assert torch.equal(net[1].running_mean, torch.zeros(2)), "the network itself must be left as it was"


def test_a_network_without_columns() -> None:
    with pytest.raises(TypeError, match="`network` is a ResNetCifar; expected a FractalNet"):
        columns(create_model("resnet20_cifar"))


def test_the_whole_study_on_a_few_digits(tmp_path: Path) -> None:
    folder, record = run_study(
        "fractal",
        out=tmp_path,
        data="digits",
        images=40,
        test_images=20,
        px=32,
        epochs=1,
        widths=[4] * 5,
        seeds=2,
    )
    # Columns of 1, 2 and 4 convolutions in each of five blocks (Larsson et al. 2016, Figure 1).
    facts = {entry["name"]: entry["value"] for entry in record["findings"] if "claimed" in entry}
    assert list(facts.values()) == [5.0, 10.0, 20.0, 20.0]
    page = (folder / "report.md").read_text()
    # Column 0: 5 convolutions of 3x3 with biases (1 to 4, then 4 to 4 channels) and 10 classes of 4 features;
    # 9 (1 4) 32^2 + 9 (4 4) (16^2 + 8^2 + 4^2 + 2^2) + 40 = 85,864 multiply-adds.
    params = (9 * 4 + 4) + 4 * (9 * 16 + 4) + 4 * 10 + 10
    assert f"| column 0 | 5 | 0.1 M | {params:,} |" in page
    assert (folder / "fractal.png").stat().st_size > 0
