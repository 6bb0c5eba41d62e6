import json
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from convatlas import Predictor
from convatlas.cli import main
from convatlas.predict import job
from convatlas.predict import ray as cluster
from convatlas.predict.ray import ray_runner
from made_images import save_images, small_network, weights_file


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Any]:
    """A Ray cluster of two nodes, both on this machine."""
    # Ray leaves sockets and processes to the garbage collector, in this process and long after the test.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray = pytest.importorskip("ray")
        pytest.importorskip("ray.data")
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}
        nodes = Cluster(initialize_head=True, head_node_args=head)
        nodes.add_node(num_cpus=1, object_store_memory=100 * 2**20)
        ray.init(address=nodes.address, log_to_driver=False, logging_level=logging.ERROR)
        yield ray
        ray.shutdown()
        nodes.shutdown()


@pytest.mark.filterwarnings("ignore")
def test_a_job_on_two_nodes(
    two_nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len([node for node in two_nodes.nodes() if node["Alive"]]) == 2
    monkeypatch.setattr(job, "PART_FILES", 8)
    monkeypatch.setattr(cluster, "CHUNK_FILES", 4)
    monkeypatch.chdir(tmp_path)
    paths = save_images(tmp_path / "photos", 30)
    paths[5].write_text("nothing")
    weights_file(tmp_path / "w.safetensors")
    command = "convatlas predict w.safetensors photos --out predictions.jsonl --cluster ray --batch-size 4"
    monkeypatch.setattr(sys, "argv", command.split())
    with pytest.raises(SystemExit) as exit_code:
        main()
    assert exit_code.value.code == 2
    assert capsys.readouterr().out == "predictions.jsonl: 29 predictions, 1 refused\n"
    found = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    for record, results in zip(
        found, Predictor(small_network(), batch_size=4).predict("photos"), strict=True
    ):
        wanted = results.record()
        assert record["image"] == wanted["image"]
        assert record.get("error") == wanted.get("error")
        for one, other in zip(record.get("top", []), wanted.get("top", []), strict=True):
            assert one["class"] == other["class"]
            assert one["probability"] == pytest.approx(other["probability"], abs=1e-5)


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"clusters are run by Ray: pip install 'ray\[data\]'"):
        ray_runner(Predictor(small_network()))


def test_parts_come_in_one_piece() -> None:
    parts = {2: ["a"] * 100, 5: ["b"]}
    rows = [(2, 64, ["x", "y"]), (5, 0, ["z"]), (2, 0, ["v", "w"])]
    packed = [
        {
            "part": part,
            "start": start,
            "results": json.dumps([{"image": name, "reason": "no"} for name in results]),
        }
        for part, start, results in rows
    ]
    found = [(number, results.image) for number, results in cluster._in_parts(iter(packed), parts)]
    assert found == [(5, "z"), (2, "v"), (2, "w"), (2, "x"), (2, "y")]
