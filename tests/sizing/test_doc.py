"""What the prose of docs/sizing.md says; its commands and sessions are run by tests/docs."""

from pathlib import Path

import pytest

import convatlas
from convatlas.sizing import Sheet

PAGE = Path(__file__).parents[2] / "docs" / "sizing.md"
TEXT = PAGE.read_text(encoding="utf-8")


def sized(name: str) -> Sheet:
    return convatlas.size(convatlas.create_model(name), 224)


def test_values_of_vgg16_by_part() -> None:
    rows = sized("vgg16").rows
    parts = {
        "input": 3 * 224 * 224,
        "convolutions": sum(row.output_elements for row in rows if row.kind == "conv"),
        "poolings": sum(row.output_elements for row in rows if row.op == "max_pool2d"),
        "fully connected layers": sum(row.output_elements for row in rows if row.kind == "linear"),
    }
    prose = " ".join(TEXT.split())
    for name, count in parts.items():
        assert f"{name} {count:,}" in prose
    assert f"{sum(parts.values()):,} values for one image" in prose
    assert round(4 * sum(parts.values()) / 1e6) == 61


def test_the_slides_358m() -> None:
    prose = " ".join(TEXT.split())
    three = 28 * 28 * 192 * 9 * 64
    assert three == 86_704_128
    assert f"271,351,808 + {three:,} = {271_351_808 + three:,}" in prose


# What the tools print for torchvision's resnet50 in eval mode, 3x224x224: FlopCounterMode of torch 2.15,
# fvcore 0.1.5 (FlopCountAnalysis.total), thop 0.1.1 (profile), ptflops 0.7.5 (backend pytorch).
@pytest.mark.parametrize(
    "printed",
    [
        pytest.param(8_178_368_512, id="torch"),
        pytest.param(4_111_512_576, id="fvcore"),
        pytest.param(4_133_742_592, id="thop"),
        pytest.param(4_132_436_968, id="ptflops"),
    ],
)
def test_figures_of_other_tools_are_rebuilt(printed: int) -> None:
    assert f"\n{printed}\n" in TEXT


def test_the_papers_figures() -> None:
    # He et al. 2015, Table 1: 3.8 x 10^9 for 50 layers, truncated; Hu et al. 2017, Table 2: 3.86.
    assert f"{sized('resnet50_v1').macs / 1e9:.2f}" == "3.86"
    assert f"{sized('resnet50_v1_5').macs / 1e9:.2f}" == "4.09"
