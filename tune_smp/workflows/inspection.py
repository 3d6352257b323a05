"""Looking at files and at results: check, report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tune_smp.data.findings import describe_collection, inspect_split
from tune_smp.errors import Problem, SettingsError
from tune_smp.results.folder import RunFolder, claimed, read_json
from tune_smp.results.logs import logged
from tune_smp.settings.data import DataSettings
from tune_smp.settings.run import RunSettings
from tune_smp.settings.search import SearchSettings
from tune_smp.workflows.delivery import write_report
from tune_smp.workflows.preparation import decode, find, reopen, split
from tune_smp.workflows.printing import note, output


@dataclass(frozen=True, slots=True)
class Findings:
    """What ``check`` found: numbers of pairs and channels, the collection in ``lines``, what is odd in ``notes``."""

    pairs: int
    channels: int
    lines: tuple[str, ...]
    notes: tuple[str, ...]


def check(settings: DataSettings) -> Findings:
    """Read a whole collection and say what is in it. Raises DataError with everything that is wrong with it."""
    collection = find(settings)
    store = decode(settings, collection)
    regions = split(settings, store)
    lines = describe_collection(store, regions)
    for line in lines:
        output.print(line)
    of_split = inspect_split(store, regions)
    note(of_split)
    output.print("no problems found")
    return Findings(len(store), store.channels, lines, (*collection.notes, *store.notes, *of_split))


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
