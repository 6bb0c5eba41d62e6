"""What several test files share."""

import os
from pathlib import Path

import pytest

# Before torch is imported: the tests run in several processes, each of which needs one core only.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def lenet_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a LeNet-5 trained on the digits by its own recipe."""
    from convatlas import train

    return train("lenet5", data="digits", seed=0, out=tmp_path_factory.mktemp("runs")).folder
