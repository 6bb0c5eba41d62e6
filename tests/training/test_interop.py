"""docs/interop.md and docs/watching.md: what they show runs, and does what they say."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from convatlas.runs.run import open_run
from made_runs import make_run

DOCS = Path(__file__).parents[2] / "docs"
INTEROP, WATCHING = ((DOCS / name).read_text(encoding="utf-8") for name in ("interop.md", "watching.md"))


def block(text: str, word: str) -> str:
    """The one piece of Python on the page that holds `word`."""
    (found,) = [
        code for code in re.findall(r"^```python\n([\s\S]*?)^```$", text, re.MULTILINE) if word in code
    ]
    return found


def python(folder: Path, *arguments: str) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)}
    process = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


# What timm's train.py does with a model, in its order and with its arguments.
SCRIPT = """
import argparse, json
import torch
from timm.data import resolve_data_config
from timm.models import create_model, safe_model_name
from timm.optim import create_optimizer_v2
from timm.utils import CheckpointSaver, ModelEmaV3

assert __name__ == "__main__"
parser = argparse.ArgumentParser()
parser.add_argument("--model")
parser.add_argument("--num-classes", type=int)
parser.add_argument("--input-size", nargs=3, type=int)
parser.add_argument("--opt", default="sgd")
parser.add_argument("--drop", type=float, default=0.0)
parser.add_argument("--drop-path", type=float)
args = parser.parse_args()
torch.manual_seed(0)
model = create_model(
    args.model, pretrained=False, in_chans=3, num_classes=args.num_classes, drop_rate=args.drop,
    drop_path_rate=args.drop_path, drop_block_rate=None, global_pool=None, bn_momentum=None, bn_eps=None,
    scriptable=False, checkpoint_path="",
)
config = resolve_data_config(vars(args), model=model)
optimizer = create_optimizer_v2(model, opt=args.opt, lr=0.1, weight_decay=1e-4, momentum=0.9)
ema = ModelEmaV3(model, decay=0.9)
images = torch.rand(4, *config["input_size"])
loss = torch.nn.functional.cross_entropy(model(images), torch.arange(4))
loss.backward()
optimizer.step()
ema.update(model)
saver = CheckpointSaver(model=model, optimizer=optimizer, args=args, checkpoint_dir=".", recovery_dir=".")
saver.save_checkpoint(0, metric=50.0)
model.eval()
print(json.dumps({"name": safe_model_name(args.model), "classes": model.num_classes, **config}))

import loading  # the page's last piece for timm; in this process, since timm takes 10 s to import
torch.testing.assert_close(loading.net.eval()(images), model(images))
"""


def test_under_timms_script(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    (tmp_path / "convatlas_timm.py").write_text(block(INTEROP, "register_model"))
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "loading.py").write_text(block(INTEROP, "checkpoint_path"))
    words = "--model convatlas_resnet20_cifar --num-classes 10 --input-size 3 32 32".split()
    config = json.loads(python(tmp_path, "convatlas_timm.py", "script.py", *words))
    assert (config["name"], config["classes"]) == ("convatlas_resnet20_cifar", 10)
    assert config["input_size"] == [3, 32, 32]
    assert config["mean"] == [0.4914, 0.4822, 0.4465]  # CIFAR-10's, as the card has them


def test_under_lightning(tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    code = block(INTEROP, "LightningModule")
    assert "max_epochs=5" in code
    (tmp_path / "classifier.py").write_text(code.replace("max_epochs=5", "max_epochs=1"))
    shown = python(tmp_path, "classifier.py")
    accuracy = re.search(r"^test accuracy ([\d.]+)%$", shown, re.MULTILINE)
    assert accuracy is not None
    assert float(accuracy[1]) > 50.0


def test_a_network_from_timm_in_our_loop(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    code = block(INTEROP, "resnet10t")
    assert "epochs=2" in code
    (tmp_path / "own.py").write_text(code.replace("epochs=2", "epochs=1"))
    python(tmp_path, "own.py")
    run = open_run(tmp_path / "runs" / "ResNet-digits-1")
    assert run.state == "finished"


def test_runs_from_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "runs" / "lenet5-digits-1")
    make_run(tmp_path / "runs" / "lenet5-digits-2", done=1, finished=False)
    monkeypatch.chdir(tmp_path)
    exec(compile(block(WATCHING, "find_runs"), "watching.md", "exec"), {})
    shown = capsys.readouterr().out
    assert "Row(run='lenet5-digits-2'" in shown
    assert "finished 0.9375 {'step': 40" in shown
    assert "Difference(name='result.seconds', first=75.4, second=None)" in shown


def test_metrics_hold_what_the_page_says(lenet_run: Path) -> None:
    said = re.search(r"A line of `metrics.jsonl` holds ([\s\S]*?)\n\n", WATCHING)
    assert said is not None
    names = {name for name in re.findall(r"`(\w+)`", said[1]) if name != "torchrun"}
    last = open_run(lenet_run).metrics()[-1]
    assert names == last.keys()


def test_the_run_folder_holds_what_the_page_says(lenet_run: Path) -> None:
    for name in ("metrics.jsonl", "curves.png", "confusion.png", "hardest.png", "report.md"):
        assert f"`{name}`" in WATCHING
        assert (lenet_run / name).is_file()
