import subprocess
import sys

import pytest

import convatlas


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("import convatlas", id="import"),
        pytest.param("import convatlas; convatlas.list_models()", id="list_models"),
        pytest.param("import convatlas; convatlas.find_card('lenet5')", id="card"),
        pytest.param("from convatlas.cli import main; sys.argv[1:] = ['--help']; main()", id="help"),
        pytest.param("from convatlas.cli import main; sys.argv[1:] = ['list']; main()", id="list"),
    ],
)
def test_needs_no_torch(statement: str) -> None:
    program = f"""
import sys
try:
    {statement}
except SystemExit as end:
    assert not end.code, end.code
heavy = {{"torch", "torchvision", "numpy", "matplotlib", "sklearn", "PIL"}} & set(sys.modules)
assert not heavy, heavy
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", convatlas.__all__)
def test_every_public_name_loads(name: str) -> None:
    assert getattr(convatlas, name) is not None


def test_unknown_attribute() -> None:
    with pytest.raises(AttributeError, match="module 'convatlas' has no attribute 'lenet'"):
        _ = convatlas.lenet
