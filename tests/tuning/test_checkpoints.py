"""Which checkpoints are found, and which are kept."""

from __future__ import annotations

import dataclasses
import os
import random
from pathlib import Path

import pytest

from tune_smp.training import checkpoint
from tune_smp.tuning.checkpoints import BestKept, keep_newest, newest_of_trial, newest_whole, trial_folder
from tune_smp.tuning.trainable import CHECKPOINT_NAME
from tune_smp.tuning.trial_record import Finalist, TrialRecord, best_of


def stored(trials: Path, number: int, *, epochs: int = 2, session: str = "a", whole: bool = True) -> list[Path]:
    """Checkpoints as Ray leaves them, the last the newest."""
    paths = []
    for epoch in range(epochs):
        path = trials / f"{trial_folder(number)}{session}" / f"checkpoint_{epoch:06d}" / CHECKPOINT_NAME
        path.parent.mkdir(parents=True)
        checkpoint.save({"format": 1, "epoch": epoch}, path)
        if not whole:
            path.write_bytes(path.read_bytes()[:20])
        # Times of their own: a fast file system gives several files the same.
        os.utime(path, ns=(10**18 + number * 10**9 + epoch, 10**18 + number * 10**9 + epoch))
        paths.append(path)
    return paths


def record(number: int, metric: float | None, state: str = "completed") -> TrialRecord:
    return TrialRecord(number, state, {}, max_epochs=9, curve=() if metric is None else (metric,))


def with_checkpoints(trials: Path) -> set[int]:
    return {int(path.name.split("_")[1]) for path in trials.iterdir() if list(path.glob("checkpoint_*"))}


def test_the_best_few_of_those_that_ended_keep_theirs(tmp_path: Path) -> None:
    kept = BestKept(tmp_path)
    for number, metric in enumerate([0.5, 0.4, 0.3]):
        stored(tmp_path, number)
        kept.ended(record(number, metric))
    assert with_checkpoints(tmp_path) == {0, 1, 2}
    stored(tmp_path, 3)
    kept.ended(record(3, 0.45))
    assert with_checkpoints(tmp_path) == {0, 1, 3}
    stored(tmp_path, 4)
    kept.ended(record(4, 0.1))
    assert with_checkpoints(tmp_path) == {0, 1, 3}


def test_more_are_kept_for_an_ensemble(tmp_path: Path) -> None:
    kept = BestKept(tmp_path, most=5)
    for number in range(7):
        stored(tmp_path, number, epochs=1)
        kept.ended(record(number, 0.1 * number))
    assert with_checkpoints(tmp_path) == {2, 3, 4, 5, 6}


def test_a_trial_in_trouble_keeps_none_however_good(tmp_path: Path) -> None:
    kept = BestKept(tmp_path)
    for number, (metric, state) in enumerate([(0.9, "failed"), (0.9, "diverged"), (None, "failed"), (0.1, "pruned")]):
        stored(tmp_path, number)
        kept.ended(record(number, metric, state))
    assert with_checkpoints(tmp_path) == {3}


def test_those_still_running_keep_theirs(tmp_path: Path) -> None:
    stored(tmp_path, 7)
    stored(tmp_path, 71)  # whose folder's name begins alike
    stored(tmp_path, 70)
    kept = BestKept(tmp_path)
    kept.ended(record(7, None, "failed"))
    assert with_checkpoints(tmp_path) == {70, 71}


def test_every_session_of_a_trial_is_cleared(tmp_path: Path) -> None:
    stored(tmp_path, 1, session="first")
    stored(tmp_path, 1, session="second")
    BestKept(tmp_path).ended(record(1, 0.5, "failed"))
    assert with_checkpoints(tmp_path) == set()
    assert (tmp_path / f"{trial_folder(1)}first").is_dir(), "Ray's other files stay"


@pytest.mark.parametrize("at_once", [True, False])
def test_a_new_session_keeps_what_the_old_one_did(tmp_path: Path, at_once: bool) -> None:
    numbers = random.Random(1)
    records = [
        record(number, numbers.random(), numbers.choice(["completed", "pruned", "failed"])) for number in range(12)
    ]
    for row in records:
        stored(tmp_path, row.number, epochs=1)
    kept = BestKept(tmp_path)
    if at_once:
        kept.ended(*records)
    else:
        for row in records:
            kept.ended(row)
    expected: list[int] = []
    while len(expected) < BestKept.MOST:
        found = best_of([row for row in records if row.number not in expected])
        assert found is not None
        expected.append(found.number)
    assert with_checkpoints(tmp_path) == set(expected)


def test_what_a_final_may_export_is_kept(tmp_path: Path) -> None:
    """The default, however poor, and every run of the final that gave a result."""
    records = [record(0, 0.1), *(record(number, 0.1 + 0.1 * number) for number in range(1, 7))]
    records += [dataclasses.replace(record(7, 0.2), finalist=Finalist(3, 1))]
    records += [dataclasses.replace(record(8, 0.9, "diverged"), finalist=Finalist(3, 2))]
    for row in records:
        stored(tmp_path, row.number, epochs=1)
    kept = BestKept(tmp_path, with_final=True)
    for row in records:
        kept.ended(row)
    assert with_checkpoints(tmp_path) == {0, 4, 5, 6, 7}


def test_nothing_there_is_nothing_to_keep(tmp_path: Path) -> None:
    kept = BestKept(tmp_path / "not yet")
    kept.ended()
    kept.ended(record(0, 0.5), record(1, None, "failed"))


def test_the_newest_whole_one_of_a_trial_is_found(tmp_path: Path) -> None:
    stored(tmp_path, 2, session="old")
    newest = stored(tmp_path, 3, epochs=3)
    newest[-1].write_bytes(newest[-1].read_bytes()[:20])  # cut short by a kill
    found = newest_of_trial(tmp_path, 3)
    assert found is not None
    assert (found.path, found.state["epoch"]) == (newest[1], 1)
    assert newest_of_trial(tmp_path, 4) is None


def test_a_trial_of_whose_checkpoints_none_is_whole_begins_anew(tmp_path: Path) -> None:
    stored(tmp_path, 3, whole=False)
    assert newest_of_trial(tmp_path, 3) is None


def test_rays_checkpoints_come_before_the_one_that_was_kept(tmp_path: Path) -> None:
    final = tmp_path / "checkpoint.pth"
    checkpoint.save({"format": 1, "epoch": 99}, final)
    trials = tmp_path / "trials"
    found = newest_whole(trials, final)
    assert found is not None
    assert found.state["epoch"] == 99
    stored(trials, 0)
    found = newest_whole(trials, final)
    assert found is not None
    assert found.state["epoch"] == 1
    keep_newest(found, final, trials=trials)
    assert checkpoint.load(final)["epoch"] == 1
    assert with_checkpoints(trials) == set()
