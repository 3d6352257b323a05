"""A search: many trials of a space."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from typing_extensions import override

from tune_smp.choices.states import trial_state
from tune_smp.errors import NoTrialSucceededError, Problem, SettingsError, listing
from tune_smp.results.folder import RunFolder
from tune_smp.results.summary import Summary
from tune_smp.settings.command_line import words_for
from tune_smp.settings.run import RunSettings
from tune_smp.settings.search import SearchSettings
from tune_smp.texts import counted
from tune_smp.tuning.ledger import Ledger
from tune_smp.tuning.listeners import Listener
from tune_smp.tuning.space import ENCODER, FLAGS, MODEL, SearchSpace
from tune_smp.tuning.space_checks import check_space
from tune_smp.tuning.space_file import parse_space
from tune_smp.tuning.trial_record import TrialRecord, best_of
from tune_smp.workflows.ensembling import CANDIDATES_PER_MEMBER
from tune_smp.workflows.preparation import PreparedData
from tune_smp.workflows.printing import note, output
from tune_smp.workflows.starting_weights import check_pretrained, fetch_encoder_weights
from tune_smp.workflows.task import Best, Conclusion, Session, Task
from tune_smp.workflows.trials import FolderKeeper, TableKeeper

if TYPE_CHECKING:
    from tune_smp.tuning.checkpoints import SavedRun
    from tune_smp.tuning.cluster import Node, Resources
    from tune_smp.tuning.shares import TrialShare
    from tune_smp.tuning.study import Study
    from tune_smp.tuning.tuner import SearchPlan

# How often a cluster's nodes are counted.
NODES_EVERY_S = 5.0
# What a trial's command line need not say: it does not change the numbers.
NOT_REPRODUCED = ("overwrite", "debug", "dashboard", "dashboardHost", "dashboardPort", "cacheDir")


def stored_space(record: Mapping[str, Any], settings: SearchSettings) -> SearchSpace:
    """The space that settings.json holds: the file may have changed since."""
    return space_under(parse_space(record["space"]["text"], name=record["space"]["name"]), settings)


def with_fixed(settings: SearchSettings, space: SearchSpace) -> SearchSettings:
    """The settings of the search under its space: what it fixes of data, metric, seed and machine is not the trials'
    alone."""
    fixed = {
        FLAGS[flag].field: value
        for flag, value in space.fixed.items()
        if FLAGS[flag].about.group in ("Data", "Machine") or flag in ("metricName", "seed")
    }
    return settings.with_changes(**fixed) if fixed else settings


def with_trial_budget(settings: SearchSettings) -> SearchSettings:
    """The settings with the time of a trial spelled out: it stays as it is when the search is given more time."""
    if settings.trial_budget_s is None or settings.trial_budget is not None:
        return settings
    return settings.with_changes(trial_budget=f"{settings.trial_budget_s:g}s")


def settings_record(settings: SearchSettings, space: SearchSpace) -> dict[str, Any]:
    """Return what settings.json holds: the values under the space, and the flags that the command line gave."""
    return {**with_fixed(settings, space).to_json(), "given": settings.to_json()["given"]}


def space_under(space: SearchSpace, settings: SearchSettings) -> SearchSpace:
    """The space under the command line, checked whole."""
    given = settings.given_run_flags()
    if settings.trial_budget is not None:
        space = space.without_fixed("stepsPerEpoch")  # the time says how many
        given["timeBudget"] = settings.trial_budget
    overridden = [flag for flag in space.searched if flag in given]
    narrowed = space.with_flags(given)
    check_space(narrowed)
    note(f"--{flag} is given: {given[flag]} for every trial, not searched" for flag in overridden)
    return narrowed


def look_at_weights(space: SearchSpace, data: PreparedData) -> None:
    """Everything that trials start from is there, or fetched, before the first one starts."""
    models = {encoder: space.model_for(encoder) for encoder in space.encoder_choices()}
    # Data and weights alone matter here: what else a trial needs stays at its default.
    kept = {name: value for name, value in space.given.items() if FLAGS[name].about.group in ("Data", "Output")}
    kept |= {name: space.given[name] for name in ("pretrainedModel", "replaceHead") if name in space.given}
    settings = [RunSettings.from_flags({**kept, MODEL: models[encoder], ENCODER: encoder}) for encoder in models]
    check_pretrained(settings[0], data.store)
    fetch_encoder_weights(settings)


class SpaceSearch(Task):
    """Many trials of a search space."""

    command = "search"
    settings: SearchSettings

    def __init__(
        self,
        settings: SearchSettings,
        folder: RunFolder,
        data: PreparedData,
        space: SearchSpace,
        *,
        listeners: Sequence[Listener] = (),
    ) -> None:
        super().__init__(settings, folder, data, listeners=listeners)
        self.space = space
        self.address = settings.address

    @property
    def storage(self) -> Path:
        """The folder where Ray keeps the trials' files: one that every node sees."""
        if self.settings.storage_path is None:
            return self.folder.trials
        # One folder per search: several may share a storage.
        return self.settings.storage_path / f"{self.folder.path.name}-trials"

    @override
    def session(self, resources: Resources) -> Session:
        from tune_smp.tuning.checkpoints import BestKept  # noqa: PLC0415  imports torch
        from tune_smp.tuning.display import Display  # noqa: PLC0415
        from tune_smp.tuning.gauges import GaugeKeeper  # noqa: PLC0415  imports ray

        share = self._share(resources)
        study = open_study(self.settings, self.space, self.folder, concurrency=share.concurrency)
        ended = [record for record in study.records() if trial_state(record.state).has_ended]
        kept = BestKept(self.storage, most=max(BestKept.MOST, CANDIDATES_PER_MEMBER * self.settings.ensemble))
        kept.ended(*ended)
        display = Display(
            output.console,
            metric_name=self.settings.metric_name,
            # With a time budget alone, their number is a limit that nobody asked for.
            num_trials=None if self.settings.is_ended_by_time_alone else self.settings.planned_trials,
            earlier=ended,
            dashboard_url=resources.dashboard_url,
            time_budget_s=self.settings.time_budget_s,
        )
        keeper = FolderKeeper(self.folder, self.folder.trial_history)
        table = TableKeeper(study, self.folder, self.space.searched)
        return Session(share, study, self._plan(share), display, [kept, keeper, table, GaugeKeeper()])

    def _share(self, resources: Resources) -> TrialShare:
        """Return what a trial gets, after a check that it can be had."""
        from tune_smp.tuning.preflight import check_nodes, check_resources  # noqa: PLC0415  imports ray

        share = self._share_of(resources.nodes)
        check_resources(resources.nodes, cpus=share.cpus, gpus=share.gpus)
        if self.address is not None:
            self.storage.mkdir(parents=True, exist_ok=True)
            readable = [self.settings.images_folder, self.settings.labels_folder]
            check_nodes(resources.nodes, readable=readable, storage=self.storage)
        return share

    def _share_of(self, nodes: Sequence[Node]) -> TrialShare:
        from tune_smp.tuning.shares import share_out  # noqa: PLC0415  imports ray

        return share_out(
            nodes,
            cpus=self.settings.cpus_per_trial,
            gpus=self.settings.gpus_per_trial,
            most=self.settings.max_concurrent_trials,
            with_gpu=self.settings.device != "cpu",
        )

    def _plan(self, share: TrialShare) -> SearchPlan:
        from tune_smp.tuning.pruning import (  # noqa: PLC0415  imports ray
            EPOCHS,
            SECONDS,
            Resource,
            build_scheduler,
            default_grace_period,
        )
        from tune_smp.tuning.tuner import SearchPlan  # noqa: PLC0415

        budget = self.settings.trial_budget_s
        scheduler = build_scheduler(
            self.settings.scheduler,
            most_epochs=self.space.most_epochs(),
            grace_period=self.settings.grace_period or default_grace_period(self.space),
            reduction_factor=self.settings.reduction_factor,
            resource=EPOCHS if budget is None else Resource(SECONDS, budget / self.space.most_epochs()),
        )
        return SearchPlan(
            trials=self.settings.planned_trials,
            scheduler=scheduler,
            storage=self.storage.parent,
            name=self.storage.name,
            room=self._room(share),
            time_budget_s=self.settings.time_budget_s,
        )

    def _room(self, share: TrialShare) -> Callable[[], int]:
        """How many trials can run at once: asked again and again, as nodes of a cluster come and go."""
        from tune_smp.tuning.cluster import live_nodes  # noqa: PLC0415  imports ray

        if self.address is None:
            return lambda: share.concurrency
        looked_at, found = time.monotonic(), share.concurrency

        def room() -> int:
            nonlocal looked_at, found
            if time.monotonic() - looked_at > NODES_EVERY_S:
                nodes = live_nodes(self.settings.device)
                looked_at, found = time.monotonic(), self._share_of(nodes).concurrency
            return found

        return room

    @override
    def saved(self, number: int) -> SavedRun | None:
        from tune_smp.tuning.checkpoints import newest_of_trial  # noqa: PLC0415  imports torch

        return newest_of_trial(self.storage, number)

    @override
    def best(self, records: Sequence[TrialRecord]) -> Best | None:
        remaining = list(records)
        while record := best_of(remaining):
            saved = self.saved(record.number)
            if saved is not None and saved.state["best_epoch"]:
                return Best(record, saved)
            remaining.remove(record)
        return None

    @override
    def keep(self, saved: SavedRun) -> None:
        from tune_smp.training import checkpoint  # noqa: PLC0415  imports torch

        checkpoint.save(saved.state, self.folder.checkpoint)

    @override
    def settings_of(self, record: TrialRecord) -> RunSettings:
        return self.space.settings(record.flags)

    @override
    def account(self, ending: str, ledger: Ledger, best: Best | None) -> Mapping[str, Any]:
        records = ledger.records()
        return {
            "state": ending if best or ending == "interrupted" else "failed",
            "reason": None if best else _why_none(records),
            "default_metric": next((record.best_metric for record in records if record.number == 0), None),
            "epochs_saved": sum(record.epochs_saved for record in records),
            "importances": cast("Study", ledger).importances() if best else {},
            "reproduce": self._reproduce(best) if best else None,
        }

    @override
    def conclusion(self, summary: Summary, records: Sequence[TrialRecord]) -> Conclusion:
        counts = ", ".join(f"{count} {state}" for state, count in sorted(summary.trials.items()))
        head = [f"{len(records)} trials: {counts or 'none'}"]
        if summary.model is None:
            return Conclusion(head, failure=NoTrialSucceededError(self._nothing(summary, records)))
        foot = [f"train it again: {summary.reproduce}"]
        if summary.state == "out_of_time":
            foot.append(f"the time budget is used up; {self.resume_hint}")
        head.append(_best_line(summary))
        head += [f"of pixels {summary.threshold_words}"] if summary.threshold_words else []
        return Conclusion(head, foot)

    def _reproduce(self, best: Best) -> str:
        """The command that trains the best trial again, with the batch size as it was measured where none was given."""
        changes = {"batch_size": best.saved.state["batch_size"], "output_dir": Path(f"{self.folder.path}-again")}
        exact = self.settings_of(best.record).with_changes(**changes)
        return shlex.join(["tune-smp", "train", *words_for(exact, leave_out=NOT_REPRODUCED)])

    def _nothing(self, summary: Summary, records: Sequence[TrialRecord]) -> Problem:
        failed = [record for record in records if trial_state(record.state).went_wrong]
        if not failed:
            said = "the time was over before any trial had a result"
            return Problem(said, str(self.folder.path), self.resume_hint)
        log = self.folder.trial_log(failed[0].number)
        where = str(log if log.exists() else self.folder.logs)
        more = f" for every trial's reason; {self.resume_hint}" if summary.state == "out_of_time" else ""
        return Problem(f"no trial succeeded: {summary.reason}", where, f"see trials.csv{more}")


def _why_none(records: Sequence[TrialRecord]) -> str:
    """Say why no trial gave a model: the reasons, the most frequent first."""
    reasons = Counter(record.reason or record.state for record in records)
    return listing([f"{reason} ({count} of {len(records)})" for reason, count in reasons.most_common()], limit=5)


def _best_line(summary: Summary) -> str:
    best = f"best {summary.metric} {summary.best_metric:.4f}: trial {summary.best_trial}, epoch {summary.best_epoch}"
    if summary.default_metric is None or summary.best_metric is None:
        return f"{best} (the default, trial 0, gave no model)"
    return f"{best}; {summary.best_metric - summary.default_metric:+.4f} against the default (trial 0)"


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
        first += known
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
    from tune_smp.tuning.study import records_in  # noqa: PLC0415  imports optuna

    journal = RunFolder(output_dir).study
    if not journal.is_file():
        fix = "pass the --outputDir of an earlier search"
        raise SettingsError(Problem("there is no search in the folder to start from", f"--warmStart {output_dir}", fix))
    return records_in(journal)
