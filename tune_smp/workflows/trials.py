"""The trials of a search: connect to Ray, share it out, open the study, run, and keep the folder up to date."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tune_smp.choices.states import trial_state
from tune_smp.errors import Problem, SettingsError
from tune_smp.results.folder import RunFolder, write_text
from tune_smp.results.history import History
from tune_smp.results.leaderboard import write_trials
from tune_smp.search.outcome import TrialRecord
from tune_smp.search.space import SearchSpace
from tune_smp.settings.search import SearchSettings
from tune_smp.workflows.preparation import PreparedData, console, say_stopping, tell

if TYPE_CHECKING:
    from tune_smp.search.cluster import Node, Resources
    from tune_smp.search.live_table import SearchProgress
    from tune_smp.search.shares import TrialShare
    from tune_smp.search.study import AskedTrial, Study
    from tune_smp.search.trainable import TrialConfig

logger = logging.getLogger(__name__)

# How often trials.csv follows a search that is under way.
TABLE_EVERY_S = 5.0
# How often a cluster's nodes are counted.
NODES_EVERY_S = 5.0


def run_trials(
    settings: SearchSettings, space: SearchSpace, folder: RunFolder, data: PreparedData
) -> tuple[str, Study]:
    """Run the trials; how that ended (completed, out_of_time, interrupted), and the study that knows all about them."""
    from tune_smp.search.cluster import Dashboard, connected_ray  # noqa: PLC0415  ray takes half a second to import
    from tune_smp.search.live_table import SearchProgress  # noqa: PLC0415
    from tune_smp.search.pruning import build_scheduler, default_grace_period  # noqa: PLC0415
    from tune_smp.search.search_tuner import SearchPlan, run_search  # noqa: PLC0415

    dashboard = Dashboard(settings.dashboard_host, settings.dashboard_port) if settings.dashboard else None
    with connected_ray(settings.address, device=settings.device, dashboard=dashboard) as resources:
        tell(resources.notes)
        share = _share(settings, resources, folder)
        study = _open_study(settings, space, folder, concurrency=share.concurrency)
        if resources.dashboard_url:
            console.print(f"dashboard: {resources.dashboard_url} (its token is in {resources.token})")
        progress = SearchProgress(
            console,
            metric_name=settings.metric_name,
            # With a time budget alone, their number is a limit that nobody asked for.
            num_trials=None if settings.time_budget and not settings.num_trials else settings.planned_trials,
            earlier=[record for record in study.records() if trial_state(record.state).has_ended],
            dashboard_url=resources.dashboard_url,
            time_budget_s=settings.time_budget_s,
        )
        scheduler = build_scheduler(
            settings.scheduler,
            most_epochs=space.most_epochs(),
            grace_period=settings.grace_period or default_grace_period(space),
            reduction_factor=settings.reduction_factor,
        )
        trials = trials_folder(settings, folder)
        plan = SearchPlan(
            trials=settings.planned_trials,
            scheduler=scheduler,
            storage=trials.parent,
            name=trials.name,
            room=_room(settings, share),
            time_budget_s=settings.time_budget_s,
        )
        with progress:
            listener = _FolderKeeper(study, folder, space, progress)
            return run_search(study, plan, _configured(folder, trials, data, share), listener), study


def trials_folder(settings: SearchSettings, folder: RunFolder) -> Path:
    """Where Ray keeps the trials' files: a folder that every node sees."""
    if settings.storage_path is None:
        return folder.trials
    # One folder per search: several may share a storage.
    return settings.storage_path / f"{folder.path.name}-trials"


def _share(settings: SearchSettings, resources: Resources, folder: RunFolder) -> TrialShare:
    """What a trial gets, after a look at whether it can be had."""
    from tune_smp.search.preflight import check_nodes, check_resources  # noqa: PLC0415  imports ray

    share = _share_of(settings, resources.nodes)
    check_resources(resources.nodes, cpus=share.cpus, gpus=share.gpus)
    if settings.address is not None:
        trials = trials_folder(settings, folder)
        trials.mkdir(parents=True, exist_ok=True)
        check_nodes(resources.nodes, readable=[settings.images_folder, settings.labels_folder], storage=trials)
    return share


def _share_of(settings: SearchSettings, nodes: Sequence[Node]) -> TrialShare:
    from tune_smp.search.shares import share_out  # noqa: PLC0415  imports ray

    return share_out(
        nodes,
        cpus=settings.cpus_per_trial,
        gpus=settings.gpus_per_trial,
        most=settings.max_concurrent_trials,
        with_gpu=settings.device != "cpu",
    )


def _room(settings: SearchSettings, share: TrialShare) -> Callable[[], int]:
    """How many trials can run at once: asked again and again, as nodes of a cluster come and go."""
    from tune_smp.search.cluster import live_nodes  # noqa: PLC0415  imports ray

    if settings.address is None:
        return lambda: share.concurrency
    looked_at, found = time.monotonic(), share.concurrency

    def room() -> int:
        nonlocal looked_at, found
        if time.monotonic() - looked_at > NODES_EVERY_S:
            looked_at, found = time.monotonic(), _share_of(settings, live_nodes(settings.device)).concurrency
        return found

    return room


def _open_study(settings: SearchSettings, space: SearchSpace, folder: RunFolder, *, concurrency: int) -> Study:
    """The study in the folder, or a new one that begins with the plain default."""
    from tune_smp.search.first_points import default_values, earlier_values  # noqa: PLC0415  imports optuna
    from tune_smp.search.sampler import build_sampler  # noqa: PLC0415
    from tune_smp.search.study import Study  # noqa: PLC0415

    study = Study(
        folder.study,
        space,
        name=folder.path.name,
        # Another seed after each session: the same would draw the same points again.
        sampler_after=lambda trials: build_sampler(
            settings.sampler, seed=settings.seed + trials, concurrency=concurrency, trials=settings.planned_trials
        ),
    )
    if study.is_new:
        first = [default_values(space)]
        if settings.warm_start is not None:
            first += earlier_values(space, earlier_records(settings.warm_start))
            tell([_warm_start_note(settings.warm_start, fitting=len(first) - 1)])
        study.begin(first)
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
    from tune_smp.search.study import records_in  # noqa: PLC0415  imports optuna

    journal = RunFolder(output_dir).study
    if not journal.is_file():
        fix = "pass the --outputDir of an earlier search"
        raise SettingsError(Problem("there is no search in the folder to start from", f"--warmStart {output_dir}", fix))
    return records_in(journal)


def _configured(
    folder: RunFolder, trials: Path, data: PreparedData, share: TrialShare
) -> Callable[[AskedTrial], TrialConfig]:
    """What a worker is given for a trial; one that an earlier session began goes on from its newest checkpoint."""
    from tune_smp.search.checkpoints import newest_of_trial  # noqa: PLC0415  imports torch
    from tune_smp.search.trainable import TrialConfig  # noqa: PLC0415

    def config(asked: AskedTrial) -> TrialConfig:
        saved = newest_of_trial(trials, asked.number) if asked.curve else None
        return TrialConfig(
            asked.settings.to_json(),
            store=data.store.path,
            split=folder.split,
            start_from=saved.path if saved else None,
            cpus=share.cpus,
            gpus=share.gpus,
            number=asked.number,
        )

    return config


class _FolderKeeper:
    """Keeps histories, logs and trials.csv up to date while the search goes on, and shows what happens."""

    def __init__(self, study: Study, folder: RunFolder, space: SearchSpace, progress: SearchProgress) -> None:
        self._study = study
        self._folder = folder
        self._space = space
        self._progress = progress
        self._histories: dict[int, History] = {}
        self._used: set[int] = set()  # trials whose numbers are in the log
        self._next_table = time.monotonic()
        folder.histories.mkdir(parents=True, exist_ok=True)

    def started(self, number: int, flags: Mapping[str, Any], max_epochs: int) -> None:
        """A trial begins, or goes on from an earlier session."""
        self._histories[number] = History(self._folder.trial_history(number))
        self._progress.started(number, flags, max_epochs)

    def epoch_ended(self, number: int, result: Mapping[str, Any]) -> None:
        """A trial ended an epoch."""
        self._histories[number].add(result)
        if number not in self._used:
            self._used.add(number)
            logger.info("trial %d runs with %s", number, ", ".join(f"{k} {v}" for k, v in result["used"].items()))
        self._progress.epoch_ended(
            number, epoch=result["trial_epoch"], metric=result["metric"], best_metric=result["best_metric"]
        )

    def stopping(self) -> None:
        """Ctrl-C or SIGTERM."""
        say_stopping()

    def requeued(self, number: int) -> None:
        """The worker of a trial died, and the trial goes on from its last checkpoint."""
        self._progress.requeued(number)

    def trial_ended(self, record: TrialRecord, traceback: str) -> None:
        """A trial ended."""
        self._histories.pop(record.number, None)
        if traceback:
            write_text(self._folder.trial_log(record.number), traceback)
        self._progress.trial_ended(record)
        if time.monotonic() >= self._next_table:
            rows = [row.as_row() for row in self._study.records()]
            write_trials(self._folder, rows, searched=self._space.searched)
            self._next_table = time.monotonic() + TABLE_EVERY_S
