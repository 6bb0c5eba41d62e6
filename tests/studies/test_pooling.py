"""The order of activation and pooling, computed; the verdict on made-up errors; the study on a few digits."""

import pytest
import torch

from convatlas.models.registry import create_model
from convatlas.studies.learning.pooling import activations, make_lenet, order_difference


def test_the_mean_behind_the_activation_is_the_lenet_of_the_registry() -> None:
    ours, theirs = make_lenet("mean", "before").eval(), create_model("lenet5").eval()
    names = {
        f"stages.{i}.0.{what}": f"stages.{i}.0.conv.{what}" for i in (0, 1) for what in ("weight", "bias")
    }
    own = theirs.state_dict()
    ours.load_state_dict({name: own[names.get(name, name)] for name in ours.state_dict()})
    x = torch.randn(2, 1, 32, 32)
    assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize(("kind", "same"), [("max", True), ("mean", False)])
def test_only_with_a_maximum_the_order_makes_no_difference(kind: str, same: bool) -> None:
    assert (order_difference(kind, seed=3) == 0.0) is same


def test_activations_by_hand() -> None:
    assert activations("before") == 6 * 28 * 28 + 16 * 10 * 10
    assert activations("behind") == 6 * 14 * 14 + 16 * 5 * 5
