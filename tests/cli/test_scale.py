"""`convatlas scale`, and the plans that it writes in the commands that take them."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from convatlas import create_model, size
from convatlas.cli.bench import bench_command
from convatlas.cli.export import export_command
from convatlas.cli.scale import scale_command
from convatlas.cli.size import size_command
from convatlas.cli.table_format import TableFormat
from convatlas.cli.train import train_command
from convatlas.errors import UnknownNameError
from convatlas.scaling import describe


def test_json_is_a_list_of_plans(capsys: pytest.CaptureFixture[str]) -> None:
    scale_command("resnet20_cifar", macs="60M", rule="width", output=TableFormat(json=True))
    plans = json.loads(capsys.readouterr().out)
    assert plans[0]["rule"] == "width"
    for plan in plans:
        assert {"rule", "network", "overrides", "input_size", "params", "macs", "latency_ms"} <= set(plan)
        with torch.device("meta"):
            sheet = size(create_model(plan["network"], **plan["overrides"]), plan["input_size"])
        assert (sheet.params, sheet.macs) == (plan["params"], plan["macs"])
        assert plan["macs"] <= 60e6
        assert plan["latency_ms"] is None


def test_the_table_says_the_plan_the_other_rules_and_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    scale_command(
        "resnet20_cifar", macs="60M", input="24..40", factors="1.3,1.1,1.1", model=("num_classes=100",)
    )
    shown = capsys.readouterr().out
    assert "train it: convatlas train resnet20_cifar --model depth_mult=" in shown
    assert "rule compound: Tan and Le 2019" in shown
    for rule in ("printed", "fast", "resnet-rs", "depth"):
        assert f"\n{rule} " in shown


def test_a_plan_is_taken_by_every_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "plan.toml"
    scale_command("resnet20_cifar", macs="5M", model=("num_classes=10",), out=file)
    data = tomllib.loads(file.read_text(encoding="utf-8"))
    assert data["network"] == "resnet20_cifar"
    assert data["plan"]["rule"] == "compound"
    net = create_model(file)
    assert sum(p.numel() for p in net.parameters()) == data["plan"]["params"]
    capsys.readouterr()
    size_command(str(file), output=TableFormat(json=True))
    assert json.loads(capsys.readouterr().out)["macs"] == data["plan"]["macs"]
    size_command(model=(str(file), "num_classes=3"), output=TableFormat(json=True))
    assert json.loads(capsys.readouterr().out)["params"] < data["plan"]["params"]
    export_command(model=(str(file),), untrained=True, out=tmp_path / "net.pt2")
    assert (tmp_path / "net.pt2").is_file()
    capsys.readouterr()
    bench_command(str(file), seconds=0.0, output=TableFormat(json=True))
    assert f'"params": {data["plan"]["params"]}' in capsys.readouterr().out


def test_training_by_a_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "plan.toml"
    plan = describe(
        "resnet20_cifar", depth_mult=0.34, width_mult=0.25, input_size=12, overrides={"num_classes": 10}
    )
    file.write_text(plan.to_toml(), encoding="utf-8")
    asked: dict[str, Any] = {}

    def train(network: str, **given: Any) -> None:
        asked.update(given, network=network)
        raise InterruptedError

    monkeypatch.setattr("convatlas.training.train.train", train)
    for call in ({"model": (str(file), "shortcut=B")}, {"network": str(file), "model": ("shortcut=B",)}):
        with pytest.raises(InterruptedError):
            train_command(*([call.pop("network")] if "network" in call else []), **call, out=tmp_path)
        assert asked["network"] == "resnet20_cifar"
        assert asked["model"] == {"depth_mult": 0.34, "width_mult": 0.25, "shortcut": "B"}
        assert asked["input_size"] == 12


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: scale_command("resnet18", macs="1G", out=Path("plan.json")), "a file that ends in .toml"),
        (lambda: scale_command("resnet18", macs="1G", rule="grid"), "`--rule grid` needs --data"),
        (lambda: scale_command("resnet18", macs="1G", data="digits"), "goes with --rule grid alone"),
        (lambda: scale_command("resnet18", macs="1G", input="a..b"), r"expected MIN..MAX in px"),
        (lambda: scale_command("resnet18", macs="1G", factors="1,2"), "expected three numbers"),
        (lambda: scale_command("resnet18", macs="1G", model=("wide",)), "`--model wide`; expected KEY=VALUE"),
        (lambda: size_command("resnet18", model=("other.toml",)), r"other.toml: no such file"),
        (
            lambda: size_command("conv 8 3x3", input="3,8,8", model=("a=1",)),
            "goes with a network of the atlas",
        ),
        (lambda: export_command("resnet18", model=("a=1",), out=Path("a.onnx")), "goes with --untrained"),
        (lambda: train_command(), "no network is named"),
    ],
)
def test_bad_input(call: object, message: str) -> None:
    assert callable(call)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        call()


def test_an_unknown_field_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"resnet18 has no option `widht_mult`.*nearest: width_mult"):
        size_command("resnet18", model=("widht_mult=2",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("network = 3", "`network` is missing or not text"),
        ("input_size = 224", "`network` is missing or not text"),
        ('network = "resnet18"\ninput_size = -1', "`input_size`=-1; expected px"),
        (
            'network = "resnet18"\nwidth = 2',
            "unknown key `width`; a model file has network, input_size, overrides",
        ),
        ('network = "resnet18"\noverrides = 3', "unknown key `overrides`|`overrides`=3; expected a table"),
        ("network", "is no TOML file"),
    ],
)
def test_bad_model_files(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "plan.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        create_model(file)


def test_the_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scale_command("resnet20_cifar", macs="60M", figure=tmp_path / "rules.svg")
    drawn = (tmp_path / "rules.svg").read_text(encoding="utf-8")
    assert drawn.startswith("<?xml")
    with pytest.raises(UnknownNameError, match="unknown form 'gif'"):
        scale_command("resnet20_cifar", macs="60M", figure=tmp_path / "rules.gif")
