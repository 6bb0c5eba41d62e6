"""Inception modules with and without bottlenecks: the printed arithmetic, the verdict, and a tiny run."""

from pathlib import Path

import pytest
import torch

from convatlas.studies.bottleneck import EXAMPLES, BottleneckKnobs, InceptionNet, count, find, macs_of
from convatlas.studies.context import run_study
from convatlas.studies.verdict import Verdict, conclude


def test_the_course_module() -> None:
    # 28*28*(128*256 + 192*9*256 + 96*25*256), and the six terms of the slide with bottlenecks. The slide's
    # sum, 358M, has the 3x3 term twice.
    naive, reduced = macs_of(EXAMPLES[0])
    assert naive == 25_690_112 + 346_816_512 + 481_689_600 == 854_196_224
    assert reduced == 3 * 12_845_056 + 25_690_112 + 86_704_128 + 120_422_400 == 271_351_808
    assert reduced + 86_704_128 == pytest.approx(358e6, rel=1e-3)


def test_googlenet_3a() -> None:
    # Table 1 prints 128M operations; 192 channels go through unprojected without bottlenecks.
    naive, reduced = macs_of(EXAMPLES[1])
    assert reduced == pytest.approx(128e6, rel=1e-3)
    assert naive == 303_464_448


def test_all_facts_hold() -> None:
    facts = count()
    assert {fact.verdict for fact in facts} == {Verdict.HOLDS}
    assert [fact.value for fact in facts[-2:]] == [672, 480]


@pytest.mark.parametrize("bottlenecks", [False, True], ids=["naive", "bottlenecks"])
def test_channels_of_small_networks(bottlenecks: bool) -> None:
    # 3a and 3b of a quarter of the channels, of 48: naive 48 + 56 = 104 and 104 + 104 = 208; else 64 and 120.
    net = InceptionNet(bottlenecks=bottlenecks, modules=("3a", "3b"), share=4, in_chans=1, num_classes=7)
    x = torch.zeros(2, 1, 8, 8)
    assert net.stages(net.stem(x)).shape == (2, 120 if bottlenecks else 208, 8, 8)
    assert net(x).shape == (2, 7)


def test_maps_halve_at_later_modules_called_a() -> None:
    net = InceptionNet(bottlenecks=True, modules=("3a", "4a"), share=8, in_chans=1, num_classes=7)
    assert net.stages(net.stem(torch.zeros(1, 1, 7, 7))).shape[2:] == (4, 4)


@pytest.mark.parametrize(
    ("ratio", "error", "verdict"),
    [
        (2.0, 10.2, Verdict.HOLDS),
        (0.5, 10.0, Verdict.FAILS),
        (2.0, 12.0, Verdict.FAILS),
        (1.0, 10.0, Verdict.OPEN),
        (2.0, 11.0, Verdict.OPEN),
    ],
    ids=["cheaper and no worse", "slower", "worse", "time alike", "at the margin"],
)
def test_verdict(ratio: float, error: float, verdict: Verdict) -> None:
    noise = (0.1, 0.0, -0.1)
    times = {"a module": [(ratio + n, 1.0) for n in noise]}
    assert conclude(find(times, [(10.0, error + n) for n in noise], margin=1.0)) is verdict


def test_tiny_run(tmp_path: Path) -> None:
    said: list[str] = []
    folder, record = run_study(
        "bottleneck",
        out=tmp_path,
        log=said.append,
        data="digits",
        images=60,
        test_images=40,
        px=8,
        epochs=1,
        seeds=1,
        share=32,
        modules=["3a"],
        timed_batch=1,
    )
    assert len(said) == 2
    assert record["verdict"] == "no evidence at this budget"  # one seed
    assert (folder / "bottleneck.png").stat().st_size > 0
    page = (folder / "report.md").read_text()
    assert "854,196,224" in page
    assert "271,351,808, 3.15 times fewer; the slide prints 358M" in page
    assert "| GoogLeNet, 224 px |" in page


def test_unknown_module() -> None:
    with pytest.raises(ValueError, match=r"no module '3c'; they are 3a, 3b, 4a"):
        BottleneckKnobs(modules=("3a", "3c"))
