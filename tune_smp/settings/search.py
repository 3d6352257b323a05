"""The settings of a search: every flag of ``train``, and those of the search itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le, MinLen

from tune_smp.choices.samplers import SAMPLERS
from tune_smp.choices.schedulers import SCHEDULERS
from tune_smp.errors import Problem
from tune_smp.settings.base import Draft, Rule, Settings
from tune_smp.settings.duration import seconds_of
from tune_smp.settings.fields import About, flags_of
from tune_smp.settings.folders import AbsolutePath
from tune_smp.settings.rules import durations_can_be_read
from tune_smp.settings.run import RunFlags

DEFAULT_TRIALS = 32
MOST_TRIALS = 1000
"""Where only ``--timeBudget`` ends a search."""

TRIALS_OF_A_BUDGET = 15
"""Trials, one after another, that a search's time is for, where nobody says how long one may last: some six for the
search, two for the final, and seven in which the refit trains the winner."""

TIME_BUDGET = About("Search", absent="until every trial has ended")


def seconds_need_a_budget(draft: Draft) -> Iterator[Problem]:
    """Trials that are compared in seconds have a time to fill, others have not."""
    budget, resource = draft.values.get("trial_budget"), draft.values.get("resource")
    if budget is not None and resource == "epochs":
        fix = "leave one of the two out"
        where = draft.where("trial_budget", "resource")
        yield Problem("--trialBudget is a time, and --resource epochs gives trials none", where, fix)
    if resource == "seconds" and budget is None and draft.values.get("time_budget") is None:
        fix = "pass --trialBudget, such as 2m, or a --timeBudget, of which each trial has a fifteenth"
        yield Problem("--resource seconds needs to know how long a trial may last", "--resource seconds", fix)


def submitting_needs_an_address(draft: Draft) -> Iterator[Problem]:
    """A Ray Job goes to a cluster that has to be named."""
    if draft.values.get("submit") and not draft.values.get("address"):
        yield Problem("--submit needs the cluster to send to", fix="pass --address http://HEAD:8265 too")


def one_gpu_per_trial(draft: Draft) -> Iterator[Problem]:
    """A training run uses one GPU: more would be set aside and stand idle."""
    gpus = draft.values.get("gpus_per_trial")
    if gpus not in (None, "auto") and gpus > 1:
        yield Problem(
            f"a trial trains on one GPU, of {gpus:g} the others would stand idle",
            where=draft.where("gpus_per_trial"),
            fix="pass --gpusPerTrial 1 or less: as many trials run side by side as there are GPUs for",
        )


class SearchSettings(RunFlags):
    """A search. A flag of a run that is given holds for every trial, and is then no longer searched.

    The rules between flags of a run are those of its trials: the search space makes their ``RunSettings``.
    """

    command: ClassVar[str] = "search"
    rules: ClassVar[tuple[Rule, ...]] = (
        *RunFlags.rules,
        durations_can_be_read,
        seconds_need_a_budget,
        submitting_needs_an_address,
        one_gpu_per_trial,
    )

    search_space: Annotated[str, MinLen(1), About("Search")] = "balanced"
    """Search space: its name (tune-smp show spaces), or path of a YAML file like search_spaces/*."""
    num_trials: Annotated[
        int | None, Ge(1), About("Search", absent=f"{DEFAULT_TRIALS}, or as many as timeBudget allows")
    ] = None
    """Number of trials, the failed ones too; trial 0 is the plain default."""
    time_budget: Annotated[str | None, MinLen(1), TIME_BUDGET] = None
    """Time budget after which every trial ends, such as 90m, 4h or 1h30m."""
    max_concurrent_trials: Annotated[int | None, Ge(1), About("Search", absent="as many as there is room for")] = None
    """Concurrent trials at most."""
    cpus_per_trial: Annotated[
        int | None, Ge(1), About("Search", unit="cores", absent="what there is, shared out evenly")
    ] = None
    """CPU cores of a trial."""
    gpus_per_trial: Annotated[
        Annotated[float, Ge(0)] | Literal["auto"] | None, About("Search", absent="1 where there is one, else 0")
    ] = None
    """GPUs of a trial, at most 1; 0.5 lets two trials share one, auto lets as many share one as train more together, by
    half a minute of measurement before the search."""
    scheduler: Annotated[str, About("Search", choices=tuple(SCHEDULERS), table="schedulers")] = "asha"
    """Trial scheduler: what ends poor trials early."""
    resource: Annotated[Literal["auto", "epochs", "seconds"], About("Search")] = "auto"
    """Resource that trials are given and compared at: with seconds, a fast net has more steps; auto takes seconds where
    trialBudget is given, or timeBudget alone ends the search."""
    trial_budget: Annotated[
        str | None, MinLen(1), About("Search", absent="a fifteenth of timeBudget, where trials are compared in seconds")
    ] = None
    """Time budget of a trial, such as 90s or 10m."""
    grace_period: Annotated[
        int | None, Ge(1), About("Search", unit="epochs", absent="3, or as long as the warm-up")
    ] = None
    """Grace period: epochs before a trial can be pruned."""
    reduction_factor: Annotated[float, Gt(1), About("Search")] = 3.0
    """Reduction factor of ASHA: one trial in so many reaches the next rung."""
    sampler: Annotated[str, About("Search", choices=tuple(SAMPLERS), table="samplers")] = "tpe"
    """Sampler: how the next point is chosen, from what the earlier trials taught, or not."""
    portfolio: Annotated[str, MinLen(1), About("Search")] = "auto"
    """Portfolio: configurations tried right after the default; auto takes those of the space, none has none, a path
    names a YAML file like search_spaces/portfolio/*."""
    finalists: Annotated[float, Ge(0), Le(0.5), About("Search", unit="of the budget")] = 0.25
    """Final: share of the time, or of the number of trials, in which the best three trials and the default are run
    again on fresh seeds, to find the best in the mean; 0 has none, as has a search of fewer than 12 trials."""
    refit: Annotated[bool | None, About("Search", absent="after a final, unless an ensemble won")] = None
    """Refit: train the best configuration once more, on training and validation images together, into refit/."""
    warm_start: Annotated[Path | None, AbsolutePath, About("Search", absent="nothing", folder="read")] = None
    """Warm start: output folder of an earlier search, whose best trials are tried first."""
    ensemble: Annotated[int, Ge(1), About("Search", unit="nets")] = 1
    """Ensemble: so many of the best trials' nets at most, in one model, where that is better on the validation images
    than their noise; prediction is so many times slower."""
    address: Annotated[str | None, MinLen(1), About("Search", absent="a Ray of its own on this machine")] = None
    """Ray cluster to run on: auto, or its address."""
    storage_path: Annotated[Path | None, AbsolutePath, About("Search", absent="outputDir")] = None
    """Storage folder for the trials' checkpoints, which every node sees."""
    submit: Annotated[bool, About("Search")] = False
    """Submit this command to the cluster at address as a Ray Job, and follow its log."""

    @property
    def asked_gpus(self) -> float | None:
        """GPUs of a trial where a number was asked for."""
        return None if self.gpus_per_trial == "auto" else self.gpus_per_trial

    @property
    def planned_trials(self) -> int:
        """How many trials end the search."""
        return self.num_trials or (MOST_TRIALS if self.time_budget else DEFAULT_TRIALS)

    @property
    def is_ended_by_time_alone(self) -> bool:
        """Whether nobody asked for a number of trials: then it is a limit, and nothing to wait for."""
        return self.time_budget is not None and self.num_trials is None

    @property
    def time_budget_s(self) -> float | None:
        """The time budget in seconds."""
        return seconds_of(self.time_budget) if self.time_budget else None

    @property
    def final_runs(self) -> int:
        """Runs of the final where trials are counted: ``finalists`` of all, with those of the search."""
        return int(self.planned_trials * self.finalists / (1.0 - self.finalists) + 1e-9)

    @property
    def trial_budget_s(self) -> float | None:
        """The time budget of a trial in seconds; None where trials have epochs."""
        if self.trial_budget is not None:
            return seconds_of(self.trial_budget)
        if self.resource == "epochs" or (self.resource == "auto" and not self.is_ended_by_time_alone):
            return None
        assert self.time_budget_s is not None  # noqa: S101 - a rule sees to it
        return self.time_budget_s / TRIALS_OF_A_BUDGET

    def given_run_flags(self) -> dict[str, Any]:
        """The flags of ``train`` that were set explicitly, by flag name."""
        return {
            flag.name: getattr(self, flag.field)
            for flag in flags_of(SearchSettings)
            if flag.field in RunFlags.model_fields and flag.field in self.model_fields_set
        }


class ResumeSettings(Settings):
    """Resuming what is in a folder; the numbers raise those that a search was started with."""

    command: ClassVar[str] = "resume"
    rules: ClassVar[tuple[Rule, ...]] = (durations_can_be_read,)

    output_dir: Annotated[Path, AbsolutePath, About(word="OUTPUT_DIR", folder="read")]
    """Output folder of an interrupted run or search."""

    num_trials: Annotated[int | None, Ge(1), About("Search", absent="as before")] = None
    """Number of trials of a search in all, more than before."""
    time_budget: Annotated[str | None, MinLen(1), About("Search", absent="as before")] = None
    """Time budget, such as 90m, 4h or 1h30m: of a search, after which every trial ends; of a train that was started
    with one, in all."""
    dashboard: Annotated[bool | None, About("Machine", absent="as the run was started")] = None
    """Ray dashboard: start it with the run."""
    dashboard_host: Annotated[str | None, MinLen(1), About("Machine", absent="as before")] = None
    """Dashboard address to listen on."""
    dashboard_port: Annotated[int | None, Ge(1), Le(65535), About("Machine", absent="as before")] = None
    """Dashboard port to listen on."""


DASHBOARD_FIELDS = frozenset({"dashboard", "dashboard_host", "dashboard_port"})
"""Fields of ``ResumeSettings`` that may differ from session to session: where a run is watched."""
