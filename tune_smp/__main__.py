"""``python -m tune_smp`` is the same program as ``tune-smp``."""

import os
import sys

# Python puts the working folder first on the path: a folder of the name numpy in it would be imported.
if not sys.flags.safe_path and sys.path and os.path.realpath(sys.path[0] or ".") == os.path.realpath("."):
    del sys.path[0]

from tune_smp.cli import main

raise SystemExit(main())
