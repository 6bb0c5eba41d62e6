"""How results show themselves at the Python prompt and in notebooks."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from torch import nn

import convatlas
from convatlas.runs.run import Run
from convatlas.summary import Summary

HOSTILE = '<script>alert(1)</script>\x1b[2J"&'


class Tags(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


def results() -> list[Summary]:
    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(x), 2)

    record = {
        "config": {"network": HOSTILE, "data": HOSTILE},
        "seed": 3,
        "result": {"test_accuracy": 0.5, "epochs": 1, "seconds": 2.0},
    }
    predictor = convatlas.Predictor(
        Net(), transform=lambda image: torch.zeros(3, 4, 4), class_names=(HOSTILE, "b")
    )
    return [
        Run(Path(HOSTILE), record),
        convatlas.find_card("resnet50"),
        predictor,
        *predictor.predict([torch.zeros(3, 8, 8)]),
    ]


@pytest.mark.parametrize("result", results(), ids=lambda result: type(result).__name__)
def test_short_and_safe(result: Summary) -> None:
    text = repr(result)
    assert 1 <= len(text.splitlines()) <= 5
    assert "\x1b" not in text
    page = Tags()
    page.feed(result._repr_html_())
    assert page.tags <= {"div", "strong", "table", "tr", "th", "td"}
    assert "\x1b" not in page.text


def test_a_run_says_what_matters() -> None:
    text = repr(results()[0])
    assert "finished" in text and "test accuracy: 50.00%" in text and "seed: 3" in text
