"""Depths that the networks of degradation can have."""

import pytest

from convatlas.studies.run import run_study


@pytest.mark.parametrize(
    ("depths", "message"),
    [
        ({"shallow": 21}, r"`shallow`=21; expected 6n \+ 2 layers, near 20"),
        ({"shallow": 56, "deep": 20}, r"`shallow`, `deep`=\[56, 20\]; expected depths that rise"),
    ],
    ids=["no such depth", "falling"],
)
@pytest.mark.parametrize("study", ["degradation", "identity"])
def test_a_depth_that_no_network_has(study: str, depths: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_study(study, out="unused", **depths)
