import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from convatlas.data import pack, shards
from convatlas.data.pack import write_shards
from convatlas.data.sets import DataError, ImageFileSet, ImageSet, Samples, Source
from convatlas.data.small import memory_source
from convatlas.data.sources import load_source

Make = Callable[..., Path]


def png(seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def tar(path: Path, members: dict[str, bytes], form: int = tarfile.GNU_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def samples(count: int, num_classes: int = 2) -> dict[str, bytes]:
    members: dict[str, bytes] = {}
    for i in range(count):
        members |= {f"{i:04d}.png": png(i), f"{i:04d}.cls": b"%d" % (i % num_classes)}
    return members


def assert_same(first: Samples, second: Samples) -> None:
    assert torch.equal(first.labels, second.labels)
    for index in range(len(first)):
        assert torch.equal(first.image(index), second.image(index))


# Ours


@pytest.fixture
def folder(make_folder: Make) -> Source:
    return load_source(f"folder:{make_folder()}")


def test_sample_i_of_a_folder_is_sample_i_of_its_shards(folder: Source, tmp_path: Path) -> None:
    paths = write_shards(folder, tmp_path / "shards", shard_bytes=8_000)
    assert len(paths) > 4
    source = load_source(f"shards:{tmp_path / 'shards'}")
    assert source.class_names == folder.class_names
    assert_same(source.train, folder.train)
    assert_same(source.test, folder.test)
    assert isinstance(source.train, ImageFileSet)
    assert isinstance(folder.train, ImageFileSet)
    assert np.array_equal(source.train.sizes, folder.train.sizes)


def test_files_go_in_as_they_are_in_webdatasets_layout(folder: Source, tmp_path: Path) -> None:
    paths = write_shards(folder, tmp_path / "shards")
    assert [path.name for path in paths] == ["test-000000.tar", "train-000000.tar"]
    with tarfile.open(paths[1]) as archive:
        names = archive.getnames()
        contents = {name: archive.extractfile(name).read() for name in names}
    # webdataset takes neighbours with the same key for one sample.
    assert [name.split(".")[0] for name in names[::2]] == [name.split(".")[0] for name in names[1::2]]
    assert sorted(names[::2]) != names[::2]  # a random order, for those who read from the beginning
    for index in range(len(folder.train)):
        path = Path(folder.train.name(index))
        assert contents[f"{index:09d}{path.suffix}"] == path.read_bytes()
        assert int(contents[f"{index:09d}.cls"]) == folder.train.labels[index]


def test_the_same_source_gives_the_same_archives(folder: Source, tmp_path: Path) -> None:
    first, second = (write_shards(folder, tmp_path / name) for name in ("one", "two"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    one, two = (load_source(f"shards:{tmp_path / name}") for name in ("one", "two"))
    assert one.fingerprint == two.fingerprint


@pytest.mark.parametrize("chans", [1, 3])
def test_images_in_memory_are_packed_without_loss(tmp_path: Path, chans: int) -> None:
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (12, chans, 8, 6), dtype=torch.uint8, generator=draw)
    labels = torch.arange(12) % 3
    source = memory_source("made", ImageSet(images[:9], labels[:9]), ImageSet(images[9:], labels[9:]), "abc")
    write_shards(source, tmp_path / "shards")
    packed = load_source(f"shards:{tmp_path / 'shards'}")
    assert torch.equal(packed.test.image(1), images[10].expand(3, -1, -1))
    assert torch.equal(packed.train.labels, labels[:9])
    assert isinstance(packed.train, ImageFileSet)
    assert packed.train.sizes.tolist() == [[8, 6]] * 9


def test_our_index_saves_looking_at_the_images(
    folder: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shards(folder, tmp_path / "shards")
    (tmp_path / "shards").rename(tmp_path / "moved")
    monkeypatch.setattr(shards, "index_shards", None)
    assert len(load_source(f"shards:{tmp_path / 'moved'}").train) == len(folder.train)


def test_an_index_that_does_not_fit_is_not_believed(folder: Source, tmp_path: Path) -> None:
    (first, _) = write_shards(folder, tmp_path / "shards")
    tar(first, samples(40, num_classes=3))
    source = load_source(f"shards:{tmp_path / 'shards'}")
    assert len(source.test) == 40


@pytest.mark.parametrize("there", ["file", "full-folder"])
def test_what_is_there_is_not_written_over(folder: Source, tmp_path: Path, there: str) -> None:
    out = tmp_path / "out"
    if there == "file":
        out.touch()
    else:
        (out / "kept").mkdir(parents=True)
    with pytest.raises(DataError, match=r"out: is there already; expected a new or an empty folder"):
        write_shards(folder, out)


def test_too_small_a_disk_is_found_before_writing(
    folder: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 5_000}))
    with pytest.raises(DataError, match=r"out: the disk has 0\.0 MB free; about 0\.1 MB are needed"):
        write_shards(folder, tmp_path / "out")


def test_where_it_fails_nothing_is_left(
    folder: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pack.os, "fsync", fail)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(DataError, match=r"out: cannot be written \(No space left on device\); about 0\.1 MB"):
        write_shards(folder, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before


def test_shards_have_a_size(folder: Source, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`shard_bytes`=0; expected at least 1"):
        write_shards(folder, tmp_path / "out", shard_bytes=0)


# Anybody's


@pytest.mark.parametrize(
    "form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT], ids=["gnu", "pax", "ustar"]
)
def test_shards_without_index_or_parts(tmp_path: Path, form: int) -> None:
    members = samples(20)
    folders = {f"{'deep/' * 30}{name}": content for name, content in members.items()}
    tar(tmp_path / "set" / "a.tar", members, form)
    if form != tarfile.USTAR_FORMAT:  # which has no room for long names
        tar(tmp_path / "set" / "b.tar", folders, form)
    source = load_source(f"shards:{tmp_path / 'set'}", seed=3)
    count = 40 if form != tarfile.USTAR_FORMAT else 20
    assert (len(source.train), len(source.test)) == (0.8 * count, 0.2 * count)
    assert source.class_names == ("0", "1")
    for part in (source.train, source.test):
        for index in range(len(part)):
            number = int(part.name(index).rsplit("/", 1)[-1].split(":")[-1].split(".")[0])
            expected = np.asarray(Image.open(io.BytesIO(png(number))))
            assert np.array_equal(part.image(index).permute(1, 2, 0).numpy(), expected)
            assert part.labels[index] == number % 2


def test_parts_by_name_and_names_of_classes(tmp_path: Path) -> None:
    tar(tmp_path / "set" / "train-0.tar", samples(6))
    tar(tmp_path / "set" / "val-0.tar", samples(3))
    (tmp_path / "set" / "classes.txt").write_text("cat\ndog\n")
    source = load_source(f"shards:{tmp_path / 'set'}")
    assert (len(source.train), len(source.test), source.class_names) == (6, 3, ("cat", "dog"))


def test_other_files_of_a_sample_are_passed_over(tmp_path: Path) -> None:
    members = samples(10) | {"0001.json": b"{}", "0001.mask.png": b"no image", "README": b"text"}
    tar(tmp_path / "set" / "a.tar", members)
    source = load_source(f"shards:{tmp_path / 'set'}")
    assert len(source.train) + len(source.test) == 10


def test_an_index_is_kept_until_a_shard_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tar(tmp_path / "set" / "a.tar", samples(10))
    first = load_source(f"shards:{tmp_path / 'set'}")
    real = shards.index_shards
    monkeypatch.setattr(shards, "index_shards", None)
    assert load_source(f"shards:{tmp_path / 'set'}").fingerprint == first.fingerprint
    monkeypatch.setattr(shards, "index_shards", real)
    tar(path, samples(20))
    source = load_source(f"shards:{tmp_path / 'set'}")
    assert len(source.train) + len(source.test) == 20


def test_damaged_images_in_shards(tmp_path: Path) -> None:
    tar(tmp_path / "set" / "a.tar", samples(10) | {"0004.png": png(4)[:150]})
    with pytest.raises(DataError, match=r"set: 1 image cannot be used: \S+/a\.tar:0004\.png: damaged"):
        load_source(f"shards:{tmp_path / 'set'}")
    source = load_source(f"shards:{tmp_path / 'set'}", on_bad_image="skip")
    assert len(source.train) + len(source.test) == 9
    assert [entry.path[-14:] for entry in source.skipped] == ["a.tar:0004.png"]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        pytest.param({"a.png": png()}, r"a\.tar:a: has an image but no class", id="no-class"),
        pytest.param({"a.cls": b"0"}, r"a\.tar:a: has a class but no image; 1", id="no-image"),
        pytest.param({"a.png": png(), "a.cls": b"cat"}, r"a\.cls: holds b'cat'; expected", id="word"),
        pytest.param({"a.png": png(), "a.cls": b"-1"}, r"a\.cls: holds b'-1'; expected", id="minus"),
        pytest.param({"a.png": png(), "a.jpg": png(), "a.cls": b"0"}, r"a: has two images", id="two"),
        pytest.param({"README": b""}, r"set: its shards hold no image with a class", id="nothing"),
        pytest.param(
            {"a.png": png(), "a.cls": b"2"}, r"there is no image of '0' to learn from", id="gap-in-classes"
        ),
    ],
)
def test_shards_that_are_none(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    tar(tmp_path / "set" / "a.tar", members)
    with pytest.raises(DataError, match=message):
        load_source(f"shards:{tmp_path / 'set'}")


def test_links_in_archives_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    with tarfile.open(tmp_path / "set" / "a.tar", "w") as archive:
        link = tarfile.TarInfo("a.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
        label = tarfile.TarInfo("a.cls")
        label.size = 1
        archive.addfile(label, io.BytesIO(b"0"))
    with pytest.raises(DataError, match=r"a\.tar:a: has a class but no image"):
        load_source(f"shards:{tmp_path / 'set'}")


def test_a_shard_that_is_cut_off(tmp_path: Path) -> None:
    path = tar(tmp_path / "set" / "a.tar", samples(10))
    path.write_bytes(path.read_bytes()[:3_000])
    with pytest.raises(DataError, match=r"a\.tar: (is no tar archive, or is cut off|is damaged at byte)"):
        load_source(f"shards:{tmp_path / 'set'}")


def test_a_shard_with_a_damaged_header_does_not_end_there(tmp_path: Path) -> None:
    path = tar(tmp_path / "set" / "a.tar", samples(10))
    data = bytearray(path.read_bytes())
    at = data.index(b"0005.png")
    data[at : at + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    with pytest.raises(DataError, match=rf"a\.tar: is damaged at byte {at:,}"):
        load_source(f"shards:{tmp_path / 'set'}")


def test_what_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"no archive" * 100)
    with pytest.raises(DataError, match=r"a\.tar: is no tar archive, or is cut off"):
        load_source(f"shards:{tmp_path}")


def test_compressed_archives_cannot_be_read_in_any_order(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").touch()
    with pytest.raises(DataError, match=r"holds no shard, .* in \.tar; a\.tar\.gz is compressed: unpack it"):
        load_source(f"shards:{tmp_path}")


def test_shards_of_no_part_among_those_of_one(tmp_path: Path) -> None:
    for name in ("train-0", "test-0", "more"):
        tar(tmp_path / f"{name}.tar", samples(4))
    with pytest.raises(DataError, match=r"more\.tar: to learn from, or to test on\? expected train-\*\.tar"):
        load_source(f"shards:{tmp_path}")


def test_labels_beyond_the_names(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", samples(10, num_classes=5))
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(DataError, match=r"classes\.txt: names 2 classes, and the labels go up to 4"):
        load_source(f"shards:{tmp_path}")
