"""Looking at files and at results: check, report."""

from __future__ import annotations

from pathlib import Path

from tune_smp.errors import Problem, SettingsError
from tune_smp.results.folder import RunFolder, claimed, read_json
from tune_smp.results.logs import logged
from tune_smp.settings.data import DataSettings
from tune_smp.settings.run import RunSettings
from tune_smp.settings.search import SearchSettings
from tune_smp.workflows.delivery import write_report
from tune_smp.workflows.preparation import Findings, look_at, reopen
from tune_smp.workflows.printing import output


def check(settings: DataSettings) -> Findings:
    """Read a whole collection and say what is in it. Raises DataError with everything that is wrong with it."""
    found = look_at(settings)
    output.print("no problems found")
    return found


def report(output_dir: Path) -> Path:
    """Write report.html of what is in the folder, anew. Raises SettingsError where no run or search is in it."""
    if not RunFolder(output_dir).is_started():
        raise SettingsError(
            Problem("there is no run in this folder to report on", str(output_dir), "name the --outputDir of a run")
        )
    with claimed(output_dir) as folder, logged(folder.logs, "report"):
        record = read_json(folder.settings)
        kind = SearchSettings if record["command"] == "search" else RunSettings
        settings = kind.from_json(record["settings"])
        write_report(folder, reopen(settings, folder), metric_name=settings.metric_name, device=settings.device)
        output.print(f"report: {folder.report}")
        return folder.report
