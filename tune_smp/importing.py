"""The import path of the program and all that it starts: what is installed, and this very package.

Python looks for modules in the working folder too: ``python -m`` and ``python -c`` put it first, an empty or relative
entry of PYTHONPATH means it, and Ray adds it and the script's folder to its workers' path. A folder of data is no place
for code: a ``torch/`` or ``random.py`` that lies there would be run. An absolute folder on PYTHONPATH is the user's own
wish, and stays.

Nothing but what Python has in itself is imported here at import time: it is read before the path is clean.
"""

# pathlib would be one of these imports.
# ruff: noqa: PTH100, PTH109, PTH117, PTH118, PTH119, PTH120

import os
import sys

SAFE_PATH = "PYTHONSAFEPATH"
PYTHONPATH = "PYTHONPATH"
PACKAGE = os.path.dirname(os.path.abspath(__file__))
"""The folder of this package."""

# For python -c: this very package as tune_smp, wherever it lies, and whatever else has that name.
LOAD_PACKAGE = (
    "import importlib.util, sys; _spec = importlib.util.spec_from_file_location('tune_smp', sys.argv[1]); "
    "_package = sys.modules['tune_smp'] = importlib.util.module_from_spec(_spec); _spec.loader.exec_module(_package); "
)
_FIND_PACKAGE = "import importlib.util; print(importlib.util.find_spec('tune_smp').origin)"


def leave_working_folder() -> None:
    """Take the working folder off this process's path where it is there by accident, and off that of its children.

    For the program alone: a script of somebody's own, which uses the Python API, keeps its path.
    """
    if not _is_own_program():
        return
    if sys.argv[0] == "-m" and not sys.flags.safe_path and sys.path[:1] == [os.getcwd()]:
        del sys.path[0]
    meant = os.environ.get(PYTHONPATH, "").split(os.pathsep)
    for entry in (os.path.abspath(entry) for entry in meant if not os.path.isabs(entry)):
        if entry in sys.path and entry not in meant:
            sys.path.remove(entry)
    os.environ.update(python_environment())


def _is_own_program() -> bool:
    """Whether this process was started as ``tune-smp`` or ``python -m tune_smp``, not by a script of somebody's own."""
    if sys.argv[:1] == ["-m"]:  # so it reads until the module is found; its name stands before its arguments
        module = sys.orig_argv[-len(sys.argv)].removeprefix("-m")
        return module.partition(".")[0] == "tune_smp"
    return os.path.basename(sys.argv[0] if sys.argv else "") == "tune-smp"


def python_environment() -> dict[str, str]:
    """Return what to add to the environment of a Python process, so that it leaves the working folder alone."""
    meant = [entry for entry in os.environ.get(PYTHONPATH, "").split(os.pathsep) if os.path.isabs(entry)]
    # An empty PYTHONPATH is as good as none.
    return {SAFE_PATH: "1", **({PYTHONPATH: os.pathsep.join(meant)} if PYTHONPATH in os.environ else {})}


def python_command(code: str) -> list[str]:
    """A Python process that runs ``code``, which finds this very package as ``tune_smp``.

    To be started with ``python_environment`` added to its environment.
    """
    return [sys.executable, "-c", LOAD_PACKAGE + code, os.path.join(PACKAGE, "__init__.py")]


def is_installed() -> bool:
    """Whether any Python process of this environment finds this very package by itself; costs 20 ms outside of
    site-packages."""
    if os.path.basename(os.path.dirname(PACKAGE)) in ("site-packages", "dist-packages"):
        return True
    import subprocess  # noqa: PLC0415  see the module's docstring

    found = subprocess.run(
        [sys.executable, "-c", _FIND_PACKAGE],
        env={**os.environ, **python_environment()},
        capture_output=True,
        text=True,
        check=False,
    )
    return found.returncode == 0 and os.path.realpath(found.stdout.strip()) == os.path.realpath(
        os.path.join(PACKAGE, "__init__.py")
    )
