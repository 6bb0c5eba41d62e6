import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import binomtest

from convatlas.metrics.error_analysis import interval, most_confused, worst_classes
from convatlas.plots.training import Tile, draw_comparison, draw_confusion, draw_curves, draw_tiles
from made_runs import lines

BLUE, ORANGE = (0x2F, 0x58, 0xAA), (0xCF, 0x58, 0x16)


def pixels(image: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))


def columns_of(image: NDArray[np.uint8], colour: tuple[int, int, int]) -> NDArray[np.intp]:
    """The columns in which a colour is found."""
    return np.flatnonzero((image == colour).all(axis=2).any(axis=0))


@pytest.mark.parametrize("epochs", [1, 2, 30])
def test_curves_show_training_and_test(epochs: int) -> None:
    image = pixels(draw_curves("lenet5 on digits", lines(epochs)))
    third = image.shape[1] // 3
    assert 1400 < image.shape[1] < 1700
    assert columns_of(image[:, :third], BLUE).size > 10
    assert columns_of(image[:, :third], ORANGE).size > 10
    assert columns_of(image[:, third : 2 * third], ORANGE).size > 10
    assert not columns_of(image[:, 2 * third + 60 :], ORANGE).size


def test_curves_before_the_first_epoch_is_over() -> None:
    started = [{"step": n, "epoch": 1, "loss": 2.0 / n, "lr": 0.1, "images_per_s": 9.0} for n in range(1, 9)]
    assert np.unique(pixels(draw_curves("lenet5", started)).reshape(-1, 3), axis=0).shape[0] > 20


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"test_accuracy": 1.0}, id="no-error"),
        pytest.param({"loss": 0.0, "test_loss": 0.0}, id="no-loss"),
        pytest.param({"test_top5": 0.999}, id="top5"),
        pytest.param({"loss": float("nan")}, id="nan"),
    ],
)
def test_curves_of_unusual_values(change: dict[str, float]) -> None:
    changed = [line | change if "test_accuracy" in line else line for line in lines(3)]
    assert pixels(draw_curves("lenet5", changed)).std() > 1.0


def test_the_same_lines_give_the_same_bytes() -> None:
    assert draw_curves("lenet5", lines(3)) == draw_curves("lenet5", lines(3))


def test_a_comparison_has_a_colour_for_each_run() -> None:
    worse = [line | {"loss": line["loss"] * 2} for line in lines(4)]
    image = pixels(draw_comparison(["a", "b"], [lines(6), worse]))
    losses = image[:, : image.shape[1] // 2]
    assert columns_of(losses, BLUE).max() > columns_of(losses, ORANGE).max() + 50


def test_a_comparison_with_a_run_that_has_hardly_begun() -> None:
    begun = [{"step": 5, "epoch": 1, "loss": 2.0, "lr": 0.1, "images_per_s": 9.0}]
    assert pixels(draw_comparison(["a", "b"], [lines(2), begun])).std() > 1.0


@pytest.mark.parametrize("names", [list("0123456789"), [f"a long name of class {k}" for k in range(10)]])
def test_confusion_is_blue_on_the_diagonal_and_white_where_nothing_happened(names: list[str]) -> None:
    matrix = np.diag([50] * 10)
    matrix[2, 7] = 50
    image = pixels(draw_confusion(matrix, names)).astype(int)
    blue = (image == BLUE).all(axis=2)
    rows, columns = np.nonzero(blue)
    side = (rows.max() - rows.min() + 1) / 10
    origin = rows.min(), columns.min()

    def cell(row: int, column: int) -> tuple[int, ...]:
        y, x = (int(origin[0] + (row + 0.15) * side), int(origin[1] + (column + 0.15) * side))
        return tuple(image[y, x])

    assert cell(0, 0) == cell(9, 9) == BLUE
    assert cell(0, 9) == cell(5, 3) == (255, 255, 255)
    red, _, wrong_blue = cell(2, 7)
    assert red - wrong_blue > 100
    assert cell(2, 2) != BLUE


def test_names_in_any_script_and_with_signs_of_formulas() -> None:
    names = ["猫", "кошка", "$x_1$", "50 $", r"$\frac{a$", "", "a|b", "_", "\n", "🐈"]
    tiles = [Tile(np.zeros((1, 8, 8), dtype=np.uint8), name, name) for name in names]
    assert draw_confusion(np.diag([5] * 10), names).startswith(b"\x89PNG")
    assert draw_tiles(tiles).startswith(b"\x89PNG")
    assert draw_curves("$x on folder:/a_$b", lines(2)).startswith(b"\x89PNG")
    assert draw_comparison(["$a$", r"$\frac{a$"], [lines(2), lines(2)]).startswith(b"\x89PNG")


def test_a_matrix_of_many_classes_shows_those_that_are_confused_most() -> None:
    matrix = np.diag([10] * 1000)
    matrix[500, 20], matrix[20, 30], matrix[999, 0] = 5, 4, 1
    assert most_confused(matrix, 3).tolist() == [20, 30, 500]
    assert most_confused(matrix, 5).tolist() == [0, 20, 30, 500, 999]
    assert most_confused(matrix[:3, :3], 5).tolist() == [0, 1, 2]
    assert pixels(draw_confusion(matrix, [f"class {k}" for k in range(1000)])).shape[0] < 1700


def test_worst_classes_by_hand() -> None:
    matrix = np.array([[8, 2, 0], [0, 10, 0], [3, 1, 0]])
    worst = worst_classes(matrix, 5)
    assert [(row.label, row.images, row.right, row.predicted) for row in worst] == [
        (2, 4, 0, 0),
        (0, 10, 8, 11),
    ]
    assert [(row.mostly, row.mistaken) for row in worst] == [(0, 3), (1, 2)]
    assert [row.label for row in worst_classes(matrix, 1)] == [2]
    assert worst_classes(np.diag([3, 4]), 5) == []


def test_a_class_without_test_images_is_not_called_bad() -> None:
    assert worst_classes(np.array([[0, 0], [1, 1]]), 5)[0].label == 1


@pytest.mark.parametrize(("right", "count"), [(355, 359), (0, 10), (10, 10), (5, 10)])
def test_intervals_are_those_of_scipy(right: int, count: int) -> None:
    expected = binomtest(right, count).proportion_ci(method="wilson")
    assert interval(right, count) == pytest.approx((expected.low, expected.high), abs=1e-6)


def tile(chans: int, height: int, width: int, value: int = 200) -> Tile:
    return Tile(np.full((chans, height, width), value, dtype=np.uint8), "truth → prediction", "1: loss 3.21")


@pytest.mark.parametrize(
    ("count", "columns", "rows"), [(1, 1, 1), (5, 5, 1), (8, 8, 1), (9, 8, 2), (24, 8, 3)]
)
def test_tiles_stand_in_rows_of_eight(count: int, columns: int, rows: int) -> None:
    image = pixels(draw_tiles([tile(1, 28, 28)] * count))
    assert image.shape == (rows * 176 + 12, columns * 140 + 12, 3)


@pytest.mark.parametrize(
    ("shape", "shown"),
    [
        pytest.param((1, 28, 28), (112, 112), id="four-times"),
        pytest.param((3, 100, 50), (128, 64), id="tall"),
        pytest.param((3, 500, 1000), (64, 128), id="wide"),
        pytest.param((3, 1, 1000), (1, 128), id="line"),
    ],
)
def test_images_keep_their_shape(shape: tuple[int, int, int], shown: tuple[int, int]) -> None:
    image = pixels(draw_tiles([Tile(np.zeros(shape, dtype=np.uint8), "", "")]))
    rows, columns = np.nonzero((image == 0).all(axis=2))
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == shown


def test_small_images_are_enlarged_without_blur() -> None:
    board = (np.indices((8, 8)).sum(axis=0) % 2 * 255).astype(np.uint8)
    image = pixels(draw_tiles([Tile(board[None], "", "")]))
    inner = image[12 + 18 : 12 + 18 + 128, 12 : 12 + 128, 0]
    np.testing.assert_array_equal(inner, np.kron(board, np.ones((16, 16), dtype=np.uint8)))


def test_a_long_title_is_cut() -> None:
    def right_edge(title: str) -> int:
        tiles = [Tile(np.full((1, 8, 8), 255, dtype=np.uint8), title, "")]
        return int(np.nonzero((pixels(draw_tiles(tiles))[:30] < 128).any(axis=(0, 2)))[0].max())

    assert right_edge("German short-haired pointer → Chesapeake Bay retriever") <= 12 + 128
    assert right_edge("cat → dog") < 90
