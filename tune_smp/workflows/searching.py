"""A search: many trials of a space."""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from typing_extensions import override

from tune_smp.choices.states import trial_state
from tune_smp.errors import NoTrialSucceededError, Problem, listing
from tune_smp.results.folder import RunFolder
from tune_smp.results.model_card import Proved
from tune_smp.results.summary import Summary
from tune_smp.settings.command_line import words_for
from tune_smp.settings.run import RunSettings
from tune_smp.settings.search import SearchSettings
from tune_smp.training.run_state import best_report
from tune_smp.tuning import final
from tune_smp.tuning.final import keeps_the_split
from tune_smp.tuning.ledger import Ledger
from tune_smp.tuning.listeners import Listener
from tune_smp.tuning.space import SearchSpace
from tune_smp.tuning.trial_record import AskedTrial, TrialRecord, best_of, of_the_search
from tune_smp.workflows.ensembling import CANDIDATES_PER_MEMBER
from tune_smp.workflows.final import (
    START_S,
    Verdict,
    final_seconds,
    has_ended,
    refit_seconds,
    runs_of_the_final,
    seconds_of_a_run,
    verdict,
    write_splits,
)
from tune_smp.workflows.gpu_sharing import gpus_of_a_trial
from tune_smp.workflows.preparation import PreparedData
from tune_smp.workflows.printing import output
from tune_smp.workflows.search_study import open_study
from tune_smp.workflows.task import Best, Conclusion, Proof, Session, Task
from tune_smp.workflows.trials import FolderKeeper, TableKeeper

if TYPE_CHECKING:
    from tune_smp.training.run_state import RunState
    from tune_smp.tuning.checkpoints import SavedRun
    from tune_smp.tuning.cluster import Node, Resources
    from tune_smp.tuning.shares import TrialShare
    from tune_smp.tuning.study import Study
    from tune_smp.tuning.tuner import SearchPlan

# How often a cluster's nodes are counted.
NODES_EVERY_S = 5.0
# Share of the time of a search in which its trials may be looked at, to see how long the rest will take.
LOOKS = 0.05
# What a trial's command line need not say: it does not change the numbers.
NOT_REPRODUCED = ("overwrite", "debug", "dashboard", "dashboardHost", "dashboardPort", "cacheDir")


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
        self._began = time.monotonic()
        self._gpus = settings.asked_gpus

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

        self._began = time.monotonic()  # the time budget's
        share = self._share(resources)
        study = open_study(self.settings, self.space, self.folder, concurrency=share.concurrency)
        ended = [record for record in study.records() if trial_state(record.state).has_ended]
        most = max(BestKept.MOST, CANDIDATES_PER_MEMBER * self.settings.ensemble)
        kept = BestKept(self.storage, most=most, with_final=self.settings.finalists > 0)
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
        return Session(share, study, self._plan(share, study), display, [kept, keeper, table, GaugeKeeper()])

    @override
    def plans(self, session: Session) -> Iterator[SearchPlan]:
        """The search, then its final; a final that an earlier session began comes first."""
        study = cast("Study", session.ledger)
        if study.planned_finalists():
            yield from self._final(session)
        if has_ended(study.records()) < session.plan.trials:
            # Runs of earlier finals have ended too.
            finals = study.ended() - has_ended(study.records())
            yield dataclasses.replace(session.plan, trials=session.plan.trials + finals, time_budget_s=self.time_left)
        if not study.planned_finalists() and final.is_due(study.records()):
            self._draw_up_final(session)
        if study.planned_finalists():
            yield from self._final(session)

    def _draw_up_final(self, session: Session) -> None:
        study, concurrency = cast("Study", session.ledger), session.share.concurrency
        records, left = study.records(), self.time_left
        runs = runs_of_the_final(self.settings, records, left=left, concurrency=concurrency)
        field = final.finalists(records)
        finalists = final.draw_up(field, records, runs=runs, may_shrink=left is not None)
        if finalists:
            write_splits(self.folder, self.data, self.settings, finalists)
            study.draw_up(finalists)

    def _final(self, session: Session) -> Iterator[SearchPlan]:
        from tune_smp.tuning.pruning import no_scheduler  # noqa: PLC0415  imports ray

        study = cast("Study", session.ledger)
        runs, left = study.planned_finalists(), self.time_left
        session.display.final_begins(runs)
        with study.final():
            yield dataclasses.replace(
                session.plan,
                trials=study.ended() + runs,
                scheduler=no_scheduler(),
                time_budget_s=left,
                # The runs were planned to fit: one that takes longer is not thrown away, and the refit is shorter.
                reserve=_kept_up(study, lambda records: 0.5 * refit_seconds(self.settings, records)),
            )

    @property
    def time_left(self) -> float | None:
        """Seconds left of the time budget of this session; None where there is none."""
        budget = self.settings.time_budget_s
        return None if budget is None else max(budget - (time.monotonic() - self._began), 0.0)

    def _share(self, resources: Resources) -> TrialShare:
        """Return what a trial gets, after a check that it can be had."""
        from tune_smp.tuning.preflight import check_nodes, check_resources  # noqa: PLC0415  imports ray

        share = self._share_of(resources.nodes)
        check_resources(resources.nodes, cpus=share.cpus, gpus=share.gpus)
        if self.address is not None:
            self.storage.mkdir(parents=True, exist_ok=True)
            readable = [self.settings.images_folder, self.settings.labels_folder]
            check_nodes(resources.nodes, readable=readable, storage=self.storage)
        if self.settings.gpus_per_trial != "auto":
            return share
        self._gpus = gpus_of_a_trial(self.settings, self.space, self.data, self.folder, resources.nodes)
        return self._share_of(resources.nodes)

    def _share_of(self, nodes: Sequence[Node]) -> TrialShare:
        from tune_smp.tuning.shares import share_out  # noqa: PLC0415  imports ray

        return share_out(
            nodes,
            cpus=self.settings.cpus_per_trial,
            gpus=self._gpus,
            most=self.settings.max_concurrent_trials,
            with_gpu=self.settings.device != "cpu",
        )

    def _plan(self, share: TrialShare, study: Study) -> SearchPlan:
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
            reserve=_kept_up(study, lambda records: self._for_final_and_refit(records, concurrency=share.concurrency)),
        )

    def _for_final_and_refit(self, records: Sequence[TrialRecord], *, concurrency: int) -> float:
        """The seconds that final and refit will take; what a run takes is known better after each trial."""
        run = seconds_of_a_run(self.settings, records)
        return final_seconds(self.settings, run, concurrency=concurrency) + refit_seconds(self.settings, records)

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
    def split_of(self, asked: AskedTrial) -> Path:
        if asked.finalist is None or keeps_the_split(asked.finalist):
            return self.folder.split
        return self.folder.split_of_round(asked.finalist.round)

    @override
    def best(self, records: Sequence[TrialRecord]) -> Best | None:
        """The best run of the final's winner that has the split of the search; without a final the best trial."""
        for standing in final.standings(records):
            if best := self._best_saved([row for row in records if _is_run_of(standing.number, row)]):
                return best
        return self._best_saved(of_the_search(records))

    def _best_saved(self, records: Sequence[TrialRecord]) -> Best | None:
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
        settings = self.space.settings(record.flags)
        return settings if record.finalist is None else final.with_fresh_seed(settings, record.finalist)

    @override
    def proof(self, best: Best, records: Sequence[TrialRecord], summary: Summary) -> Proof | None:
        standings = final.standings(records)
        has_ensemble = summary.ensemble is not None and summary.ensemble["won"]  # predict would not take it
        is_wanted = self.settings.refit
        if not (bool(standings) and not has_ensemble if is_wanted is None else is_wanted):
            return None
        state = best.saved.state
        thresholds = tuple(best_report(state).get("thresholds", ()))
        metric, count = (standings[0].mean, len(standings[0].metrics)) if standings else (state["best_metric"], 1)
        number = best.record.finalist.of if best.record.finalist else best.record.number
        runs = [row for row in records if number in (row.number, row.finalist and row.finalist.of)]
        whole = [row for row in runs if row.state in ("completed", "early_stopped")]
        return Proof(
            self.space.settings(best.record.flags),
            state,
            whole or [best.record],
            Proved(metric, count, thresholds),
            seconds=None if (left := self.time_left) is None else max(left - START_S, 0.0),
            gpus=self.settings.asked_gpus,
            address=self.address,
        )

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
            "final": found.to_json() if (found := self._verdict(records)) else None,
        }

    def _verdict(self, records: Sequence[TrialRecord]) -> Verdict | None:
        def state_of(record: TrialRecord) -> RunState | None:
            saved = self.saved(record.number)
            return saved.state if saved else None

        return verdict(final.standings(records), records, self.settings, state_of)

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
        head += [found.words(summary.metric)] if (found := self._verdict(records)) else []
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


def _kept_up(study: Ledger, seconds: Callable[[Sequence[TrialRecord]], float]) -> Callable[[], float]:
    """Return what ``seconds`` makes of the trials so far, asked at every event of a search.

    They are looked at again when more have ended, but in a twentieth of the time at most: a look at 10,000 trials takes
    long enough to slow the search down.
    """
    ended, value, next_look = -1, 0.0, 0.0

    def kept_up() -> float:
        nonlocal ended, value, next_look
        begun = time.monotonic()
        if study.ended() != ended and begun >= next_look:
            ended, value = study.ended(), seconds(study.records())
            took = time.monotonic() - begun
            next_look = begun + took / LOOKS
        return value

    return kept_up


def _is_run_of(number: int, record: TrialRecord) -> bool:
    """Whether the trial, or a run of the final that repeats it, is comparable with the trials of the search."""
    if record.finalist is None:
        return record.number == number
    return record.finalist.of == number and keeps_the_split(record.finalist)


def _why_none(records: Sequence[TrialRecord]) -> str:
    """Say why no trial gave a model: the reasons, the most frequent first."""
    reasons = Counter(record.reason or record.state for record in records)
    return listing([f"{reason} ({count} of {len(records)})" for reason, count in reasons.most_common()], limit=5)


def _best_line(summary: Summary) -> str:
    best = f"best {summary.metric} {summary.best_metric:.4f}: trial {summary.best_trial}, epoch {summary.best_epoch}"
    if summary.default_metric is None or summary.best_metric is None:
        return f"{best} (the default, trial 0, gave no model)"
    return f"{best}; {summary.best_metric - summary.default_metric:+.4f} against the default (trial 0)"
