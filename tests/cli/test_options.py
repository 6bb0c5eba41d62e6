"""Options that every command shares, and what is said of those that a command does not have."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from convatlas.cli import COMMANDS, main


def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["convatlas", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    shown = capsys.readouterr()
    return int(end.value.code or 0), shown.out, shown.err


# Commands that print a table, at their smallest; RUN is a trained run, and RUNS the folder that it is in.
TABLES = {
    "list": "list lenet*",
    "show": "show lenet5",
    "size": "size lenet5",
    "size --diff": "size --diff lenet5 lenet5_1998",
    "recipe": "recipe list",
    "data": "data digits",
    "runs": "runs RUNS",
    "eval": "eval RUN --data digits",
    "study": "study list",
    "bench": "bench lenet5 --seconds 0 --threads 1",
    "choose": "choose resnet50 vgg16",
    "scale": "scale resnet_cifar --macs 30M",
}


@pytest.fixture
def places(lenet_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return {"RUN": str(lenet_run), "RUNS": str(lenet_run.parent)}


@pytest.mark.parametrize("command", TABLES.values(), ids=TABLES)
def test_every_table_comes_in_every_format(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    places: dict[str, str],
    command: str,
) -> None:
    words = [places.get(word, word) for word in command.split()]
    found = {}
    for form in ("table", "json", "csv", "md", "latex", "html"):
        code, found[form], _ = run(capsys, monkeypatch, *words, "--format", form)
        assert code == 0
    assert json.loads(found["json"])
    first, *rows = csv.reader(io.StringIO(found["csv"]))
    assert rows
    assert {len(row) for row in rows} == {len(first)}
    assert "| --" in found["md"]
    assert found["latex"].rstrip().endswith(r"\end{tabular}")
    assert "<table>" in found["html"]
    assert "<script" not in found["html"]
    # Times differ from one measurement to the next, and others take long.
    if words[0] not in ("bench", "eval", "scale"):
        assert run(capsys, monkeypatch, *words, "--json")[1] == found["json"]
        assert run(capsys, monkeypatch, *words)[1] == found["table"]


def test_two_formats_are_refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, shown, errors = run(capsys, monkeypatch, "list", "--json", "--format", "csv")
    assert (code, shown) == (2, "")
    assert errors == "convatlas: `--json` and `--format csv` are both given; expected one of them\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("list --jsn", "unknown option --jsn of `convatlas list`; nearest: --json"),
        ("size lenet5 --csv", "unknown option --csv of `convatlas size`; write --format csv"),
        ("size lenet5 --recipe x", "--recipe belongs to train"),
        (
            "train lenet5 --learning-rate 1",
            "of `convatlas train`; nearest: --lr; --set NAME=VALUE sets a field",
        ),
        ("train lenet5 --weight-decay=1", "a field of the recipe is set by --set weight_decay=VALUE"),
        ("train lenet5 --augment.flip 1", "a field of the recipe is set by --set augment.flip=VALUE"),
        ("resume x --clip-norm 1", "unknown option --clip-norm of `convatlas resume`; a field of the recipe"),
        ("study list --qqq", "of `convatlas study list`; `convatlas study list --help` lists its options"),
        ("list --format xml", 'Invalid value "xml" for --format. Choose from: "table", "json", "csv"'),
    ],
)
def test_unknown_options_say_what_to_write(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: str, message: str
) -> None:
    code, shown, errors = run(capsys, monkeypatch, *words.split())
    assert (code, shown) == (2, "")
    assert message in errors
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_no_empty_default(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    code, shown, _ = run(capsys, monkeypatch, name, "--help")
    assert code == 0
    assert f"convatlas {name}" in shown
    assert "[default: False]" not in shown
    assert "[default: ()]" not in shown


@pytest.mark.parametrize("name", ["bench", "choose", "scale"])
def test_help_names_every_engine(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from convatlas.engines.request import ENGINES

    shown = run(capsys, monkeypatch, name, "--help")[1]
    # The page's frame is left out, and words that its lines break at a hyphen are put together.
    text = " ".join(shown.replace("│", " ").split()).replace("- ", "-")
    assert set(ENGINES) <= set(re.findall(r"[\w-]+", text))


def test_completion_is_installed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    script = tmp_path / "convatlas.bash"
    words = ("--install-completion", "--shell", "bash", "--output", str(script))
    code, _, _ = run(capsys, monkeypatch, *words)
    assert code == 0
    assert set(COMMANDS) <= set(script.read_text().replace("'", " ").replace('"', " ").split())
    assert "--max-params" in script.read_text()
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_a_command_loads_no_other(tmp_path: Path) -> None:
    program = (
        "import sys; from convatlas.cli import make_app\n"
        "make_app()(['show', 'lenet5'], result_action='return_value')\n"
        "names = {name for name in sys.modules if name.startswith('convatlas.cli.')}\n"
        "assert 'convatlas.cli.show' in names and 'convatlas.cli.train' not in names, names\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)
