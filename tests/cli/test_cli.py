import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convatlas.cli import main


def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["convatlas", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    shown = capsys.readouterr()
    return int(end.value.code or 0), shown.out, shown.err


def digit(path: Path) -> Path:
    pixels = np.full((60, 60), 255, dtype=np.uint8)
    pixels[10:50, 27:33] = 0
    Image.fromarray(pixels).save(path)
    return path


def test_predict_for_people_and_for_machines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lenet_run: Path
) -> None:
    image = digit(tmp_path / "one.png")
    code, shown, _ = run(capsys, monkeypatch, "predict", str(lenet_run), str(image))
    assert code == 0
    assert shown.startswith(f"{image}: 1 ")
    assert shown.count("%") == 3
    code, shown, _ = run(capsys, monkeypatch, "predict", str(lenet_run), str(image), "--json", "--top", "2")
    prediction = json.loads(shown)
    assert code == 0
    assert prediction["image"] == str(image)
    assert [set(entry) for entry in prediction["top"]] == [{"class", "probability"}] * 2
    assert prediction["top"][0]["class"] == "1"


@pytest.mark.parametrize("flag", [(), ("--json",)], ids=["people", "machines"])
def test_good_images_are_predicted_among_bad_ones(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    lenet_run: Path,
    flag: tuple[str, ...],
) -> None:
    bad, good, gone = tmp_path / "bad.png", digit(tmp_path / "one.png"), tmp_path / "gone.png"
    bad.write_text("no image")
    code, shown, errors = run(
        capsys, monkeypatch, "predict", str(lenet_run), *map(str, (bad, good, gone)), *flag
    )
    assert code == 2
    if flag:
        records = [json.loads(line) for line in shown.splitlines()]
        assert ["error" in record for record in records] == [True, False, True]
    else:
        assert shown.startswith(f"{good}: 1 ")
        assert len(shown.splitlines()) == 1
        assert [line.startswith("convatlas: ") for line in errors.splitlines()] == [True, True]
        assert f"{gone}: no such file" in errors


def test_list_shows_sizes(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, shown, _ = run(capsys, monkeypatch, "list", "lenet5*")
    assert code == 0
    rows = [line.split()[:6] for line in shown.splitlines()[1:]]
    assert rows == [
        ["lenet5", "1998", "5", "61.7k", "417k", "32"],
        ["lenet5_1998", "1998", "4", "60k", "326k", "32"],
    ]


def test_list_takes_conditions(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    words = "list --tag residual --year 2015..2015 --max-params 30M --max-macs 4.5G --sort macs".split()
    code, shown, _ = run(capsys, monkeypatch, *words)
    assert code == 0
    found = [line.split()[0] for line in shown.splitlines()[1:]]
    assert "resnet50_v1_5" in found
    assert "resnet101_v1_5" not in found
    assert found.index("resnet20_cifar") < found.index("resnet18")


def test_show(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, shown, _ = run(capsys, monkeypatch, "show", "resnet50")
    assert code == 0
    assert "Deep Residual Learning for Image Recognition" in " ".join(shown.split())
    code, shown, _ = run(capsys, monkeypatch, "show", "resnet50", "--json")
    assert json.loads(shown)["name"] == "resnet50_v1_5"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["train", "lenet6"], "unknown network 'lenet6'; nearest: lenet5", id="network"),
        pytest.param(
            ["train", "lenet5", "--data", "digit"], "unknown data set 'digit'; nearest: digits", id="data"
        ),
        pytest.param(
            ["train", "lenet5", "--set", "epoch=3"],
            "no field `epoch` (received 3); nearest: epochs",
            id="field",
        ),
        pytest.param(["train", "lenet5", "--set", "epochs"], "expected FIELD=VALUE", id="set"),
        pytest.param(["train", "lenet5", "--seed", "x"], "--seed", id="type"),
        pytest.param(["train"], "no network is named; expected a name", id="no-network"),
        pytest.param(["predict", "nowhere", "a.png"], "nowhere: no such run folder", id="run"),
        pytest.param(["trian", "lenet5"], "trian", id="command"),
        pytest.param(["show", "lenet"], "unknown network 'lenet'; nearest: lenet5", id="show"),
        pytest.param(["list", "nosuch*"], "no network fits", id="list"),
        pytest.param(["list", "--tag", "residul"], "unknown tag 'residul'; nearest: residual", id="tag"),
        pytest.param(["list", "--year", "15"], "expected a year or a range", id="year"),
        pytest.param(["list", "--max-params", "many"], "expected a number, for example 5M", id="amount"),
        pytest.param(["train", "lenet5", "--sed", "3"], "--sed", id="option"),
    ],
)
def test_bad_input_gets_one_line_and_code_two(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, shown, errors = run(capsys, monkeypatch, *arguments)
    assert (code, shown) == (2, "")
    assert message in errors
    assert len(errors.splitlines()) == 1
    assert errors.startswith("convatlas: ")


def test_no_image(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, lenet_run: Path
) -> None:
    code, _, errors = run(capsys, monkeypatch, "predict", str(lenet_run))
    assert code == 2
    assert "name at least one image" in errors


def test_debug_shows_where_an_error_comes_from(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "convatlas", "train", "lenet6"]
    plain = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    debug = subprocess.run([*command, "--debug"], capture_output=True, text=True, cwd=tmp_path)
    assert plain.returncode == 2
    assert "Traceback" not in plain.stderr
    assert "Traceback" in debug.stderr
    assert "unknown network 'lenet6'" in debug.stderr


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]], ids=["nothing", "short", "long"])
def test_the_overview_names_every_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    from convatlas.cli import COMMANDS

    code, shown, _ = run(capsys, monkeypatch, *arguments)
    assert code == 0
    for name in COMMANDS:
        assert f"  {name} " in shown
        code, help_text, _ = run(capsys, monkeypatch, name, "--help")
        assert code == 0
        assert f"Usage: convatlas {name}" in help_text


def test_version(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import convatlas

    assert run(capsys, monkeypatch, "--version") == (0, f"{convatlas.__version__}\n", "")


def test_list_without_conditions(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from convatlas import list_models

    code, shown, _ = run(capsys, monkeypatch, "list")
    assert code == 0
    assert [line.split()[0] for line in shown.splitlines()[1:]] == list_models()
