import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from convatlas.cli import main

MODULE = """
import torch
from torch import nn

net = nn.Linear(4, 2)
word = "no network"

def make_net(width=8):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU())

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, int(torch.linspace(0, 8, 2).max().item()), 3)
    def forward(self, x):
        return self.conv(x)

def needs(width, depth=3):
    return None

def breaks():
    raise KeyError("oh")

def branches_on_data():
    class Gate(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x
    return Gate()
"""


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A current folder with a module of the user's, and no machine profile."""
    (tmp_path / "mynets.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("import nothing_of_that_name")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mynets", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["convatlas", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    shown = capsys.readouterr()
    return int(end.value.code or 0), shown.out, shown.err


def test_a_network_of_the_atlas(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, shown, errors = run(capsys, monkeypatch, "size", "vgg16")
    assert (code, errors) == (0, "")
    assert shown.startswith("vgg16 on 3x224x224, batch 1, float32\n")
    assert "138,357,544" in shown
    assert "15,237,608 values" in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_input_batch_dtype_and_optimizer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = "--input 1,64,64 --batch-size 32 --dtype bf16 --optimizer adamw --json".split()
    code, shown, _ = run(capsys, monkeypatch, "size", "resnet18", *options)
    found = json.loads(shown)
    assert code == 0
    assert found["input_shapes"] == [[32, 1, 64, 64]]
    assert (found["dtype"], found["optimizer"]) == ("bfloat16", "adamw")
    # The stem of torchvision's ResNet-18 has 64 * 3 * 49 weights of 11,689,512 parameters.
    assert found["params"] == 11_689_512 - 64 * 2 * 49
    assert found["training_parts"]["params"] == 2 * found["params"]
    # Two moments and, for each tensor, a step counter in float32: 20 convolutions, 20 norms, one classifier.
    assert found["training_parts"]["optimizer"] == 2 * 2 * found["params"] + 4 * (20 + 2 * 20 + 2)


def test_px_keep_the_channels(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, shown, _ = run(capsys, monkeypatch, "size", "lenet5", "--input", "40")
    assert code == 2 or shown.startswith("lenet5 on 1x40x40")
    code, shown, _ = run(capsys, monkeypatch, "size", "resnet18", "--input", "64")
    assert (code, shown.split(",")[0]) == (0, "resnet18 on 3x64x64")


def test_an_expression_shows_its_arithmetic(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, shown, _ = run(capsys, monkeypatch, "size", "conv 96 11x11 /4, pool 3x3 /2", "--input", "3,227,227")
    assert code == 0
    assert "(227 - 11 + 2*0)/4 + 1 = 55" in shown
    assert "11*11*3 * 96 + 96 = 34,944 parameters" in shown
    assert "(55 - 3 + 2*0)/2 + 1 = 27" in shown


@pytest.mark.parametrize(
    ("subject", "params"),
    [
        pytest.param("mynets:make_net", 224, id="function"),
        pytest.param("mynets:Net", 224, id="class-that-computes"),
        pytest.param("torchvision.models:resnet18", 11_689_512, id="library"),
    ],
)
def test_a_network_of_the_users(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, subject: str, params: int
) -> None:
    code, shown, _ = run(capsys, monkeypatch, "size", subject, "--input", "3,64,64", "--json")
    assert (code, json.loads(shown)["params"]) == (0, params)


def test_a_ready_module_and_a_flat_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, shown, _ = run(capsys, monkeypatch, "size", "mynets:net", "--input", "5,4", "--json")
    assert (code, json.loads(shown)["macs"]) == (0, 5 * 4 * 2)


@pytest.mark.parametrize(
    ("option", "begins"),
    [
        pytest.param("--format csv", "stage,output_shape,params,", id="csv"),
        pytest.param("--format md", "**resnet18** on 3x224x224", id="md"),
        pytest.param("--format latex", "% resnet18 on 3x224x224", id="latex"),
        pytest.param("--format html", "<div><p><strong>resnet18 on", id="html"),
        pytest.param("--json", '{\n  "network": "resnet18"', id="json"),
    ],
)
def test_formats_go_to_files_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, here: Path, option: str, begins: str
) -> None:
    code, shown, _ = run(capsys, monkeypatch, "size", "resnet18", *option.split())
    assert code == 0
    assert shown.startswith(begins)
    assert run(capsys, monkeypatch, "size", "resnet18", *option.split(), "-o", "table") == (0, "", "")
    assert (here / "table").read_text() == shown


def test_layers(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _, stages, _ = run(capsys, monkeypatch, "size", "lenet5")
    _, layers, _ = run(capsys, monkeypatch, "size", "lenet5", "--layers")
    _, formulas, _ = run(capsys, monkeypatch, "size", "lenet5", "--formulas")
    assert "(32 - 5 + 2*0)/1 + 1 = 28" in formulas
    assert "(32 - 5 + 2*0)/1 + 1 = 28" not in layers
    assert "conv2d 5x5" in layers
    assert "conv2d" not in stages
    _, table, _ = run(capsys, monkeypatch, "size", "lenet5", "--layers", "--format", "csv")
    assert "conv2d" in {row["operation"] for row in csv.DictReader(io.StringIO(table))}


@pytest.mark.parametrize(
    "option",
    ["", "--json", "--format csv", "--format md", "--format latex", "--format html", "--format table"],
)
def test_diff(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    code, shown, _ = run(capsys, monkeypatch, "size", "--diff", "vgg16", "resnet50", *option.split())
    assert code == 0
    for number in (138_357_544, 25_557_032):
        assert f"{number}" in shown or f"{number:,}" in shown


def test_time_where_the_machine_was_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from convatlas.sizing import roofline

    monkeypatch.setattr(roofline, "DTYPES", (torch.float32,))
    quick = roofline.calibrate(seconds=0.001)
    monkeypatch.setattr(roofline, "calibrate", lambda device: quick)
    assert "estimate" not in run(capsys, monkeypatch, "size", "lenet5")[1]
    code, shown, _ = run(capsys, monkeypatch, "bench", "--profile-machine")
    assert code == 0
    assert "GMACs/s" in shown
    assert str(roofline.profile_path()) in shown
    assert "s for a forward on this machine (estimate)" in run(capsys, monkeypatch, "size", "lenet5")[1]
    found = json.loads(run(capsys, monkeypatch, "size", "lenet5", "--json")[1])
    assert found["estimated_seconds"] > 0
    # Not measured in this precision: sized all the same.
    code, shown, _ = run(capsys, monkeypatch, "size", "lenet5", "--dtype", "fp64")
    assert code == 0
    assert "estimate" not in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["resnet5"], "unknown network 'resnet5'; nearest: resnet", id="network"),
        pytest.param([], "name a network, MODULE:FUNCTION or an expression", id="nothing"),
        pytest.param(["vgg16", "vgg19"], "2 networks are given; expected one, or --diff", id="two"),
        pytest.param(["vgg16", "--diff"], "--diff is given with one network", id="diff-of-one"),
        pytest.param(
            ["vgg16", "--json", "--format", "csv"], "`--json` and `--format csv` are both given", id="formats"
        ),
        pytest.param(
            ["vgg16", "--input", "3x4"], "`--input`='3x4'; expected px, such as 224, or C,H,W", id="input"
        ),
        pytest.param(["vgg16", "--input", "3,0,4"], "`--input`='3,0,4'; expected px", id="zero"),
        pytest.param(
            ["vgg16", "--input", "16"], "the smallest input that works is (3, 32, 32)", id="too-small"
        ),
        pytest.param(["vgg16", "--batch-size", "0"], "`--batch-size`=0; expected at least 1", id="batch"),
        pytest.param(["vgg16", "--dtype", "int7"], "`--dtype`='int7'; expected one of float32", id="dtype"),
        pytest.param(
            ["vgg16", "--optimizer", "lion"], "`--optimizer`='lion'; expected one of sgd", id="optimizer"
        ),
        pytest.param(["conv 96 11x11"], "an expression needs --input C,H,W", id="expression-input"),
        pytest.param(
            ["conv 96 11x11 x4", "--input", "3,227,227"], "'x4', character 15: conv takes /S", id="expression"
        ),
        pytest.param(["mynets:make_net"], "mynets:make_net needs --input", id="module-input"),
        pytest.param(
            ["gone:net", "--input", "4"], "gone:net: cannot import gone (ModuleNotFoundError", id="module"
        ),
        pytest.param(
            ["broken:net", "--input", "4"], "cannot import broken (ModuleNotFoundError", id="broken"
        ),
        pytest.param(
            ["mynets:gone", "--input", "4"], "no 'gone' there; there is torch, nn, net", id="function"
        ),
        pytest.param(
            ["mynets:word", "--input", "4"], "gives a str; expected a torch.nn.Module", id="no-module"
        ),
        pytest.param(["mynets:needs", "--input", "4"], "needs width; expected a function", id="arguments"),
        pytest.param(["mynets:breaks", "--input", "4"], "mynets:breaks: failed (KeyError: 'oh')", id="fails"),
        pytest.param(["mynets:branches_on_data", "--input", "4"], "__bool__", id="data-dependent"),
        pytest.param(["lenet5", "-o", "gone/table"], "gone", id="no-folder"),
    ],
)
def test_bad_input_gets_one_line_and_code_two(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    code, shown, errors = run(capsys, monkeypatch, "size", *arguments)
    assert (code, shown) == (2, "")
    assert message in errors
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param([], "nothing to measure; expected --profile-machine", id="nothing"),
        pytest.param(["--profile-machine", "--device", "tpu"], "`--device`='tpu'; expected", id="device"),
        pytest.param(["--profile-machine", "--threads", "0"], "`--threads`=0; expected", id="threads"),
    ],
)
def test_bench_refuses(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    code, _, errors = run(capsys, monkeypatch, "bench", *arguments)
    assert code == 2
    assert message in errors


def test_a_damaged_profile_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from convatlas.sizing.roofline import profile_path

    profile_path().parent.mkdir(parents=True)
    profile_path().write_text("{")
    code, _, errors = run(capsys, monkeypatch, "size", "lenet5")
    assert code == 2
    assert "is damaged" in errors


def test_from_a_shell_in_the_users_folder(here: Path) -> None:
    command = [sys.executable, "-m", "convatlas", "size", "mynets:make_net", "--input", "3,8,8"]
    result = subprocess.run(
        command, capture_output=True, text=True, cwd=here, env=os.environ | {"COLUMNS": "40"}
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert "224" in result.stdout
    assert "\033" not in result.stdout


@pytest.mark.parametrize(
    ("settings", "bold"),
    [pytest.param({}, True, id="color"), pytest.param({"NO_COLOR": "1"}, False, id="no-color")],
)
def test_a_terminal_gets_its_width_and_color(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, str],
    bold: bool,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in ({"COLUMNS": "84"} | settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    code, shown, _ = run(capsys, monkeypatch, "size", "resnet50", "--layers")
    assert code == 0
    assert ("\033[1m" in shown) is bold
    plain = shown.replace("\033[1m", "").replace("\033[0m", "").splitlines()
    assert max(map(len, plain)) <= 84
