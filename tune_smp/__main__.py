"""``python -m tune_smp`` is the same program as ``tune-smp``."""

from tune_smp.cli import main

raise SystemExit(main())
