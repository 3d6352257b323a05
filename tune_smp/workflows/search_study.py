"""The study of a search: opened, or begun with the points that are tried first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tune_smp.errors import Problem, SettingsError
from tune_smp.results.folder import RunFolder
from tune_smp.settings.search import SearchSettings
from tune_smp.texts import counted
from tune_smp.tuning.space import SearchSpace
from tune_smp.tuning.trial_record import TrialRecord
from tune_smp.workflows.printing import note

if TYPE_CHECKING:
    from tune_smp.tuning.study import Study


def open_study(settings: SearchSettings, space: SearchSpace, folder: RunFolder, *, concurrency: int) -> Study:
    """The study in the folder, or a new one that begins with the plain default and what ``--warmStart`` adds."""
    from tune_smp.tuning.first_points import default_values, earlier_values  # noqa: PLC0415  imports optuna
    from tune_smp.tuning.portfolio import portfolio_values, read_portfolio  # noqa: PLC0415
    from tune_smp.tuning.sampler import build_sampler  # noqa: PLC0415
    from tune_smp.tuning.study import Study  # noqa: PLC0415

    study = Study(
        folder.study,
        space,
        name=folder.path.name,
        # Another seed after each session: the same would draw the same points again.
        sampler_after=lambda trials: build_sampler(
            settings.sampler, seed=settings.seed + trials, concurrency=concurrency
        ),
    )
    if study.is_new:
        first = [default_values(space)]
        if settings.warm_start is not None:
            first += earlier_values(space, earlier_records(settings.warm_start))
            note([_warm_start_note(settings.warm_start, fitting=len(first) - 1)])
        known = portfolio_values(space, read_portfolio(settings.portfolio, space))
        if known:
            configurations = counted(len(known), "configuration")
            note(
                [f"tried early: {configurations} that did well on other collections (--portfolio none leaves them out)"]
            )
        study.begin(first, spared=known)
    return study


def _warm_start_note(output_dir: Path, *, fitting: int) -> str:
    if fitting:
        trials = "the best trial" if fitting == 1 else f"the {fitting} best trials"
        return f"tried first: {trials} of {output_dir} that {'lies' if fitting == 1 else 'lie'} in this space"
    records = earlier_records(output_dir)
    ended_well = sum(record.best_metric is not None for record in records)
    return (
        f"--warmStart changes nothing: of the trials of {output_dir} ({len(records)}, {ended_well} with a result) none "
        "lies in this search space"
    )


def earlier_records(output_dir: Path) -> list[TrialRecord]:
    """The trials of the search in this folder. Raises SettingsError where there is none, DataError if damaged."""
    from tune_smp.tuning.study import records_in  # noqa: PLC0415  imports optuna

    journal = RunFolder(output_dir).study
    if not journal.is_file():
        fix = "pass the --outputDir of an earlier search"
        raise SettingsError(Problem("there is no search in the folder to start from", f"--warmStart {output_dir}", fix))
    return records_in(journal)
