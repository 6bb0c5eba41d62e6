"""What the user wants sized: a network of the atlas, one of the user's own, or an expression."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convatlas.catalog.cards import find_card, is_model, short_title
from convatlas.cli.model_option import read_model
from convatlas.models.model_file import is_model_file
from convatlas.models.registry import create_model
from convatlas.sizing.expression import build, is_expression

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp64": torch.float64,
}


@dataclasses.dataclass(frozen=True)
class Subject:
    """A network and its input.

    Attributes:
        net: on the meta device where that is possible.
        input_size: px, or a shape without the batch.
        is_expression: whether it was written as one.
    """

    net: nn.Module
    input_size: int | tuple[int, ...]
    is_expression: bool = False


def find_subject(text: str, given: str | None, model: Sequence[str] = ()) -> Subject:
    """The network that `text` means, and its input.

    Args:
        text: a name, a model file, MODULE:FUNCTION or an expression.
        given: the user's input size; None for a named network's published one, or a model file's.
        model: what `--model` was given, for networks of the atlas.

    Raises:
        ValueError: there is no such network, or its input is missing.
    """
    input_size = None if given is None else read_input(given)
    expression = not is_model(text) and not is_model_file(text) and is_expression(text)
    imported = re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", text) is not None
    if not expression and not imported:
        return _of_the_atlas(text, input_size, model)
    if model:
        raise ValueError(f"`--model {model[0]}` goes with a network of the atlas; {text} is none")
    if imported:
        if input_size is None:
            raise ValueError(f"{text} needs --input, such as --input 3,224,224")
        return Subject(_imported(text), input_size)
    if input_size is None:
        raise ValueError("an expression needs --input C,H,W, such as --input 3,227,227")
    shape = (3, input_size, input_size) if isinstance(input_size, int) else input_size
    return Subject(build(text, shape), shape, is_expression=True)


def _of_the_atlas(text: str, input_size: int | tuple[int, ...] | None, model: Sequence[str]) -> Subject:
    chosen = read_model(text, model)
    card = find_card(chosen.network)
    with torch.device("meta"):
        # Its own in_chans follow the input, so that any number of channels can be asked for.
        chans = (
            input_size[0] if isinstance(input_size, tuple) and len(input_size) == 3 else card.input_size[0]
        )
        net = create_model(chosen, in_chans=chans)
    return Subject(net, input_size or chosen.input_size or card.input_size)


def title_of(text: str, subject: Subject) -> tuple[str, str]:
    """What a figure calls a network: its title, and what is said first under it.

    Args:
        text: as the user named it.
        subject: what was found.
    """
    if subject.is_expression:
        return "Exercise", " ".join(text.split())
    if ":" in text:
        return text.partition(":")[2], text
    card = find_card(text)
    return short_title(card), card.name


def read_input(text: str) -> int | tuple[int, ...]:
    """Reads px, or sizes with commas.

    Raises:
        ValueError: it is neither.
    """
    words = text.replace(" ", "").split(",")
    if not all(re.fullmatch(r"0*[1-9][0-9]{0,8}", word) for word in words):
        raise ValueError(f"`--input`={text!r}; expected px, such as 224, or C,H,W, such as 3,224,224")
    return int(words[0]) if len(words) == 1 else tuple(map(int, words))


def read_dtype(name: str) -> torch.dtype:
    """The dtype of a name.

    Raises:
        ValueError: there is none.
    """
    if name not in DTYPES:
        raise ValueError(f"`--dtype`={name!r}; expected one of {', '.join(DTYPES)}")
    return DTYPES[name]


def _imported(text: str) -> nn.Module:
    """What MODULE:FUNCTION makes; modules of the current folder are found too."""
    module_name, _, path = text.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{text}: cannot import {module_name} ({type(error).__name__}: {error})") from error
    for part in path.split("."):
        if not hasattr(found, part):
            public = ", ".join(name for name in vars(found) if not name.startswith("_"))[:200]
            raise ValueError(f"{text}: no {part!r} there; there is {public or 'nothing public'}")
        found = getattr(found, part)
    net = found if isinstance(found, nn.Module) else _made(text, found)
    if not isinstance(net, nn.Module):
        raise ValueError(
            f"{text}: gives a {type(net).__name__}; expected a torch.nn.Module or what makes one"
        )
    return net


def _made(text: str, make: Any) -> Any:
    if not callable(make):
        return make
    needed = _needed(make)
    if needed:
        raise ValueError(
            f"{text}: needs {', '.join(needed)}; expected a function that works without arguments"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                with torch.device("meta"):
                    return make()
            except (NotImplementedError, RuntimeError):
                # It computes with values while it is built, which meta tensors have not.
                return make()
    except (Exception, SystemExit) as error:
        raise ValueError(f"{text}: failed ({type(error).__name__}: {error})") from error


def _needed(make: Any) -> list[str]:
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):
        return []
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in kinds]
