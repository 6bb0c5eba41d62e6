"""No module imports itself by way of others, imports inside functions and for types alone included."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import convatlas

ROOT = Path(convatlas.__file__).parent

# Modules that still stand in a circle, by room. The list only shrinks.
KNOWN: dict[str, set[str]] = {
    "search": {
        "convatlas.search.algorithms",
        "convatlas.search.optuna_sampler",
        "convatlas.search.surrogate",
    },
    "models": {"convatlas.models.cell_network", "convatlas.models.nasbench201"},
    "training": {"convatlas.training.nonfinite", "convatlas.training.trainer"},
}


def modules(root: Path) -> dict[str, Path]:
    """Dotted name to file, for every module of a package."""
    found: dict[str, Path] = {}
    for file in sorted(root.rglob("*.py")):
        parts = (root.name, *file.relative_to(root).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imported(name: str, file: Path, known: dict[str, Path]) -> Iterator[str]:
    """Modules of the package that a module names in any of its import statements."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                if inner in known or source in known:
                    yield inner if inner in known else source


def graph(root: Path) -> dict[str, set[str]]:
    known = modules(root)
    return {name: set(imported(name, file, known)) - {name} for name, file in known.items()}


def circles(edges: dict[str, set[str]]) -> list[set[str]]:
    """Strongly connected components of more than one node (Tarjan 1972)."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(name: str) -> None:
        number[name] = low[name] = len(number)
        stack.append(name)
        for other in edges[name]:
            if other not in number:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], number[other])
        if low[name] == number[name]:
            group: set[str] = set()
            while name not in group:
                group.add(stack.pop())
            if len(group) > 1:
                found.append(group)

    for name in edges:
        if name not in number:
            visit(name)
    return found


def room_of(name: str) -> str:
    return ".".join(name.split(".")[:2])


def test_no_circle_of_modules() -> None:
    found = circles(graph(ROOT))
    left = [sorted(group) for group in found if not any(group <= known for known in KNOWN.values())]
    assert left == []


def test_known_circles_are_still_there() -> None:
    inside = {name for group in circles(graph(ROOT)) for name in group}
    assert {room: names - inside for room, names in KNOWN.items() if names - inside} == {}


def test_no_two_rooms_import_each_other() -> None:
    edges: dict[str, set[str]] = {}
    for name, others in graph(ROOT).items():
        if name != "convatlas":
            rooms = {room_of(other) for other in others} - {room_of(name), "convatlas"}
            edges.setdefault(room_of(name), set()).update(rooms)
    for rooms in list(edges.values()):
        for room in rooms:
            edges.setdefault(room, set())
    assert circles(edges) == []


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({"a.py": "from . import b", "b.py": "def f():\n    from p.a import x"}, 1, id="late"),
        pytest.param(
            {"a.py": "import p.b", "b.py": "if TYPE_CHECKING:\n    from .a import X"}, 1, id="types alone"
        ),
        pytest.param({"a.py": "from .b import x", "b.py": "from .c import y", "c.py": ""}, 0, id="a chain"),
        pytest.param(
            {"q/__init__.py": "from .a import x", "q/a.py": "from .. import b", "b.py": "import p.q"},
            1,
            id="through a package",
        ),
    ],
)
def test_checker(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    root = tmp_path / "p"
    for name, text in {"__init__.py": "", **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    assert len(circles(graph(root))) == expected
