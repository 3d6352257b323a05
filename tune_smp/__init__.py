"""tune-smp: the best segmentation model that this data and this much compute can give."""

import os

from tune_smp.importing import leave_working_folder

leave_working_folder()  # before anything else is imported

from pathlib import Path  # noqa: E402  see above
from typing import TYPE_CHECKING, Any  # noqa: E402

from tune_smp.openmp import waiting  # noqa: E402

# Read when torch is loaded, in this process and in the workers, which inherit it: set before any road leads there.
os.environ.update(waiting(os.environ))

_PACKAGE = Path(__file__).resolve().parent
# Inside the installed package; beside it in a working copy. Read from the file and not from the metadata of what is
# installed: a working copy need not be installed, and importlib.metadata costs 35 ms.
_VERSION_FILE = next(path for path in (_PACKAGE / "VERSION", _PACKAGE.parent / "VERSION") if path.is_file())

__version__ = _VERSION_FILE.read_text(encoding="utf-8").strip()

if TYPE_CHECKING:
    from tune_smp.api import Result, check, load, predict, resume, search, train
    from tune_smp.settings.data import DataSettings
    from tune_smp.settings.predict import PredictSettings
    from tune_smp.settings.run import RunSettings
    from tune_smp.settings.search import SearchSettings
    from tune_smp.tuning.listeners import Listener

__all__ = [
    "DataSettings",
    "Listener",
    "PredictSettings",
    "Result",
    "RunSettings",
    "SearchSettings",
    "check",
    "load",
    "predict",
    "resume",
    "search",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import the API when it is asked for: pydantic and rich alone take longer than ``--version`` may."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tune_smp import api  # noqa: PLC0415

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
