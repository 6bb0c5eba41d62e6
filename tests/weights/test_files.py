"""Weight files: what is read, what is refused, and that nothing runs."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from convatlas.weights import WeightsError, read_safetensors_metadata, read_weights, write_safetensors

TENSORS = {"a.weight": torch.arange(24.0).reshape(2, 3, 2, 2), "a.count": torch.tensor(7)}


class RunsOnLoading:
    """Pickled, it asks to run a command that leaves a file."""

    def __init__(self, trace: Path, call: object = os.system) -> None:
        self.trace = trace
        self.call = call

    def __reduce__(self) -> tuple[object, tuple[str]]:
        if self.call is os.system:
            return os.system, (f"touch {self.trace}",)
        return eval, (f"open({str(self.trace)!r}, 'w').close()",)


def write(path: Path, kind: str) -> Path:
    if kind == "safetensors":
        write_safetensors(path, TENSORS)
    else:
        torch.save(TENSORS, path, _use_new_zipfile_serialization=kind == "zip")
    return path


@pytest.mark.parametrize("kind", ["safetensors", "zip", "pickle"])
def test_formats_are_told_by_content(tmp_path: Path, kind: str) -> None:
    read = read_weights(write(tmp_path / "weights.bin", kind))
    assert read.keys() == TENSORS.keys()
    assert all(torch.equal(read[key], TENSORS[key]) for key in TENSORS)


@pytest.mark.parametrize("call", [os.system, eval], ids=["os.system", "eval"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "pickle"])
def test_a_malicious_file_is_refused_and_does_not_run(tmp_path: Path, call: object, zipped: bool) -> None:
    trace, path = tmp_path / "trace", tmp_path / "evil.pth"
    content = {"weight": torch.ones(2), "x": RunsOnLoading(trace, call)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    asked = r"\w+\.system" if call is os.system else "eval"
    with pytest.raises(
        WeightsError, match=rf"evil\.pth: refused, because it asks to run `{asked}`"
    ) as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)
    assert not trace.exists()


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_bare_malicious_pickle_is_refused(tmp_path: Path, protocol: int) -> None:
    trace, path = tmp_path / "trace", tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps(RunsOnLoading(trace), protocol=protocol))
    with pytest.raises(WeightsError, match=r"evil\.pkl: refused, because"):
        read_weights(path)
    assert not trace.exists()


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "net.pth")
    with pytest.raises(
        WeightsError, match=r"refused, because it asks to run `torch\.nn\.modules\.linear\.Linear`"
    ):
        read_weights(tmp_path / "net.pth")


@pytest.mark.parametrize("kind", ["safetensors", "zip", "pickle"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_truncated_file_is_called_so(tmp_path: Path, kind: str, share: float) -> None:
    path = write(tmp_path / "weights", kind)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(WeightsError, match="truncated or damaged") as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)


def test_other_content_is_named(tmp_path: Path) -> None:
    (tmp_path / "page").write_text("<html>not found</html>")
    with pytest.raises(WeightsError, match="neither a safetensors nor a torch file"):
        read_weights(tmp_path / "page")
    with pytest.raises(WeightsError, match="cannot be read: No such file"):
        read_weights(tmp_path / "absent")
    torch.save([torch.ones(1)], tmp_path / "list")
    with pytest.raises(WeightsError, match="holds a list; expected tensors by name"):
        read_weights(tmp_path / "list")
    torch.save({"state_dict": dict(TENSORS), "epoch": 3}, tmp_path / "nested")
    with pytest.raises(WeightsError, match=r"it also holds state_dict \(dict\), epoch \(int\)"):
        read_weights(tmp_path / "nested")


def test_metadata_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_safetensors(path, TENSORS, {"network": "lenet5", "note": "é"})
    assert read_safetensors_metadata(path) == {"network": "lenet5", "note": "é"}
    with pytest.raises(WeightsError, match="a torch file, which has no metadata"):
        read_safetensors_metadata(write(tmp_path / "w.pth", "zip"))
    with pytest.raises(WeightsError, match=r"`metadata`\['epoch'\]=3; safetensors headers hold text only"):
        write_safetensors(path, TENSORS, {"epoch": 3})  # type: ignore[dict-item]


def test_writing_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.safetensors"
    write_safetensors(path, TENSORS)
    before = path.read_bytes()

    def fail(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_safetensors(path, {"b": torch.zeros(3)})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_any_memory_format_is_written(tmp_path: Path) -> None:
    x = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    write_safetensors(tmp_path / "w", {"x": x, "transposed": x[0, 0].t()})
    read = read_weights(tmp_path / "w")
    assert torch.equal(read["x"], x)
    assert torch.equal(read["transposed"], x[0, 0].t())


def test_equal_weights_make_equal_files(tmp_path: Path) -> None:
    facts = {letter: letter for letter in "hgfedcba"}
    for i in range(4):
        write_safetensors(tmp_path / str(i), TENSORS, dict(sorted(facts.items(), reverse=i % 2 == 0)))
    assert len({(tmp_path / str(i)).read_bytes() for i in range(4)}) == 1
    assert read_safetensors_metadata(tmp_path / "0") == facts
