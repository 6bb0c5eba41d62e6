"""Words that gave way to the field's own do not come back."""

import re
import tokenize
from pathlib import Path

import pytest

import convatlas

SOURCES = sorted(Path(convatlas.__file__).parent.rglob("*.py"))

NAMES = {
    "Wish", "read_wish", "config_of", "Standing", "Viewing", "Several", "Journal", "Tap",
    "Maker", "Runner", "Attempt", "HOPELESS", "stolen_seconds", "calmly", "first_look",
    "payoff", "paying_engine", "likenesses", "warp", "heed", "pass_on", "Said", "Refusal", "Lab", "taken_for",
    "count_answers", "equalise_scores", "PictureError", "PictureSet",
}  # fmt: skip
"""Retired names of classes, functions and modules."""

WORDS = re.compile(r"\b(pictures?|likewise|as said|recognised least)\b", re.IGNORECASE)
"""Retired words of docstrings, comments and messages."""


@pytest.mark.parametrize("kind", ["names", "words"])
def test_retired_words_do_not_come_back(kind: str) -> None:
    found: list[str] = []
    for path in SOURCES:
        if kind == "words":
            lines = path.read_text(encoding="utf-8").splitlines()
            found += [
                f"{path.name}:{n}: {line.strip()}" for n, line in enumerate(lines, 1) if WORDS.search(line)
            ]
            continue
        with tokenize.open(path) as file:
            tokens = [t for t in tokenize.generate_tokens(file.readline) if t.type == tokenize.NAME]
        found += [f"{path.name}:{t.start[0]}: {t.string}" for t in tokens if t.string in NAMES]
    assert not found
