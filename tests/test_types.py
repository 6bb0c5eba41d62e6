"""What a type checker says of a user's script."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

from convatlas.training.recipes.recipe import Recipe, RecipeFields

SCRIPT = """\
import convatlas

run = convatlas.train("lenet5", data="digits", epochs=3, lr=0.05, augment={"flip": 0.5})
print(run.test_accuracy, run.folder)
reader = convatlas.load(run, batch_size=8, device="cpu")
for prediction in reader.predict(["digit.png"], top=1):
    if isinstance(prediction, convatlas.Prediction):
        name, share = prediction.top[0]
        print(name.upper(), share + 1.0)
sheet = convatlas.size(convatlas.create_model("resnet50"), 224)
print(sheet.params + sheet.macs)
"""
WRONG = """\
import convatlas

convatlas.train("lenet5", epoch=3)
convatlas.load("runs/lenet5-digits-1", engin="auto")
"""


def test_keywords_of_train_are_the_fields_of_a_recipe() -> None:
    assert set(RecipeFields.__annotations__) == {field.name for field in dataclasses.fields(Recipe)}


def test_a_type_checker_passes_what_is_right_and_finds_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "right.py").write_text(SCRIPT)
    (tmp_path / "wrong.py").write_text(WRONG)
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    found = json.loads(done.stdout)["generalDiagnostics"]
    errors = [(Path(e["file"]).name, e["range"]["start"]["line"] + 1, e["message"]) for e in found]
    assert [(name, line) for name, line, _ in errors] == [("wrong.py", 3), ("wrong.py", 4)], errors
    assert '"epoch"' in errors[0][2] and '"engin"' in errors[1][2]
