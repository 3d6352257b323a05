"""The house: which module may import which, who alone touches the giants, and how long things may grow.

Floors and fences count every import, also inside functions and under ``if TYPE_CHECKING``: to name a type of an upper
floor is to know that floor. What is loaded *at import time* is asked of Python itself, in a fresh process.
"""

from __future__ import annotations

import ast
import doctest
import itertools
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "tune_smp"

# From the ground up. A room is a sub-package or a module of the package; rooms of one floor don't know each other.
FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "importing", "openmp", "texts", "writing"}),
    frozenset({"choices"}),
    frozenset({"settings"}),
    frozenset({"data", "manifests"}),
    frozenset({"training"}),
    frozenset({"tuning", "results"}),
    frozenset({"inference"}),
    frozenset({"workflows"}),
    frozenset({"api", "demo"}),
    frozenset({"cli"}),
)
FREE = frozenset({"__init__", "__main__"})  # the package's face and the door

# Library → the one place that may import it, a room or a module; or one that reads and one that writes.
FENCES: dict[str, str | tuple[str, ...]] = {
    "ray": "tuning",
    "optuna": "tuning",
    "segmentation_models_pytorch": "training",
    "timm": "training",
    "bfio": "data.reading.images",
    "filepattern": "data.pairing.patterns",
    "matplotlib": "results.report",
    "ruamel": ("tuning.space_file", "manifests.yaml_text"),
}

# Loaded by --help and by every usage error: torch (seconds) and its friends must not come along.
LIGHT_ROOMS = ("errors", "choices", "settings", "manifests", "workflows", "api", "demo", "cli")
# Numpy alone: decoding processes and usage checks import these.
LIGHT_DATA = (
    "pairing.collection",
    "reading.image_reader",
    "reading.images",
    "labels",
    "normalization",
    "opening",
    "preprocessing",
    "split",
    "store.image_store",
    "tiles",
    "synthetic",
)
# A usage error in a search space answers before torch, Ray and Optuna are loaded.
LIGHT_TUNING = (
    "space",
    "space_file",
    "space_checks",
    "trial_record",
    "ledger",
    "listeners",
    "lines",
    "space_records",
    "space_values",
)
HEAVY = ("torch", "torchvision", "segmentation_models_pytorch", "timm", "ray", "optuna")

FORBIDDEN_NAMES = frozenset({"utils", "util", "helpers", "helper", "common", "misc"})
LONGEST_FILE = 400
LONGEST_FUNCTION = 60


def module_name(path: Path) -> str:
    """``data.tiles`` for ``tune_smp/data/tiles.py``; a package's own name for its ``__init__``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    if len(parts) > 1 and parts[-1] == "__init__":
        parts = parts[:-1]
    return ".".join(parts)


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package by its dotted name below ``tune_smp``, parsed."""
    return {module_name(path): ast.parse(path.read_text("utf-8"), str(path)) for path in sorted(PACKAGE.rglob("*.py"))}


def room(module: str) -> str:
    return module.split(".", maxsplit=1)[0]


def imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names of all that a module imports, wherever it stands; ``from a import b`` gives ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative imports hide the floor"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).endswith(("import_module", "__import__"))
            and node.args
        ):
            yield ast.literal_eval(node.args[0]) if isinstance(node.args[0], ast.Constant) else "computed"


def own_imports(module: str) -> set[str]:
    """The modules of this package that ``module`` imports."""
    below = (name.removeprefix("tune_smp.") for name in imported(modules()[module]) if name.startswith("tune_smp."))
    return {found for name in below if (found := owner(name)) is not None}


def owner(name: str) -> str | None:
    """The module that ``name`` is or lies in: ``data.tiles.windows`` → ``data.tiles``; None for ``__version__``."""
    if name in modules():
        return name
    parent = name.rpartition(".")[0]
    return parent if parent in modules() else None


def floor(module: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room(module) in rooms)


def placed() -> list[str]:
    """Modules that have a floor."""
    return [module for module in modules() if module not in FREE]


def test_the_package_is_found() -> None:
    assert {"errors", "__init__"} <= set(modules())


def test_every_module_has_a_floor() -> None:
    known = frozenset().union(*FLOORS)
    assert not [module for module in placed() if room(module) not in known]


@pytest.mark.parametrize("module", placed())
def test_imports_go_down_or_stay_in_the_room(module: str) -> None:
    upward = [name for name in own_imports(module) if room(name) != room(module) and floor(name) >= floor(module)]
    assert not upward, f"{module} imports {upward}"


def test_no_circles() -> None:
    graph = {module: own_imports(module) for module in modules()}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " → ".join((*path[path.index(module) :], module))
        if module not in done:
            for name in sorted(graph[module]):
                visit(name, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("module", list(modules()))
def test_fences(module: str) -> None:
    for name in imported(modules()[module]):
        allowed = FENCES.get(room(name))
        places = (allowed,) if isinstance(allowed, str) else allowed or (module,)
        assert any(f"{module}.".startswith(f"{place}.") for place in places), f"{module} imports {name}"


# From the command line to the loop over batches. Ray stands between run_trials and step, Tune's own loop.
PATH = (
    ("cli", "main"),
    ("cli", "_train"),
    ("workflows.road", "train"),
    ("workflows.road", "run_task"),
    ("tuning.tuner", "run_trials"),
    ("tuning.trainable", "step"),
    ("training.run", "run_epoch"),
    ("training.run", "_train_epoch"),
)


def test_from_main_to_the_batch_loop_in_eight_functions_and_five_files() -> None:
    functions = {
        (module, node.name): node
        for module in dict(PATH)
        for node in ast.walk(modules()[module])
        if isinstance(node, ast.FunctionDef)
    }
    assert len({name for _, name in PATH}) == len(PATH) == 8
    assert len(dict(PATH)) == 5
    for (module, name), (_, following) in itertools.pairwise(PATH):
        called = {
            node.attr if isinstance(node, ast.Attribute) else node.id
            for node in ast.walk(functions[module, name])
            if isinstance(node, ast.Attribute | ast.Name)
        }
        through_a_table = {"main": "_chosen", "run_trials": "_tuner"}.get(name)
        assert (through_a_table or following) in called, f"{name} does not lead to {following}"
    (loop,) = (node for node in ast.walk(functions["training.run", "_train_epoch"]) if isinstance(node, ast.For))
    assert "training" in ast.unparse(loop.iter)


def test_worked_examples_are_true() -> None:
    from tune_smp.data import split

    failed, run = doctest.testmod(split)
    assert (failed, run) == (0, 1)


PRIVATE_RAY = re.compile(r"\bray\._(?!_)|\bray\.core\b")


def test_private_names_of_ray_stand_in_one_module() -> None:
    users = {path.stem for path in PACKAGE.rglob("*.py") if PRIVATE_RAY.search(path.read_text("utf-8"))}
    assert users == {"ray_private"}


def test_no_computed_imports() -> None:
    assert not [module for module, tree in modules().items() if "computed" in set(imported(tree))]


def test_light_rooms_load_nothing_heavy() -> None:
    light = [module for module in placed() if room(module) in LIGHT_ROOMS]
    light += [f"data.{name}" for name in LIGHT_DATA if f"data.{name}" in modules()]
    light += [f"tuning.{name}" for name in LIGHT_TUNING]
    # One process for all is fast; were something heavy found, the message tells after which module it came.
    program = f"""
import importlib, sys
for name in {light!r}:
    importlib.import_module("tune_smp." + name)
    heavy = [library for library in {HEAVY!r} if library in sys.modules]
    if heavy:
        sys.exit(f"importing {{name}} loads {{heavy}}")
"""
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=PACKAGE.parent
    )
    assert finished.returncode == 0, finished.stderr


def test_no_drawer_for_things_without_an_owner() -> None:
    assert not [module for module in modules() if FORBIDDEN_NAMES & set(module.split("."))]


def test_files_stay_readable() -> None:
    lengths = {
        str(path.relative_to(PACKAGE)): len(path.read_text("utf-8").splitlines()) for path in PACKAGE.rglob("*.py")
    }
    assert not {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE}


def test_functions_stay_readable() -> None:
    lengths = {
        f"{module}.{node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for module, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert not {name: lines for name, lines in lengths.items() if lines > LONGEST_FUNCTION}


def test_every_module_says_what_it_is_for() -> None:
    assert not [module for module, tree in modules().items() if not (ast.get_docstring(tree) or "").strip()]
