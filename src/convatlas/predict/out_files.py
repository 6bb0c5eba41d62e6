"""Files of figures for many images: one for each, named after it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from convatlas.drawing.figure import SUFFIXES
from convatlas.predict.inputs import list_files
from convatlas.predict.video import is_film

_LONGEST = 120
"""Letters of a name."""


class OutFiles:
    """Where the figure of each image goes.

    Args:
        out: a file, for one image; else a folder, which is made; None for a name of its own.
        images: what the user named: files, folders, patterns or videos.
        form: suffix of files that are not named, without the dot; None for png.
        alone: name of the file, without suffix, where there is one image and no `out`.
        folder: name of the folder where there are several and no `out`.

    Raises:
        ValueError: `out` is a file though there are several images, or a type that is not written.
    """

    def __init__(
        self, out: Path | None, images: Sequence[str], form: str | None, *, alone: str, folder: str
    ) -> None:
        if form is not None and f".{form}" not in SUFFIXES:
            allowed = ", ".join(each[1:] for each in SUFFIXES)
            raise ValueError(f"`format`={form!r}; expected one of {allowed}")
        many = _many(images)
        if out is None:
            out = Path(folder) if many else Path(f"{alone}.{form or 'png'}")
        suffix = out.suffix.lower()
        self._is_file = bool(suffix) and not out.is_dir()
        if self._is_file and suffix not in SUFFIXES:
            allowed = ", ".join(SUFFIXES)
            raise ValueError(f"`--out`={str(out)!r}; expected a name that ends in {allowed}, or a folder")
        if self._is_file and form not in (None, suffix[1:]):
            raise ValueError(f"`--out`={str(out)!r} and `format`={form!r} name different types")
        if self._is_file and many:
            raise ValueError(f"`--out`={str(out)!r} is one file, and there are {many}; expected a folder")
        self._out = out
        self._form = form or "png"
        self._taken: set[str] = set()

    def path(self, image: str, frame: int | None = None) -> Path:
        """The file for an image; names that are alike are numbered.

        Args:
            image: as it was named.
            frame: of a video, counted from 0.

        Raises:
            ValueError: there is a second image for one file.
        """
        if self._is_file:
            if self._taken:
                raise ValueError(f"`--out`={str(self._out)!r} is one file, and there are several images")
            self._taken.add(str(self._out))
            return self._out
        self._out.mkdir(parents=True, exist_ok=True)
        stem = Path(image).stem or "image"
        stem += "" if frame is None else f"-{frame:06d}"
        stem = "".join(c if c.isprintable() and c not in '/\\:*?"<>|' else "_" for c in stem)[:_LONGEST]
        name, number = stem, 2
        while os.path.normcase(name).casefold() in self._taken:
            name, number = f"{stem}-{number}", number + 1
        self._taken.add(os.path.normcase(name).casefold())
        return self._out / f"{name}.{self._form}"


def _many(images: Sequence[str]) -> str:
    """How many images there are, in words; "" for one."""
    if "-" in images:  # Standard input is read once.
        return "" if len(images) == 1 else "several images"
    files = list_files(images)
    if len(files) > 1:
        return f"{len(files):,} images"
    return "many frames of a video" if any(map(is_film, files)) else ""
