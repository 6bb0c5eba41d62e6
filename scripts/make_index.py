"""Writes `catalog/index.json`: the computed sizes of every network, for `convatlas list` and `show`.

./run python scripts/make_index.py
"""

import dataclasses

from convatlas.catalog.cards import list_models
from convatlas.catalog.index import INDEX
from convatlas.files import write_json
from convatlas.models.sizes import compute_entry


def main() -> None:
    entries = [compute_entry(name) for name in list_models()]
    write_json(INDEX, [dataclasses.asdict(entry) for entry in entries])
    print(f"{len(entries)} networks")


if __name__ == "__main__":
    main()
