"""The refit: a proved configuration trained once more, on training and validation images together."""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from tune_smp.data.split import all_for_training, write_split
from tune_smp.results.folder import RunFolder, read_json
from tune_smp.results.summary import write_settings
from tune_smp.settings.run import RunSettings
from tune_smp.texts import counted, duration
from tune_smp.training.run_state import best_report
from tune_smp.tuning.trial_record import TrialRecord
from tune_smp.workflows.final import are_still_rising, share_used
from tune_smp.workflows.preparation import PreparedData
from tune_smp.workflows.task import Best, Proof
from tune_smp.workflows.training import FixedRun

if TYPE_CHECKING:
    from tune_smp.results.model_card import Proved
    from tune_smp.training.run_state import RunState
    from tune_smp.tuning.cluster import Resources
    from tune_smp.tuning.shares import TrialShare

NOISE = 0.01
"""By how much the refit may be worse on the validation images, which it has seen, than models that have not."""


def has_time(proof: Proof) -> bool:
    """Whether half of the time is left in which the runs came to their best epochs: with less the refit is poor."""
    if proof.seconds is None:
        return True
    took = fmean(record.seconds * (record.best_epoch or 0) / record.epochs for record in proof.records)
    return proof.seconds >= 0.5 * took


def refit_settings(proof: Proof) -> RunSettings:
    """The settings for as many steps as the runs were best at, in the mean; their schedule runs over these.

    Runs with a time get so much of it; where they were still rising at its end, all the time that is left.
    """
    settings = proof.settings.with_changes(refit=False, batch_size=proof.state["batch_size"])
    if settings.time_budget_s is not None:
        seconds = settings.time_budget_s * share_used(proof.records)
        if proof.seconds is not None:
            seconds = proof.seconds if are_still_rising(proof.records) else min(seconds, proof.seconds)
        return _timed(settings, seconds)
    epochs = math.ceil(fmean(run.best_epoch or 0 for run in proof.records))
    expected = epochs * fmean(row["seconds"] for row in proof.state["history"])
    if proof.seconds is not None and expected > proof.seconds:
        return _timed(settings, proof.seconds)
    steps = proof.state["used"]["stepsPerEpoch"]
    return settings.with_changes(max_epochs=epochs, patience=epochs, steps_per_epoch=steps)


def _timed(settings: RunSettings, seconds: float) -> RunSettings:
    without_steps = settings.with_changes(steps_per_epoch=None, time_budget=f"{max(seconds, 1.0):.0f}s")
    # What would end it early has been seen in training, and says nothing.
    return without_steps.with_changes(patience=without_steps.most_epochs)


def refit_thresholds(proof: Proof, settings: RunSettings, own: Sequence[float]) -> tuple[float, ...]:
    """The thresholds of a refit of these settings: those of the runs; its ``own`` were found on images it has seen.

    A refit with more time than the runs takes its own: probabilities of a net of seconds are others than of minutes.
    On images kept back 0.902 against 0.892 (nuclei-binary, 0.45 instead of 0.83), 0.714 against 0.707 (membrane-binary,
    0.34 instead of 0.19), 0.753 against 0.734 (nuclei-multilabel); one seed each.
    """
    time, of_the_runs = settings.time_budget_s, proof.settings.time_budget_s
    is_longer = time is not None and of_the_runs is not None and time > of_the_runs
    return tuple(own) if is_longer else proof.proved.thresholds


class Refit(FixedRun):
    """A run on all labelled images in a folder of its own, which has no validation to speak of: the images that it
    validates on are in its training too."""

    command = "train"

    def __init__(self, outer: RunFolder, data: PreparedData, proof: Proof) -> None:
        """The refit in the folder of its run or search: a new one, or the one of the same runs that was begun there."""
        folder = RunFolder(outer.refit)
        of = [record.number for record in proof.records]
        if not folder.is_started() or read_json(folder.settings).get("of") != of:
            folder.clear()
            _begin(folder, refit_settings(proof).with_changes(output_dir=folder.path), of=of)
        settings = RunSettings.from_json(read_json(folder.settings)["settings"])
        super().__init__(settings, folder, PreparedData(data.store, all_for_training(data.regions)))
        write_split(folder.split, self.data.regions, data.store.collection)
        self.address = proof.address
        self._gpus = proof.gpus
        self._proof = proof

    @property
    @override
    def resume_hint(self) -> str:
        return f"resume with: tune-smp resume {shlex.quote(str(self.folder.path.parent))}"

    @property
    def images(self) -> int:
        """Number of images that it is trained on."""
        return len({region.pair for region in self.data.regions})

    @property
    def announcement(self) -> str:
        """The line that says what begins."""
        time, epochs = self.settings.time_budget_s, counted(self.settings.max_epochs, "epoch")
        length = epochs if time is None else duration(time)
        return f"refit: the best settings once more, on all {counted(self.images, 'image')}: {length}"

    def is_sound(self, trained: Best) -> bool:
        """Whether it is no worse on the validation images, which it has seen, than models that have not."""
        return bool(trained.saved.state["best_metric"] >= self._proof.proved.metric - NOISE)

    def proved(self, state: RunState) -> Proved:
        """What speaks for its model, of this state, and the thresholds that it is used at."""
        own = best_report(state).get("thresholds", ())
        thresholds = refit_thresholds(self._proof, self.settings, own)
        return dataclasses.replace(self._proof.proved, thresholds=thresholds)

    @override
    def _share(self, resources: Resources) -> TrialShare:
        from tune_smp.tuning.shares import share_out  # noqa: PLC0415

        with_gpu = self.settings.device != "cpu"
        return share_out(resources.nodes, cpus=None, gpus=self._gpus, most=1, with_gpu=with_gpu)

    def facts(self, record: TrialRecord) -> dict[str, Any]:
        """``refit`` of summary.json."""
        return {
            "model": str(self.folder.model),
            "images": self.images,
            "epochs": record.epochs,
            "seconds": round(record.seconds, 1),
        }


def _begin(folder: RunFolder, settings: RunSettings, *, of: Sequence[int]) -> None:
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.logs.mkdir(exist_ok=True)
    write_settings(folder, Refit.command, settings.to_json(), of=list(of))
