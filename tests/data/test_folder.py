import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from convatlas.data import check, listing
from convatlas.data.sets import DataError, ImageFileSet, Samples
from convatlas.data.sources import load_source

Make = Callable[..., Path]


def names(part: Samples, root: Path) -> list[str]:
    return [str(Path(part.name(index)).relative_to(root)) for index in range(len(part))]


def count_looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the images that are decoded to be checked, from now on."""
    looked: list[str] = []
    real = check.decode_image

    def decode(data: bytes, name: str) -> torch.Tensor:
        looked.append(Path(name).name)
        return real(data, name)

    monkeypatch.setattr(check, "decode_image", decode)
    return looked


def damage(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def test_without_parts_a_share_of_each_class_is_tested_on(make_folder: Make) -> None:
    root = make_folder()
    source = load_source(f"folder:{root}")
    assert source.class_names == ("cat", "dog", "owl")
    assert source.image_size is None
    assert source.train.labels.bincount().tolist() == [8, 8, 8]
    assert source.test.labels.bincount().tolist() == [2, 2, 2]
    files = [str(path.relative_to(root)) for path in root.rglob("*.*")]
    assert sorted(names(source.train, root) + names(source.test, root)) == sorted(files)


def test_images_come_with_their_labels(make_folder: Make) -> None:
    root = make_folder()
    source = load_source(f"folder:{root}")
    for index in range(len(source.train)):
        path = Path(source.train.name(index))
        pixels = np.asarray(Image.open(path))
        assert np.array_equal(source.train.image(index).permute(1, 2, 0).numpy(), pixels)
        assert source.class_names[source.train.labels[index]] == path.parent.name


def test_the_split_is_the_seeds_and_the_shares(make_folder: Make) -> None:
    root = make_folder()
    first, again, other = (load_source(f"folder:{root}", seed=seed) for seed in (0, 0, 1))
    assert names(first.test, root) == names(again.test, root)
    assert names(first.test, root) != names(other.test, root)
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert len(load_source(f"folder:{root}", test_share=0.5).test) == 15


@pytest.mark.parametrize("test_name", ["val", "valid", "validation", "test"])
def test_parts_are_taken_as_they_are(make_folder: Make, test_name: str) -> None:
    train = make_folder("set/train", count=3)
    make_folder(f"set/{test_name}", classes=("cat", "owl"), count=2)
    source = load_source(f"folder:{train.parent}")
    assert source.class_names == ("cat", "dog", "owl")
    assert (len(source.train), source.test.labels.tolist()) == (9, [0, 0, 2, 2])


def test_train_alone_is_split(make_folder: Make) -> None:
    train = make_folder("set/train", count=5)
    (train.parent / "notes").mkdir()
    source = load_source(f"folder:{train.parent}")
    assert source.class_names == ("cat", "dog", "owl")
    assert (len(source.train), len(source.test)) == (12, 3)


def test_a_class_may_be_called_train(make_folder: Make) -> None:
    root = make_folder(classes=("bus", "train"), count=5)
    assert load_source(f"folder:{root}").class_names == ("bus", "train")


def test_the_fingerprint_is_that_of_the_content_not_of_the_place(make_folder: Make) -> None:
    first, second = (load_source(f"folder:{make_folder(name)}") for name in ("one", "two"))
    assert first.fingerprint == second.fingerprint
    root = make_folder("two")
    (root / "cat" / "000.png").rename(root / "cat" / "more.png")
    assert load_source(f"folder:{root}").fingerprint != first.fingerprint


def test_folders_in_classes_hidden_files_and_other_files(make_folder: Make, make_image: Make) -> None:
    root = make_folder(count=5)
    make_image(root / "cat" / "more" / "deep.JPEG")
    make_image(root / "cat" / ".hidden.png")
    make_image(root / "beside.png")
    (root / "cat" / "notes.txt").write_text("no image")
    (root / ".thumbnails").mkdir()
    source = load_source(f"folder:{root}")
    found = names(source.train, root) + names(source.test, root)
    assert len(found) == 16
    assert "cat/more/deep.JPEG" in found
    assert source.class_names == ("cat", "dog", "owl")


def test_links_are_followed_but_not_in_circles(make_folder: Make, make_image: Make, tmp_path: Path) -> None:
    root = make_folder(count=5)
    make_image(tmp_path / "elsewhere" / "linked.png")
    (root / "cat" / "link").symlink_to(tmp_path / "elsewhere")
    (root / "dog" / "circle").symlink_to(root / "dog")
    source = load_source(f"folder:{root}")
    assert len(source.train) + len(source.test) == 16


def test_names_in_any_writing_and_in_none(make_folder: Make, make_image: Make) -> None:
    root = make_folder(classes=("chat noir", "größe"), count=5)
    strange = os.fsdecode(b"caf\xe9 \xff.png")  # no UTF-8
    make_image(root / "größe" / "x.png").rename(root / "größe" / strange)
    source = load_source(f"folder:{root}")
    assert f"größe/{strange}" in names(source.train, root) + names(source.test, root)
    assert source.class_names == ("chat noir", "größe")


def test_grey_images_become_rgb(make_folder: Make, make_image: Make) -> None:
    root = make_folder(count=5)
    make_image(root / "cat" / "grey.png", mode="L")
    source = load_source(f"folder:{root}")
    assert {part.image(i).shape[0] for part in (source.train, source.test) for i in range(len(part))} == {3}


# Bad images


def test_damaged_images_are_refused_with_their_names(make_folder: Make) -> None:
    root = make_folder()
    damage(root / "cat" / "003.jpg")
    (root / "dog" / "004.png").write_bytes(b"")
    message = (
        r"images: 2 images cannot be used: \S+/cat/003\.jpg: damaged or cut off .*; "
        r"\S+/dog/004\.png: is an empty file; mend or remove, or leave out by --on-bad-image skip"
    )
    with pytest.raises(DataError, match=message):
        load_source(f"folder:{root}")


def test_damaged_images_are_left_out_and_listed(make_folder: Make) -> None:
    root = make_folder()
    whole = load_source(f"folder:{root}")
    bad = Path(whole.train.name(3))
    damage(bad)
    source = load_source(f"folder:{root}", on_bad_image="skip")
    assert [entry.path for entry in source.skipped] == [str(bad)]
    assert source.skipped[0].reason.startswith("damaged or cut off")
    # The rest stay where they were.
    assert names(source.test, root) == names(whole.test, root)
    assert names(source.train, root) == [name for name in names(whole.train, root) if root / name != bad]


def test_many_damaged_images_make_a_short_message(make_folder: Make) -> None:
    root = make_folder()
    for path in sorted((root / "cat").iterdir())[:6]:
        path.write_bytes(b"<html>")
    message = r"6 images cannot be used: (.*is no image in a format.*; ){3}and 3 more"
    with pytest.raises(DataError, match=message):
        load_source(f"folder:{root}")


def test_pipes_and_broken_links_do_not_block(make_folder: Make) -> None:
    root = make_folder()
    os.mkfifo(root / "cat" / "pipe.jpg")
    (root / "cat" / "link.png").symlink_to(root / "gone.png")
    skipped = load_source(f"folder:{root}", on_bad_image="skip").skipped
    assert [(Path(entry.path).name, entry.reason) for entry in skipped] == [
        ("link.png", "cannot be read (a broken link, or no permission)"),
        ("pipe.jpg", "is no regular file, so no image"),
    ]


def test_a_class_of_nothing_but_damaged_images(make_folder: Make) -> None:
    root = make_folder(count=4)
    for path in (root / "dog").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="there is no image of 'dog' to learn from"):
        load_source(f"folder:{root}", on_bad_image="skip")


# Bad folders


def test_no_such_folder(make_folder: Make) -> None:
    root = make_folder("images")
    with pytest.raises(DataError, match=r"image: no such folder; nearest: images"):
        load_source(f"folder:{root.parent / 'image'}")


def test_a_file_is_no_folder(make_folder: Make) -> None:
    path = make_folder() / "cat" / "000.png"
    with pytest.raises(DataError, match=r"000\.png: is a file; expected a folder for each class"):
        load_source(f"folder:{path}")


def test_an_empty_class(make_folder: Make) -> None:
    root = make_folder()
    (root / "ant").mkdir()
    (root / "ant" / "notes.txt").touch()
    message = r"ant: class folder without images \(files that end in \.bmp, .*remove it"
    with pytest.raises(DataError, match=message):
        load_source(f"folder:{root}")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        pytest.param({"classes": ("cat",)}, r"holds one folder \(cat\); expected", id="one"),
        pytest.param({"where": "images/train", "classes": ("cat",)}, r"train: holds one", id="in-train"),
        pytest.param({"where": "images/val"}, r"holds val but no train; expected", id="val-alone"),
        pytest.param({"count": 1}, r"there is no image to test on; expected more", id="too-few"),
    ],
)
def test_folders_that_cannot_be_used(
    make_folder: Make, tmp_path: Path, build: dict[str, object], message: str
) -> None:
    make_folder(**build)
    with pytest.raises(DataError, match=message):
        load_source(f"folder:{tmp_path / 'images'}")


def test_images_without_class_folders(make_image: Make, tmp_path: Path) -> None:
    make_image(tmp_path / "flat" / "a.png")
    with pytest.raises(DataError, match="flat: holds images but no folder; expected"):
        load_source(f"folder:{tmp_path / 'flat'}")


def test_a_class_that_is_only_tested_on(make_folder: Make) -> None:
    root = make_folder("set/train", count=2).parent
    make_folder("set/val", classes=("cat", "dgo"), count=1)
    with pytest.raises(DataError, match=r"val/dgo: there is no class of that name .*; nearest: dog"):
        load_source(f"folder:{root}")


def test_no_permission(make_folder: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_folder()
    real = os.scandir

    def scandir(path: Path) -> object:  # chmod would not stop root
        if Path(path).name == "dog":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(listing.os, "scandir", scandir)
    with pytest.raises(DataError, match=r"dog: may not be read \(no permission\)"):
        load_source(f"folder:{root}")


# What is kept for the next time


def test_images_are_looked_at_once(make_folder: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_folder()
    looked = count_looks(monkeypatch)
    first = load_source(f"folder:{root}")
    assert len(looked) == 30
    second = load_source(f"folder:{root}")
    assert len(looked) == 30
    assert first.fingerprint == second.fingerprint
    assert isinstance(second.train, ImageFileSet)
    assert second.train.sizes.tolist() == [[20, 24]] * 24


def test_what_is_new_or_has_changed_is_looked_at(
    make_folder: Make, make_image: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder()
    load_source(f"folder:{root}")
    looked = count_looks(monkeypatch)
    make_image(root / "cat" / "new.png", seed=77)
    make_image(root / "dog" / "003.jpg", seed=78, width=30)
    (root / "owl" / "005.jpg").unlink()
    source = load_source(f"folder:{root}")
    assert sorted(looked) == ["003.jpg", "new.png"]
    assert len(source.train) + len(source.test) == 30


def test_what_is_damaged_later_is_found_and_what_is_mended_is_forgotten(make_folder: Make) -> None:
    root = make_folder()
    load_source(f"folder:{root}")
    path = root / "cat" / "000.png"
    good = path.read_bytes()
    damage(path)
    for _ in range(2):
        assert len(load_source(f"folder:{root}", on_bad_image="skip").skipped) == 1
    path.write_bytes(good + b" ")
    assert load_source(f"folder:{root}").skipped == ()


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 no archive", b"\x00" * 300], ids=["empty", "torn", "zeros"]
)
def test_a_damaged_listing_is_made_again(make_folder: Make, cache: Path, content: bytes) -> None:
    root = make_folder()
    first = load_source(f"folder:{root}")
    (kept,) = (cache / "listings").iterdir()
    kept.write_bytes(content)
    assert load_source(f"folder:{root}").fingerprint == first.fingerprint
    assert kept.stat().st_size > len(content)


def test_where_nothing_can_be_kept_all_works(
    make_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(load_source(f"folder:{make_folder()}").train) == 24


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if 20 files were many."""
    monkeypatch.setattr(listing, "FEW", 20)
    monkeypatch.setattr(check, "FEW", 20)


@pytest.mark.usefixtures("few")
def test_of_many_files_the_headers_are_read(make_folder: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_folder()
    damage(root / "cat" / "000.png")
    (root / "dog" / "001.jpg").write_bytes(b"<html>")
    looked = count_looks(monkeypatch)
    source = load_source(f"folder:{root}", on_bad_image="skip")
    assert looked == []
    assert [Path(entry.path).name for entry in source.skipped] == ["001.jpg"]
    assert isinstance(source.train, ImageFileSet)
    assert source.train.sizes.tolist()[0] == [20, 24]


@pytest.mark.usefixtures("few")
def test_of_many_files_a_long_header_is_read_to_its_end(make_folder: Make) -> None:
    root = make_folder()
    path = root / "cat" / "001.jpg"
    data = path.read_bytes()
    comment = b"\xff\xfe" + (60_000).to_bytes(2, "big") + bytes(59_998)
    path.write_bytes(data[:2] + 2 * comment + data[2:])
    assert load_source(f"folder:{root}").skipped == ()


@pytest.mark.usefixtures("few")
def test_of_many_files_the_folders_alone_are_looked_at(
    make_folder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder()
    first = load_source(f"folder:{root}")
    monkeypatch.setattr(listing, "_look", None)
    assert load_source(f"folder:{root}").fingerprint == first.fingerprint


def test_a_long_check_is_announced(make_folder: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "MANY", 10)
    told: list[str] = []
    load_source(f"folder:{make_folder()}", note=told.append)
    assert told == ["decoding 30 images once, to find damaged ones"]
