"""What a search is under its space, and when it goes on: settings alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from tests.tuning.records import record
from tune_smp.errors import SettingsError
from tune_smp.settings.search import SearchSettings
from tune_smp.tuning.ledger import Ledger
from tune_smp.tuning.space_file import parse_space, read_space
from tune_smp.tuning.trial_record import TrialRecord
from tune_smp.workflows.final import (
    START_S,
    final_seconds,
    refit_seconds,
    runs_of_the_final,
    seconds_of_a_run,
)
from tune_smp.workflows.resuming import with_budget
from tune_smp.workflows.search_space import settings_record, space_under, with_fixed, with_trial_budget
from tune_smp.workflows.searching import _kept_up

SPACE = """
fixed: {trainFraction: 0.9, metricName: Fscore, seed: 7, maxEpochs: 5}
search: {learningRate: {low: 1e-4, high: 1e-2, log: true}}
"""


def settings(folder: Path, **more: object) -> SearchSettings:
    flags = {"imagesPattern": "x", "labelsPattern": "x", "segmentationMode": "binary", **more}
    return SearchSettings.from_flags(
        {"imagesDir": str(folder), "labelsDir": str(folder), "outputDir": str(folder), **flags}
    )


def test_data_metric_and_seed_are_the_searchs(tmp_path: Path) -> None:
    given = settings(tmp_path)
    space = parse_space(SPACE, name="own.yaml").with_flags(given.given_run_flags())
    under = with_fixed(given, space)
    assert (under.train_fraction, under.metric_name, under.seed) == (0.9, "Fscore", 7)
    assert under.max_epochs == given.max_epochs, "a trial's own affair"


def test_the_command_line_rules_over_the_file(tmp_path: Path) -> None:
    given = settings(tmp_path, trainFraction="0.5")
    space = parse_space(SPACE, name="own.yaml").with_flags(given.given_run_flags())
    assert with_fixed(given, space).train_fraction == 0.5


def test_the_record_keeps_what_was_given_apart(tmp_path: Path) -> None:
    given = settings(tmp_path)
    space = parse_space(SPACE, name="own.yaml").with_flags(given.given_run_flags())
    again = SearchSettings.from_json(settings_record(given, space))
    assert again.train_fraction == 0.9
    assert "trainFraction" not in again.given_run_flags(), "else it would count as the command line's when resumed"
    assert again.given_run_flags() == given.given_run_flags()


class Looked:
    """Trials of which a look at all takes ``seconds``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, seconds: float) -> None:
        self.count, self.looks, self.now, self._seconds = 0, 0, 100.0, seconds
        monkeypatch.setattr("tune_smp.workflows.searching.time", SimpleNamespace(monotonic=lambda: self.now))

    def ended(self) -> int:
        return self.count

    def records(self) -> list[TrialRecord]:
        self.looks += 1
        self.now += self._seconds
        return [record(number) for number in range(self.count)]


def test_trials_are_looked_at_again_when_more_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    study = Looked(monkeypatch, seconds=0.0)
    seconds = _kept_up(cast("Ledger", study), lambda records: 2.0 * len(records))
    assert (seconds(), seconds(), study.looks) == (0.0, 0.0, 1)
    study.count = 3
    assert (seconds(), seconds(), study.looks) == (6.0, 6.0, 2)


def test_looks_that_take_long_are_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    study = Looked(monkeypatch, seconds=0.5)
    seconds = _kept_up(cast("Ledger", study), lambda records: float(len(records)))
    begun = study.now
    for study.count in range(1, 1001):
        seconds()
        study.now += 0.1
    assert 0.5 * study.looks <= 0.06 * (study.now - begun)
    study.now += 10.0
    assert seconds() == 1000.0


def test_a_time_budget_for_the_rest_changes_no_number_of_trials(tmp_path: Path) -> None:
    begun = settings(tmp_path)
    assert with_budget(begun, num_trials=None, time_budget="10m").planned_trials == begun.planned_trials
    timed = settings(tmp_path, timeBudget="5m")
    assert with_budget(timed, num_trials=None, time_budget="10m").planned_trials == timed.planned_trials
    assert with_budget(timed, num_trials=7, time_budget=None).planned_trials == 7


def test_a_search_is_never_cut_short(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="can only be raised"):
        with_budget(settings(tmp_path, numTrials="9"), num_trials=8, time_budget=None)


def test_a_trial_has_one_gpu_at_most(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"trains on one GPU, of 2 the others.*\n.*--gpusPerTrial 2.0\n.*as many trials"
    ):
        settings(tmp_path, gpusPerTrial="2")
    assert settings(tmp_path, gpusPerTrial="0.5").asked_gpus == 0.5


def test_auto_asks_for_no_number_of_gpus(tmp_path: Path) -> None:
    asked = settings(tmp_path, gpusPerTrial="auto")
    assert asked.asked_gpus is None
    assert SearchSettings.from_json(asked.to_json()).gpus_per_trial == "auto"
    with pytest.raises(SettingsError) as error:
        settings(tmp_path, gpusPerTrial="many")
    (problem,) = error.value.problems
    assert problem.problem == "--gpusPerTrial must be a number >= 0 or auto, got many"


def test_a_trial_in_seconds_needs_to_know_how_many(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="needs to know how long a trial may last"):
        settings(tmp_path, resource="seconds")
    with pytest.raises(SettingsError, match="--trialBudget is a time, and --resource epochs gives trials none"):
        settings(tmp_path, resource="epochs", trialBudget="2m")
    with pytest.raises(SettingsError, match="--trialBudget must be a length of time above 0, got 'long'"):
        settings(tmp_path, resource="seconds", trialBudget="long")


def test_the_time_of_a_trial_stays_when_the_search_is_given_more(tmp_path: Path) -> None:
    begun = with_trial_budget(settings(tmp_path, resource="seconds", timeBudget="10m"))
    assert (begun.trial_budget, begun.trial_budget_s) == ("40s", 40.0)
    assert with_budget(begun, num_trials=None, time_budget="2h").trial_budget_s == 40.0
    in_epochs = settings(tmp_path, timeBudget="10m", resource="epochs")
    assert with_trial_budget(in_epochs) == in_epochs


@pytest.mark.parametrize(
    ("flags", "seconds"),
    [
        ({}, None),
        ({"numTrials": "9"}, None),
        ({"timeBudget": "10m"}, 40.0),
        ({"timeBudget": "10m", "numTrials": "9"}, None),
        ({"timeBudget": "10m", "numTrials": "9", "resource": "seconds"}, 40.0),
        ({"numTrials": "9", "trialBudget": "45s"}, 45.0),
    ],
)
def test_trials_have_a_time_where_time_alone_ends_the_search_or_they_are_given_one(
    tmp_path: Path, flags: dict[str, str], seconds: float | None
) -> None:
    assert settings(tmp_path, **flags).trial_budget_s == seconds


def test_a_search_that_time_ended_and_trials_extend_keeps_their_time(tmp_path: Path) -> None:
    begun = with_trial_budget(settings(tmp_path, timeBudget="10m"))
    assert with_budget(begun, num_trials=40, time_budget=None).trial_budget_s == 40.0


def test_trials_in_seconds_have_a_time_in_place_of_steps(tmp_path: Path) -> None:
    chosen = settings(tmp_path, resource="seconds", trialBudget="45s", searchSpace="quick")
    space = space_under(read_space("quick"), chosen)
    trial = space.settings({})
    assert (trial.time_budget_s, trial.most_epochs, trial.steps_per_epoch) == (45.0, 8, None)
    assert read_space("quick").fixed["stepsPerEpoch"] == 20


@pytest.mark.parametrize(
    ("flags", "left", "runs"),
    [
        ({"numTrials": "12"}, None, 4),
        ({"numTrials": "11"}, None, 3),
        ({}, None, 10),  # of 32 trials
        ({"numTrials": "500"}, None, 20),
        ({"numTrials": "12", "finalists": "0"}, None, 0),
        ({"numTrials": "12", "finalists": "0.5"}, None, 12),
        ({"timeBudget": "10m"}, 400.0, 4),  # 100 s for runs of 50 s, two at once
        ({"timeBudget": "10m", "refit": "false"}, 400.0, 16),
        ({"timeBudget": "10m"}, 60.0, 0),
        ({"timeBudget": "10m", "numTrials": "9"}, 300.0, 3),
    ],
)
def test_a_final_has_as_many_runs_as_time_and_trials_allow(
    tmp_path: Path, flags: dict[str, str], left: float | None, runs: int
) -> None:
    chosen = settings(tmp_path, **flags)
    records = [record(0, "completed", 0.5, best_epoch=1, seconds=60.0)]
    assert runs_of_the_final(chosen, records, left=left, concurrency=2) == runs


def test_what_is_kept_free_is_no_more_than_the_final_and_the_refit_take(tmp_path: Path) -> None:
    chosen = settings(tmp_path, timeBudget="10h", resource="epochs")
    unknown = [record(0, "running", 0.5), record(1, "pruned", 0.4, seconds=5.0)]
    assert seconds_of_a_run(chosen, unknown) is None
    assert final_seconds(chosen, None, concurrency=2) == refit_seconds(chosen, unknown) == 9000.0
    known = [record(0, "completed", 0.5, seconds=90.0)]
    assert seconds_of_a_run(chosen, known) == 90.0 + START_S
    assert final_seconds(chosen, 100.0, concurrency=2) == 1000.0 + START_S, "five rounds of four"
    assert refit_seconds(chosen, known) == pytest.approx(100.0 / 0.7)
    without = settings(tmp_path, timeBudget="10h", finalists="0")
    assert final_seconds(without, 100.0, concurrency=2) == refit_seconds(without, known) == 0.0


@pytest.mark.parametrize(
    ("flags", "is_kept"),
    [
        ({}, True),
        ({"finalists": "0"}, False),
        ({"ensemble": "3"}, False),
        ({"ensemble": "3", "refit": "true"}, True),
        ({"finalists": "0", "refit": "true"}, True),
        ({"refit": "false"}, False),
    ],
)
def test_time_is_kept_for_a_refit_that_is_sure_to_come(tmp_path: Path, flags: dict[str, str], is_kept: bool) -> None:
    assert refit_seconds(settings(tmp_path, timeBudget="10m", **flags), []) == (300.0 if is_kept else 0.0)


def test_a_final_is_kept_whole_rounds_free(tmp_path: Path) -> None:
    chosen = settings(tmp_path, timeBudget="1000s")
    assert final_seconds(chosen, 100.0, concurrency=2) == 200.0 + START_S
    assert final_seconds(chosen, 50.0, concurrency=2) == 200.0 + START_S
    assert final_seconds(chosen, 200.0, concurrency=2) == 250.0, "no round fits: a smaller final has the share"


def test_half_of_the_time_is_the_refits_where_trials_have_a_time_and_still_rise_at_its_end(tmp_path: Path) -> None:
    chosen = settings(tmp_path, timeBudget="1000s", trialBudget="100s")
    assert refit_seconds(chosen, []) == 500.0
    rising = record(0, "completed", 0.1, 0.2, 0.3, 0.4, 0.5, best_epoch=5)
    had_enough = record(0, "completed", 0.1, 0.2, 0.5, 0.5, 0.5, best_epoch=3)
    assert refit_seconds(chosen, [rising]) == 500.0
    assert refit_seconds(chosen, [record(0, "completed")]) == 500.0, "no epoch gave a metric"
    too_short_to_see = record(0, "completed", 0.2, 0.2, best_epoch=1)
    assert refit_seconds(chosen, [too_short_to_see]) == 500.0
    assert refit_seconds(chosen, [had_enough]) == pytest.approx((100.0 + START_S) / 0.7)
