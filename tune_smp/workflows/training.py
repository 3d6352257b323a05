"""One fixed configuration: the search of one trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from tune_smp.choices.states import trial_state
from tune_smp.errors import NoTrialSucceededError, Problem
from tune_smp.results.model_card import Proved
from tune_smp.results.summary import Summary
from tune_smp.settings.run import RunSettings
from tune_smp.training.run_state import best_report
from tune_smp.tuning.ledger import Ledger, SingleTrial
from tune_smp.tuning.trial_record import TrialRecord
from tune_smp.workflows.printing import output
from tune_smp.workflows.task import Best, Conclusion, Proof, Session, Task
from tune_smp.workflows.trials import FolderKeeper, NotePrinter

if TYPE_CHECKING:
    from tune_smp.tuning.checkpoints import SavedRun
    from tune_smp.tuning.cluster import Resources
    from tune_smp.tuning.shares import TrialShare


class FixedRun(Task):
    """A single run: one trial, no sampler, no scheduler, every core and one GPU of this machine."""

    command = "train"
    settings: RunSettings

    @override
    def finished(self) -> Ledger | None:
        return self._trial if self._trial.ended() else None

    @override
    def session(self, resources: Resources) -> Session:
        from tune_smp.tuning.display import RunDisplay  # noqa: PLC0415
        from tune_smp.tuning.gauges import GaugeKeeper  # noqa: PLC0415  imports ray
        from tune_smp.tuning.pruning import no_scheduler  # noqa: PLC0415
        from tune_smp.tuning.tuner import SearchPlan  # noqa: PLC0415

        trials, metric = self.folder.trials, self.settings.metric_name
        return Session(
            self._share(resources),
            self._trial,
            SearchPlan(1, no_scheduler(), storage=trials.parent, name=trials.name, room=lambda: 1),
            RunDisplay(
                output.console,
                metric_name=metric,
                num_trials=1,
                dashboard_url=resources.dashboard_url,
                time_budget_s=self.settings.time_budget_s,
            ),
            [self._keeper, NotePrinter(self.folder), GaugeKeeper()],
        )

    def _share(self, resources: Resources) -> TrialShare:
        from tune_smp.tuning.shares import TrialShare  # noqa: PLC0415

        return TrialShare(resources.cpus, min(1.0, resources.gpus), concurrency=1)

    @override
    def saved(self, number: int) -> SavedRun | None:
        from tune_smp.tuning.checkpoints import newest_whole  # noqa: PLC0415  imports torch

        return newest_whole(self.folder.trials, self.folder.checkpoint)

    @override
    def best(self, records: Sequence[TrialRecord]) -> Best | None:
        # A run that diverged in its first epoch has a state, but nothing in it is worth exporting.
        saved = self.saved(0)
        return Best(records[0], saved) if saved is not None and saved.state["best_epoch"] else None

    @override
    def keep(self, saved: SavedRun) -> None:
        from tune_smp.tuning.checkpoints import keep_newest  # noqa: PLC0415  imports torch

        keep_newest(saved, self.folder.checkpoint, trials=self.folder.trials)

    @override
    def settings_of(self, record: TrialRecord) -> RunSettings:
        return self.settings

    @override
    def proof(self, best: Best, records: Sequence[TrialRecord], summary: Summary) -> Proof | None:
        if not self.settings.refit:
            return None
        state = best.saved.state
        thresholds = tuple(best_report(state).get("thresholds", ()))
        return Proof(self.settings, state, records, Proved(state["best_metric"], 1, thresholds))

    @override
    def account(self, ending: str, ledger: Ledger, best: Best | None) -> Mapping[str, Any]:
        trial = ledger.record(0)
        return {
            "state": trial.state,
            "reason": trial.reason or None,
            "epochs": len(best.saved.state["history"]) if best else 0,
        }

    @override
    def conclusion(self, summary: Summary, records: Sequence[TrialRecord]) -> Conclusion:
        head = []
        if summary.model is not None:
            best = f"best {summary.metric} {summary.best_metric:.4f} at epoch {summary.best_epoch}"
            head = [f"{best} ({summary.state})"]
            head += [f"of pixels {summary.threshold_words}"] if summary.threshold_words else []
        failure = self._keeper.errors.get(0)
        if failure is None and not trial_state(summary.state).is_final:
            said = f"training ended as {summary.state}: {summary.reason}"
            failure = NoTrialSucceededError(Problem(said, str(self.folder.logs), _way_out(summary)))
        return Conclusion(head, failure=failure)

    @cached_property
    def _trial(self) -> SingleTrial:
        saved = self.saved(0)
        return SingleTrial(self.settings, saved.state if saved else None)

    @cached_property
    def _keeper(self) -> FolderKeeper:
        return FolderKeeper(self.folder, lambda _: self.folder.history)


def _way_out(summary: Summary) -> str:
    if summary.state == "diverged":
        return "try a smaller --learningRate, another --normalization, or --gradientClip 1"
    return "see the log; --debug shows the traceback"
