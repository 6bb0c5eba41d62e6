"""The cache of compiled C++: whatever happens to its files, a call gets a library that works."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from convatlas.native import compiled

SOURCE = 'extern "C" int seven() { return 7; }\n'


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
        pytest.skip("needs a C++ compiler")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "small.cpp"
    path.write_text(SOURCE)
    return path


def library(source: Path) -> Path:
    return next((source.parent / "cache" / "convatlas" / "native").glob("small-*.so"))


def halve(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()  # The process has the old file open.
    path.write_bytes(content[: len(content) // 2])


def zero_half(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.unlink()
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.unlink()
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [halve, zero_half, flip, empty, Path.unlink])
@pytest.mark.parametrize("suffix", [".so", ".sha256"])
def test_a_damaged_file_is_compiled_anew(source: Path, damage: object, suffix: str) -> None:
    assert compiled(source).seven() == 7
    whole = library(source).read_bytes()
    assert callable(damage)
    damage(library(source).with_suffix(suffix))
    assert compiled(source).seven() == 7
    assert len(library(source).read_bytes()) == len(whole)


def test_an_intact_library_is_used_again_and_litter_is_removed(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    litter = source.parent / "cache" / "convatlas" / "native" / "draft-old"
    litter.mkdir(parents=True)
    (litter / "native.so").write_bytes(b"half")
    os.utime(litter, (0, 0))
    young = litter.with_name("draft-young")
    young.mkdir()
    assert compiled(source).seven() == 7
    assert not litter.exists()
    assert young.exists()  # Another process may be compiling there.
    monkeypatch.setattr(subprocess, "run", lambda *_args, **_options: pytest.fail("it is compiled again"))
    assert compiled(source).seven() == 7
