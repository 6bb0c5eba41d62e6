import pytest
import torch

from convatlas.data.sets import ImageSet, Source
from convatlas.evaluation.labels import choose_split, match_classes


@pytest.mark.parametrize(
    ("data", "network", "wanted"),
    [
        pytest.param("ab", "ab", [0, 1], id="the same"),
        pytest.param(("dog", "cat"), ("cat", "cow", "dog"), [2, 0], id="some, in another order"),
        pytest.param(("Golden_Retriever",), ("pug", "golden retriever"), [1], id="spelt otherwise"),
        pytest.param(("Tinca tinca", "gold-fish"), ("tench, Tinca tinca", "gold fish"), [0, 1], id="synonym"),
        pytest.param(("cat", "dog"), ("0", "1"), [0, 1], id="no names"),
        pytest.param(("crane", "crane"), ("crane", "crane"), [0, 1], id="doubled in both"),
    ],
)
def test_matching(data: tuple[str, ...], network: tuple[str, ...], wanted: list[int]) -> None:
    assert match_classes(tuple(data), tuple(network)) == wanted


def test_matching_by_numbers() -> None:
    assert match_classes(("n01", "n02"), ("tench", "goldfish", "shark"), "index") == [0, 1]
    with pytest.raises(ValueError, match="the data have 2 classes, and the network 1"):
        match_classes(("n01", "n02"), ("tench",), "index")


@pytest.mark.parametrize(
    ("data", "network", "message"),
    [
        pytest.param(
            ("cat",), ("cow", "car"), "class 'cat' of the data is none of the network's 2; nearest: "
        ),
        pytest.param(
            ("crane",), ("crane", "cow", "crane"), "'crane' .* 2 classes of the network: numbers 0, 2"
        ),
    ],
    ids=["unknown", "ambiguous"],
)
def test_no_match(data: tuple[str, ...], network: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        match_classes(data, network)


def test_unknown_way_to_match() -> None:
    with pytest.raises(ValueError, match="`match`='order'; expected 'names' or 'index'"):
        match_classes("a", "b", "order")  # type: ignore[arg-type]


def source() -> Source:
    images = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1)
    train = ImageSet(images[:3], torch.tensor([0, 1, 1]))
    return Source("five", train, ImageSet(images[3:], torch.tensor([1, 0])), ("a", "b"), "", (1, 1, 1))


@pytest.mark.parametrize(
    ("split", "values", "labels"),
    [("test", [3, 4], [7, 4]), ("train", [0, 1, 2], [4, 7, 7]), ("all", [0, 1, 2, 3, 4], [4, 7, 7, 7, 4])],
)
def test_parts(split: str, values: list[int], labels: list[int]) -> None:
    chosen = choose_split(source(), split, (4, 7))  # type: ignore[arg-type]
    assert [int(chosen.image(i)) for i in range(len(chosen))] == values
    assert chosen.labels.tolist() == labels
    assert chosen.name(0) == "image 0"


def test_unknown_part() -> None:
    with pytest.raises(ValueError, match="`split`='val'; expected 'test', 'train' or 'all'"):
        choose_split(source(), "val", (0, 1))  # type: ignore[arg-type]
