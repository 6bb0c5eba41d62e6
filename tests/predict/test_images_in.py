import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convatlas.data.image_files import ImageError
from convatlas.predict import inputs as images_in
from convatlas.predict.inputs import find_items, list_files, read_pixels
from made_images import save_images


def names(images: object) -> list[str]:
    return [item.name for item in find_items(images)]


def reason(path: Path | str) -> str:
    (item,) = find_items(path)
    with pytest.raises(ImageError) as caught:
        read_pixels(item)
    return str(caught.value)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with images on two floors, and what is none."""
    save_images(tmp_path / "b", 2)
    save_images(tmp_path / "a" / "deep", 1)
    save_images(tmp_path / ".hidden", 1)
    (tmp_path / "b" / "notes.txt").write_text("no image")
    (tmp_path / "b" / ".000.png").write_text("left by an editor")
    (tmp_path / "c.JPG").write_text("")
    return tmp_path


def test_a_folder_with_all_below_it(tree: Path) -> None:
    found = ["a/deep/000.png", "b/000.png", "b/001.png", "c.JPG"]
    assert names(tree) == [str(tree / name) for name in found]
    assert list_files([tree]) == names(tree)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        pytest.param("b/*.png", ["b/000.png", "b/001.png"], id="star"),
        pytest.param("**/000.png", ["a/deep/000.png", "b/000.png"], id="two-stars"),
        pytest.param("b/00[1-9].png", ["b/001.png"], id="range"),
        pytest.param("[ab]", ["a/deep/000.png", "b/000.png", "b/001.png"], id="folders"),
        pytest.param("?.JPG", ["c.JPG"], id="question-mark"),
    ],
)
def test_patterns(tree: Path, pattern: str, found: list[str]) -> None:
    assert names(str(tree / pattern)) == [str(tree / name) for name in found]


def test_patterns_in_the_current_folder(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    assert names("b/*.png") == ["b/000.png", "b/001.png"]
    assert names("b") == ["b/000.png", "b/001.png"]


def test_a_file_whose_name_is_a_pattern(tmp_path: Path) -> None:
    (path,) = save_images(tmp_path, 1)
    odd = path.rename(tmp_path / "a[1].png")
    assert names(str(odd)) == [str(odd)]


def test_a_folder_that_links_to_itself(tree: Path) -> None:
    (tree / "b" / "again").symlink_to(tree)
    assert len(names(tree)) == 4


def test_what_is_found_is_not_opened_before_its_turn(tree: Path) -> None:
    items = find_items([tree / "gone.png", tree / "b"])
    assert next(items).name == str(tree / "gone.png")


@pytest.mark.parametrize("name", ["empty", "none*"], ids=["folder", "pattern"])
def test_without_any_image(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.txt").write_text("")
    expected = "no images in it (files that end in .bmp, .gif" if name == "empty" else "no such file"
    assert reason(tmp_path / name).startswith(f"{tmp_path / name}: {expected}")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert reason(tmp_path / "pipe.png").endswith("pipe.png: is no regular file, so no image")


def test_an_empty_folder_with_the_name_of_a_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    assert "a.png: no images in it" in reason(tmp_path / "a.png")


def test_a_file_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "long.png").open("wb") as file:
        file.truncate(2**30 + 1)
    assert "long.png: is larger than 1,073,741,824 bytes" in reason(tmp_path / "long.png")


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    assert "cannot be read" in reason("a\0.png")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    (path,) = save_images(tmp_path, 1)
    path.chmod(0)
    assert reason(path) == f"{path}: may not be read (no permission)"


def on_stdin(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["unix", "windows"])
def test_names_on_standard_input(tree: Path, monkeypatch: pytest.MonkeyPatch, end: bytes) -> None:
    lines = [os.fsencode(tree / name) for name in ("c.JPG", "b")]
    on_stdin(monkeypatch, end.join([*lines, b""]))
    found = [str(tree / name) for name in ("c.JPG", "b/000.png", "b/001.png")]
    assert names("-") == found
    on_stdin(monkeypatch, end.join(lines))
    assert list_files(["-"]) == found


def test_nothing_on_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    on_stdin(monkeypatch, b"")
    assert reason("-") == "standard input: is empty"


def test_a_image_on_standard_input_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = save_images(tmp_path, 1)
    monkeypatch.setattr(images_in, "MAX_BYTES", 100)
    on_stdin(monkeypatch, path.read_bytes())
    assert "standard input: is larger than 100 bytes" in reason("-")


def test_a_job_wants_names_on_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = save_images(tmp_path, 1)
    on_stdin(monkeypatch, path.read_bytes())
    with pytest.raises(ValueError, match="standard input: expected names of files, one a line"):
        list_files(["-"])


@pytest.mark.parametrize(
    ("least_side", "size"),
    [
        pytest.param(None, (300, 404), id="any"),
        pytest.param(151, (300, 404), id="full"),
        pytest.param(150, (150, 202), id="half"),
        pytest.param(75, (75, 101), id="quarter"),
        pytest.param(37, (38, 51), id="eighth"),
        pytest.param(1, (38, 51), id="no-less-than-an-eighth"),
    ],
)
def test_a_jpeg_may_be_decoded_smaller(tmp_path: Path, least_side: int | None, size: tuple[int, int]) -> None:
    rows, columns = np.mgrid[:300, :404]
    smooth = np.stack([rows * 0.8, columns * 0.6, (rows + columns) * 0.3], axis=-1).astype(np.uint8)
    path = tmp_path / "a.jpg"
    Image.fromarray(smooth).save(path, quality=95)
    (item,) = find_items(path)
    found = read_pixels(item, least_side)
    assert tuple(found.shape) == (3, *size)
    wanted = np.asarray(Image.fromarray(smooth).resize(size[::-1], Image.Resampling.BOX)).astype(int)
    assert np.abs(found.permute(1, 2, 0).numpy() - wanted).max() <= 8
    Image.fromarray(smooth).save(tmp_path / "a.png")
    (item,) = find_items(tmp_path / "a.png")
    assert tuple(read_pixels(item, least_side).shape) == (3, 300, 404)
