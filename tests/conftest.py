"""What several test files share."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest

# Before torch is imported: the tests run in several processes, each of which needs one core only.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What is kept between runs (indices of folders, profiles, choices of engines) goes where nobody keeps it.
CACHE = tempfile.mkdtemp(prefix="convatlas-tests-")
os.environ["XDG_CACHE_HOME"] = CACHE
atexit.register(shutil.rmtree, CACHE, ignore_errors=True)


@pytest.fixture(scope="session")
def lenet_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a LeNet-5 trained on the digits by its own recipe."""
    from convatlas import train

    return train("lenet5", data="digits", seed=0, out=tmp_path_factory.mktemp("runs")).folder
