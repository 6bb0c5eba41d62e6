"""Copies the report of a study that was run here, with its pictures, into docs/studies.

./run python scripts/publish_study.py NAME [--preset quick] [--out studies]
"""

import argparse
import shutil
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs" / "studies"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--out", type=Path, default=Path("studies"), help="as `convatlas study run` had it")
    arguments = parser.parse_args()
    folder = arguments.out / arguments.name / arguments.preset
    text = (folder / "report.md").read_text(encoding="utf-8")
    for picture in sorted(folder.glob("*.png")):
        ours = picture.stem.startswith(arguments.name)
        named = picture.name if ours else f"{arguments.name}-{picture.name}"
        text = text.replace(f"({picture.name})", f"({named})")
        shutil.copyfile(picture, DOCS / named)
    (DOCS / f"{arguments.name}.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
