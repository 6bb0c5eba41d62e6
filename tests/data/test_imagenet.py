from collections.abc import Callable
from pathlib import Path

import pytest

from convatlas.data.sets import DataError
from convatlas.data.sources import load_source

Make = Callable[..., Path]

IDS = ("n01440764", "n02084071", "n03995372")
# The class of each image of val, in the order of the names.
CLASSES = (2, 0, 1, 0)


@pytest.fixture
def root(make_folder: Make) -> Path:
    """ImageNet of three classes, without val."""
    return make_folder("imagenet/train", classes=IDS, count=2).parent


@pytest.fixture
def flat(root: Path, make_image: Make) -> Path:
    """With a val that has no class folders."""
    for number in range(4):
        make_image(root / "val" / f"ILSVRC2012_val_0000000{number + 1}.JPEG", seed=number)
    return root


def test_class_folders_in_both(root: Path, make_folder: Make) -> None:
    make_folder("imagenet/val", classes=IDS, count=1)
    source = load_source(f"imagenet:{root}")
    assert source.class_names == IDS
    assert (len(source.train), source.test.labels.tolist()) == (6, [0, 1, 2])


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        pytest.param(
            "imagenet_2012_validation_synset_labels.txt", [IDS[label] for label in CLASSES], id="tensorflow"
        ),
        pytest.param(
            "LOC_val_solution.csv",
            [
                "ImageId,PredictionString",
                f"ILSVRC2012_val_00000003,{IDS[1]} 1 2 3 4 {IDS[1]} 5 6 7 8 ",
                f"ILSVRC2012_val_00000001,{IDS[2]} 85 1 499 272 ",
                f"ILSVRC2012_val_00000002,{IDS[0]} 0 0 9 9 ",
                f"ILSVRC2012_val_00000004,{IDS[0]} 0 0 9 9 ",
            ],
            id="kaggle",
        ),
        pytest.param(
            "val.txt",
            [f"ILSVRC2012_val_0000000{i + 1}.JPEG {label}" for i, label in enumerate(CLASSES)],
            id="caffe",
        ),
    ],
)
def test_a_flat_val_with_a_file_of_classes(flat: Path, name: str, lines: list[str]) -> None:
    (flat / name).write_text("\n".join(lines) + "\n")
    source = load_source(f"imagenet:{flat}")
    assert source.test.labels.tolist() == list(CLASSES)
    assert Path(source.test.name(2)).name == "ILSVRC2012_val_00000003.JPEG"


def test_kaggles_archive_as_it_is_unpacked(flat: Path, tmp_path: Path) -> None:
    data = tmp_path / "kaggle" / "ILSVRC" / "Data" / "CLS-LOC"
    data.parent.mkdir(parents=True)
    flat.rename(data)
    lines = [f"ILSVRC2012_val_0000000{i + 1},{IDS[label]} 0 0 9 9" for i, label in enumerate(CLASSES)]
    (tmp_path / "kaggle" / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *lines]))
    assert load_source(f"imagenet:{tmp_path / 'kaggle'}").test.labels.tolist() == list(CLASSES)


def test_all_thousand_classes_have_their_names(tmp_path: Path, make_image: Make) -> None:
    from convatlas.weights import imagenet_classes

    first = make_image(tmp_path / "image.png")
    # All but the ends are made up: only their order matters.
    ids = ["n01440764", *(f"n02{number:06d}" for number in range(998)), "n15075141"]
    for part in ("train", "val"):
        for name in ids:
            (tmp_path / "set" / part / name).mkdir(parents=True)
            (tmp_path / "set" / part / name / "a.png").hardlink_to(first)
    assert load_source(f"imagenet:{tmp_path / 'set'}").class_names == imagenet_classes()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        pytest.param(None, r"val: holds no class folders, and there is no file ", id="no-file"),
        pytest.param(IDS, r"val\.txt: gives 3 classes for 4 images", id="too-few-lines"),
        pytest.param(
            ["ILSVRC2012_val_00000001.JPEG n02084072"],
            r"val\.txt: gives ILSVRC2012_val_00000001\.JPEG the class 'n02084072', which train has not; "
            r"nearest: n02084071",
            id="unknown-class",
        ),
        pytest.param(
            ["ILSVRC2012_val_00000001.JPEG 0"],
            r"val\.txt: gives no class for ILSVRC2012_val_00000002 and 2 others",
            id="missing-images",
        ),
    ],
)
def test_a_flat_val_whose_classes_are_not_known(flat: Path, lines: list[str] | None, message: str) -> None:
    if lines is not None:
        (flat / "val.txt").write_text("\n".join(lines))
    with pytest.raises(DataError, match=message):
        load_source(f"imagenet:{flat}")


def test_without_val(root: Path) -> None:
    with pytest.raises(DataError, match="holds train but no val; expected both"):
        load_source(f"imagenet:{root}")


def test_without_train(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no train with class folders; expected"):
        load_source(f"imagenet:{tmp_path}")


def test_what_is_not_imagenet(make_folder: Make) -> None:
    root = make_folder("set/train").parent
    with pytest.raises(DataError, match=r"cat: is no WordNet id, such as n01440764; other images"):
        load_source(f"imagenet:{root}")
