"""The space of a search, and its settings: what holds for every trial, and what is searched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tune_smp.settings.run import RunSettings
from tune_smp.settings.search import SearchSettings
from tune_smp.tuning.space import ENCODER, FLAGS, MODEL, SearchSpace
from tune_smp.tuning.space_checks import check_space
from tune_smp.tuning.space_file import parse_space
from tune_smp.workflows.preparation import PreparedData
from tune_smp.workflows.printing import note
from tune_smp.workflows.starting_weights import check_pretrained, fetch_encoder_weights


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
