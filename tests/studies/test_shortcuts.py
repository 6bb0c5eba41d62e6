"""Options A, B and C: parameters by hand, the verdict on made-up errors, and a tiny run on digits."""

from pathlib import Path

import pytest
from torch import nn

from convatlas.models.registry import create_model
from convatlas.studies.context import run_study
from convatlas.studies.shortcuts import Errors, count_facts, find, projected
from convatlas.studies.verdict import Verdict, conclude


def errors(plain: float, a: float, c: float) -> Errors:
    """Three seeds around these means, in %; B lies between A and C."""
    noise = (0.2, -0.1, -0.1)
    means = {"plain": plain, "A": a, "B": (a + c) / 2.0, "C": c}
    return {kind: [mean + n * (1 + len(kind)) for n in noise] for kind, mean in means.items()}


@pytest.mark.parametrize(
    ("plain", "a", "c", "verdict"),
    [
        (28.5, 25.0, 24.2, Verdict.HOLDS),  # as the paper
        (28.5, 28.0, 20.0, Verdict.FAILS),  # the projections do it all
        (20.0, 25.0, 24.2, Verdict.FAILS),  # shortcuts harm
        (25.2, 25.0, 25.0, Verdict.OPEN),
    ],
    ids=["as published", "projections gain more", "shortcuts harm", "within noise"],
)
def test_verdict(plain: float, a: float, c: float, verdict: Verdict) -> None:
    assert conclude(find(errors(plain, a, c))) is verdict


def test_published_differences_of_the_effects() -> None:
    # 28.54 - 25.03, that minus 25.03 - 24.19, 25.03 - 24.52 and 24.52 - 24.19, of Tables 2 and 3.
    published = [effect.published.split(" ")[0] for effect in find(errors(28.5, 25.0, 24.2))]
    assert published == ["3.51", "2.67", "0.51", "0.33"]


def test_parameters_of_the_options() -> None:
    facts = count_facts()
    assert [fact.verdict for fact in facts] == [Verdict.HOLDS] * 3
    # By hand: 64 x 128 + 128 x 256 + 256 x 512 weights, and 2 x (128 + 256 + 512) of the norms.
    assert facts[0].claimed == 172_032 + 1_792
    # 3 x 64^2 + 3 x 128^2 + 5 x 256^2 + 2 x 512^2, and 2 x (192 + 384 + 1280 + 1024).
    assert facts[1].claimed == 12_288 + 49_152 + 327_680 + 524_288 + 5_760
    assert facts[2].value == 65_536 / 69_632


@pytest.mark.parametrize(("kind", "params"), [("A", 269_722), ("B", 272_474)])
def test_parameters_of_resnet20(kind: str, params: int) -> None:
    # Option A is the paper's 0.27M; B is what ports of it have that project.
    net: nn.Module = create_model("resnet20_cifar", shortcut=kind)
    assert sum(parameter.numel() for parameter in net.parameters()) == params


def test_projected() -> None:
    assert projected([(2, 3), (4, 5)]) == (6 + 6) + (20 + 10)


def test_a_tiny_run(tmp_path: Path) -> None:
    said: list[str] = []
    small = {"data": "digits", "images": 60, "test_images": 40, "px": 8, "seeds": 1, "depth": 8, "epochs": 1}
    folder, record = run_study("shortcuts", out=tmp_path, log=said.append, **small)
    assert len(said) == 4
    assert len({line.partition(":")[0].rpartition("-seed")[0] for line in said}) == 4
    kinds = [finding["kind"] for finding in record["findings"]]
    assert kinds == ["fact"] * 3 + ["effect"] * 4
    page = (folder / "report.md").read_text(encoding="utf-8")
    # By hand: 3x3 convolutions without biases, two values for each normalised channel, and the classifier.
    weights = 9 * (1 * 16 + 2 * 16 * 16 + 16 * 32 + 32 * 32 + 32 * 64 + 64 * 64)
    assert f"| A | {weights + 2 * (3 * 16 + 2 * 32 + 2 * 64) + 64 * 10 + 10:,} |" in page
    assert (folder / "shortcuts.png").stat().st_size > 0


def test_a_depth_that_no_network_has() -> None:
    with pytest.raises(ValueError, match=r"`depth`=21; expected 6n \+ 2 layers, near 20"):
        run_study("shortcuts", out="unused", depth=21)
