"""Studies in real journals: what is told, what is handed out again, and what an accident leaves behind."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from tests.flags import REQUIRED
from tune_smp.errors import DataError, SettingsError
from tune_smp.tuning.journal import JournalFile
from tune_smp.tuning.sampler import build_sampler
from tune_smp.tuning.space import Scalar, SearchSpace
from tune_smp.tuning.space_file import parse_space
from tune_smp.tuning.study import Study, records_in

SPACE = """
fixed: {maxEpochs: 7}
search:
  optimizerName: [Adam, SGD]
  learningRate: {low: 1e-4, high: 1e-1, log: true}
  momentum: {low: 0.8, high: 0.99, when: {optimizerName: [SGD]}}
  batchSize: {low: 4, high: 16, step: 4}
"""
ADAM: dict[str, Scalar] = {"optimizerName": "Adam", "learningRate": 1e-3, "batchSize": 8}


def space(text: str = SPACE) -> SearchSpace:
    return parse_space(text, name="mine.yaml").with_flags(REQUIRED)


def opened(journal: Path, *, name: str = "mine", text: str = SPACE) -> Study:
    """The study as a new session opens it."""
    return Study(
        journal,
        space(text),
        name=name,
        sampler_after=lambda trials: build_sampler("tpe", seed=trials, concurrency=1),
    )


def run(study: Study, state: str, curve: Sequence[float], *, seconds: float = 2.0, reason: str = "") -> int:
    """One trial from its beginning to its end."""
    number = study.ask().number
    for epoch, best_metric in enumerate(curve, start=1):
        study.report(number, epoch, best_metric)
    study.tell(number, state, seconds=seconds, reason=reason)
    return number


def in_journal(journal: Path) -> list[FrozenTrial]:
    """The trials as Optuna's own tools see them."""
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(journal)))
    (name,) = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=name, storage=storage).get_trials()


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "study.journal"


@pytest.mark.parametrize("state", ["completed", "early_stopped"])
def test_a_trial_that_ended_by_itself_is_complete_with_its_best_value(journal: Path, state: str) -> None:
    run(opened(journal), state, [0.2, 0.5, 0.5])
    (trial,) = in_journal(journal)
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.5)


def test_a_pruned_trial_keeps_what_it_reported(journal: Path) -> None:
    run(opened(journal), "pruned", [0.2, 0.3])
    (trial,) = in_journal(journal)
    assert trial.state is TrialState.PRUNED
    assert trial.intermediate_values == {1: 0.2, 2: 0.3}


@pytest.mark.parametrize("state", ["diverged", "failed"])
@pytest.mark.parametrize("curve", [[], [0.9]])
def test_a_trial_in_trouble_has_no_value(journal: Path, state: str, curve: list[float]) -> None:
    run(opened(journal), state, curve, reason="why")
    (trial,) = in_journal(journal)
    assert (trial.state, trial.value) == (TrialState.FAIL, None)


def test_a_trial_that_ended_without_a_single_finite_metric_is_no_complete_one(journal: Path) -> None:
    study = opened(journal)
    run(study, "completed", [math.nan, math.nan])
    (trial,) = in_journal(journal)
    assert trial.state is TrialState.FAIL
    assert study.record(0).best_metric is None


ENDINGS = ("completed", "early_stopped", "pruned", "diverged", "failed")
CURVES = st.lists(st.floats(0, 1), max_size=4).map(lambda values: [max(values[: i + 1]) for i in range(len(values))])


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(ENDINGS), CURVES), min_size=1, max_size=4))
def test_records_are_what_happened_and_survive_reopening(
    tmp_path_factory: pytest.TempPathFactory, trials: list[tuple[str, list[float]]]
) -> None:
    journal = tmp_path_factory.mktemp("study") / "study.journal"
    study = opened(journal)
    for state, curve in trials:
        run(study, state, curve, seconds=1.5, reason="because")
    records = study.records()
    assert [(record.state, list(record.curve)) for record in records] == trials
    for record in records:
        assert (record.max_epochs, record.seconds, record.reason) == (7, 1.5, "because")
    assert opened(journal).records() == records == records_in(journal)


def test_the_best_epoch_is_the_first_with_the_best_metric(journal: Path) -> None:
    study = opened(journal)
    run(study, "completed", [0.2, 0.6, 0.6, 0.6])
    assert (study.record(0).best_epoch, study.record(0).epochs) == (2, 4)


def test_the_record_has_the_flags_that_the_trial_ran_with(journal: Path) -> None:
    study = opened(journal)
    study.begin([ADAM])
    asked = study.ask()
    assert asked.flags == study.record(0).flags == ADAM
    assert (asked.settings.optimizer_name, asked.settings.learning_rate, asked.settings.batch_size) == ("Adam", 1e-3, 8)
    assert study.record(0).state == "running"


def test_an_epoch_that_was_run_again_after_a_crash_counts_once(journal: Path) -> None:
    study = opened(journal)
    number = study.ask().number
    epochs = [(1, 0.1), (2, 0.3), (2, 0.2), (3, 0.4)]
    assert [study.report(number, epoch, best_metric) for epoch, best_metric in epochs] == [True, True, False, True]
    study.tell(number, "completed")
    assert study.record(number).curve == (0.1, 0.3, 0.4)


def test_running_and_ended_are_counted(journal: Path) -> None:
    study = opened(journal)
    assert (study.is_new, study.running(), study.ended()) == (True, 0, 0)
    run(study, "pruned", [0.1])
    study.ask()
    assert (study.is_new, study.running(), study.ended()) == (False, 1, 1)
    again = opened(journal)
    again.requeue()
    assert (again.is_new, again.running(), again.ended()) == (False, 0, 1)


def test_an_illegal_point_is_a_failed_trial(journal: Path) -> None:
    """The checks of a space look at every combination that they can; what slips through costs one trial."""
    study = opened(journal, text="fixed: {optimizerName: LBFGS}\nsearch:\n  weightDecay: {low: 1e-3, high: 1e-2}\n")
    with pytest.raises(SettingsError):
        study.ask()
    (record,) = study.records()
    assert record.state == "failed"
    assert record.reason
    assert (study.running(), study.ended()) == (0, 1)


def test_first_points_come_first_and_in_their_order(journal: Path) -> None:
    study = opened(journal)
    first = [{**ADAM, "batchSize": size} for size in (16, 4, 12)]
    study.begin(first)
    assert [study.ask().flags for _ in first] == first
    assert study.ask().number == len(first)


def test_what_is_spared_is_known_also_after_a_resume(journal: Path) -> None:
    study = opened(journal)
    study.begin([ADAM], spared=[{**ADAM, "batchSize": 4}, ADAM])
    assert [study.ask().is_spared for _ in range(3)] == [False, True, False], "one is the first point already"
    again = opened(journal)
    again.requeue()
    assert [again.ask().is_spared for _ in range(3)] == [False, True, False]


def test_unfinished_trials_go_on_first_as_they_were(journal: Path) -> None:
    """Killed in the middle: one trial had ended, one had two epochs, one had just begun."""
    study = opened(journal)
    run(study, "completed", [0.5])
    half, fresh = study.ask(), study.ask()
    study.report(half.number, 1, 0.2)
    study.report(half.number, 2, 0.4)

    again = opened(journal)
    again.requeue()
    assert not any(trial.state is TrialState.RUNNING for trial in in_journal(journal))
    assert [record.state for record in again.records()] == ["completed", "interrupted", "interrupted"]
    first, second = again.ask(), again.ask()
    assert (first.number, first.flags, first.curve) == (half.number, half.flags, (0.2, 0.4))
    assert (second.number, second.flags, second.curve) == (fresh.number, fresh.flags, ())
    assert first.settings == half.settings
    assert again.ask().number == 3


def test_a_trial_that_went_on_has_the_epochs_of_both_sessions(journal: Path) -> None:
    study = opened(journal)
    number = study.ask().number
    study.report(number, 1, 0.2)
    study.interrupted(number, seconds=4.0)
    study.requeue()
    assert (study.record(number).state, study.record(number).seconds) == ("interrupted", 4.0)

    again = opened(journal)
    again.requeue()
    again.ask()
    again.report(number, 1, 0.9)  # run again from a checkpoint that was older than the report
    again.report(number, 2, 0.3)
    record = again.tell(number, "completed", seconds=9.0)
    assert (record.curve, record.seconds, record.state) == ((0.2, 0.3), 9.0, "completed")
    (trial,) = in_journal(journal)
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.3)


@pytest.mark.parametrize("cut", [1, 7, 30])
def test_a_journal_whose_last_line_was_cut_short_is_mended(journal: Path, cut: int) -> None:
    study = opened(journal)
    run(study, "completed", [0.5])
    number = study.ask().number
    study.report(number, 1, 0.25)
    content = journal.read_bytes()
    journal.write_bytes(content[:-cut])

    again = opened(journal)
    again.requeue()
    assert [record.state for record in again.records()] == ["completed", "interrupted"]
    run(again, "completed", [0.1, 0.6])
    assert [json.loads(line) for line in journal.read_text("utf-8").splitlines()]
    assert opened(journal).record(number).curve[-1] == 0.6


def test_a_lock_of_a_killed_program_does_not_block(journal: Path) -> None:
    run(opened(journal), "completed", [0.5])
    Path(f"{journal}.lock").symlink_to(journal)
    started = time.monotonic()
    run(opened(journal), "completed", [0.6])
    assert time.monotonic() - started < 10, "Optuna itself waits 30 s"
    assert not list(journal.parent.glob("*.lock*"))


def test_a_study_of_another_name_in_the_file_is_not_merged(journal: Path) -> None:
    """A renamed output folder: the study keeps the name that it has."""
    run(opened(journal, name="before"), "completed", [0.5])
    study = opened(journal, name="after")
    assert [record.curve for record in study.records()] == [(0.5,)]
    assert optuna.get_all_study_names(optuna.storages.JournalStorage(JournalFileBackend(str(journal)))) == ["before"]


def test_two_journals_share_nothing(tmp_path: Path) -> None:
    one, other = opened(tmp_path / "one"), opened(tmp_path / "other")
    run(one, "completed", [0.5])
    assert other.is_new
    assert other.ask().number == 0


@pytest.mark.parametrize("content", [b"not a journal\n", b'{"op_code": 0}\n', b"[1, 2]\n", b"\xff\xfe\n"])
def test_a_file_that_is_no_journal_is_named(journal: Path, content: bytes) -> None:
    journal.write_bytes(content)
    with pytest.raises(DataError, match=r"study\.journal"):
        opened(journal)
    with pytest.raises(DataError, match=r"study\.journal"):
        records_in(journal)


def test_importances_are_shares_of_one(journal: Path) -> None:
    study = opened(journal)
    for number in range(24):
        asked = study.ask()
        value = float(asked.settings.learning_rate or 0) * 9 + 0.001 * number
        study.report(asked.number, 1, min(value, 1.0))
        study.tell(asked.number, "completed")
    shares = study.importances()
    assert set(shares) <= set(study.space.searched)
    assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
    assert max(shares, key=lambda flag: shares[flag]) == "learningRate"


def test_too_few_trials_tell_nothing_of_importance(journal: Path) -> None:
    study = opened(journal)
    assert study.importances() == {}
    for value in (0.1, 0.2, 0.3):
        run(study, "completed", [value])
        run(study, "pruned", [value])
    assert study.importances() == {}


def test_trials_that_are_all_alike_tell_nothing_of_importance(journal: Path) -> None:
    study = opened(journal)
    for _ in range(12):
        run(study, "completed", [0.5])
    assert study.importances() == {}


def test_everything_is_in_the_file_when_the_program_is_killed(journal: Path) -> None:
    """Also what the disk was not waited for."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_ask_and_die, args=(journal,))
    process.start()
    process.join(timeout=60)
    assert process.exitcode == -signal.SIGKILL
    study = opened(journal)
    study.requeue()
    (record,) = study.records()
    assert set(record.flags) >= {"optimizerName", "learningRate", "batchSize"}
    assert record.max_epochs == 7


def _ask_and_die(journal: Path) -> None:
    opened(journal).ask()
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_disk_is_waited_for_at_the_beginning_each_epoch_and_the_end(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[int] = []
    monkeypatch.setattr(os, "fsync", waits.append)
    study = opened(journal)
    waits.clear()
    run(study, "completed", [0.1, 0.2, 0.3])
    assert len(waits) == 1 + 3 + 1


def test_a_deferred_write_stands_where_it_was_made(tmp_path: Path) -> None:
    file = JournalFile(tmp_path / "journal")
    file.append_logs([{"line": 1}])
    with file.deferred():
        file.append_logs([{"line": 2}, {"line": 3}])
    file.append_logs([{"line": 4}])
    assert [log["line"] for log in file.read_logs(0)] == [1, 2, 3, 4]
    assert not list(tmp_path.glob("*.lock*"))
