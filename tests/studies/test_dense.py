"""Heat maps and cuts on networks whose weights are known, and the verdict on made-up results."""

import numpy as np
import torch

from convatlas.blocks.dense import DenseBlock
from convatlas.studies.residual.dense import cut, far, heat_maps, published_facts
from convatlas.studies.verdict import Verdict


def block() -> DenseBlock:
    """Three layers of two channels on an input of three; each weight is the number of its source, from 1."""
    made = DenseBlock(3, 3, 2)
    with torch.no_grad():
        for number, layer in enumerate(made.values(), 1):
            layer.get_parameter("conv1.weight")[:, :3] = -1.0
            for source in range(1, number):
                layer.get_parameter("conv1.weight")[:, 2 * source + 1 : 2 * source + 3] = source + 1.0
    return made


def test_heat_map_is_the_mean_absolute_weight_of_each_source() -> None:
    (heat,) = heat_maps(block())
    nan = np.nan
    np.testing.assert_array_equal(heat, [[1.0, 1.0, 1.0], [nan, 2.0, 2.0], [nan, nan, 3.0]])


def test_cut_leaves_the_map_right_before_and_is_mended() -> None:
    made = block()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    with cut(far(made)):
        (heat,) = heat_maps(made)
    nan = np.nan
    np.testing.assert_array_equal(heat, [[1.0, 0.0, 0.0], [nan, 2.0, 0.0], [nan, nan, 3.0]])
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())


def test_cut_network_does_not_hear_the_input_in_later_layers() -> None:
    made = block().eval()
    x, other = torch.randn(1, 3, 4, 4), torch.randn(1, 3, 4, 4)
    first = made["layer1"]([x])
    with cut(far(made)):
        assert torch.equal(made["layer2"]([x, first]), made["layer2"]([other, first]))
    assert not torch.equal(made["layer2"]([x, first]), made["layer2"]([other, first]))


def test_the_networks_of_the_paper_are_counted() -> None:
    # Exact counts: 769,162 against 10,327,706, and 20,013,928 against 44,549,160.
    notes = [fact.note for fact in published_facts()]
    assert notes[0].startswith("769,162 and 10,327,706;")
    assert notes[1].startswith("20,013,928 and 44,549,160;")
    assert all(fact.verdict is Verdict.HOLDS for fact in published_facts())
