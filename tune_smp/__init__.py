"""tune-smp: the best segmentation model that this data and this much compute can give."""

import os

from tune_smp.importing import leave_working_folder

leave_working_folder()  # before anything else is imported

from pathlib import Path  # noqa: E402  see above

# OpenMP's threads spin while they wait, so that torch on cores it must share is 6 to 12 times slower than need be. Read
# when torch is loaded, in this process and in the workers, which inherit it: set before any road leads there.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_PACKAGE = Path(__file__).resolve().parent
# Inside the installed package; beside it in a working copy. Read from the file and not from the metadata of what is
# installed: a working copy need not be installed, and importlib.metadata costs 35 ms.
_VERSION_FILE = next(path for path in (_PACKAGE / "VERSION", _PACKAGE.parent / "VERSION") if path.is_file())

__version__ = _VERSION_FILE.read_text(encoding="utf-8").strip()
