"""``python -m tune_smp.manifests`` writes every generated file of this repository anew."""

from __future__ import annotations

import sys
from pathlib import Path

from tune_smp.manifests.cwl import cwl
from tune_smp.manifests.ict import ict_yaml
from tune_smp.manifests.tables import flag_table, plugin_table, predict_flag_table, search_flag_table, with_tables
from tune_smp.manifests.wipp import plugin_json

REPOSITORY = Path(__file__).resolve().parents[2]


def generated_files(repository: Path) -> dict[Path, str]:
    """Return what each generated file has to say today. Raises DataError where a marker for a table is missing."""
    flags, guide = repository / "docs" / "flags.md", repository / "docs" / "wipp.md"
    tables = {
        "flags": flag_table(),
        "search-flags": search_flag_table(),
        "predict-flags": predict_flag_table(),
    }
    return {
        repository / "plugin.json": plugin_json(),
        repository / "ict.yaml": ict_yaml(),
        repository / "tune-smp.cwl": cwl(),
        flags: with_tables(flags.read_text("utf-8"), tables, file=flags),
        guide: with_tables(guide.read_text("utf-8"), {"plugin": plugin_table()}, file=guide),
    }


def write_generated_files(repository: Path) -> None:
    """Write those that changed, and say which."""
    for path, text in generated_files(repository).items():
        if not path.is_file() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
            sys.stdout.write(f"wrote {path.relative_to(repository)}\n")


if __name__ == "__main__":
    write_generated_files(REPOSITORY)
