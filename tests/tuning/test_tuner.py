"""One trial under a real Ray."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray.train._internal.storage import StorageContext
from typing_extensions import override

from tests.tuning.trials import tiny_trial
from tune_smp.errors import DataError, Problem, ResourceError
from tune_smp.settings.run import RunSettings
from tune_smp.tuning.cluster import local_ray
from tune_smp.tuning.failures import failure_reason
from tune_smp.tuning.ledger import SingleTrial
from tune_smp.tuning.listeners import EpochResult, Listener
from tune_smp.tuning.pruning import no_scheduler
from tune_smp.tuning.trainable import CHECKPOINT_NAME, SmpTrainable, TrialConfig, _as_plain, refusal_from_plain
from tune_smp.tuning.trial_record import TrialRecord
from tune_smp.tuning.tuner import SearchPlan, run_trials


def test_a_gpu_that_is_not_there_is_refused(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ResourceError, match="--device gpu") as error, local_ray(device="gpu"):
        pass
    assert error.value.exit_code == 5


class Heard(Listener):
    """What a listener hears of one trial."""

    def __init__(self) -> None:
        self.epochs: list[int] = []
        self.ended: list[TrialRecord] = []

    @override
    def epoch_ended(self, number: int, result: EpochResult) -> None:
        self.epochs.append(result["epoch"])

    @override
    def trial_ended(self, record: TrialRecord, traceback: str) -> None:
        self.ended.append(record)


@pytest.fixture(scope="module")
def one_ray() -> Iterator[None]:
    """A real Ray, for all of these tests."""
    with local_ray(device="cpu"):
        yield


def run_alone(config: TrialConfig, storage: Path, listener: Listener) -> str:
    """Run one trial under the Ray that is there."""
    settings = RunSettings.from_json(config.settings)
    plan = SearchPlan(1, no_scheduler(), storage=storage, name="trials", room=lambda: 1)
    return run_trials(SingleTrial(settings), plan, lambda _: config, [listener])


def test_ray_starts_no_process_that_nobody_uses(one_ray: None) -> None:
    # A cluster of another test may still run below this process: only what names this Ray's session counts.
    session = ray.get_runtime_context().get_session_name()
    scripts: set[str] = set()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # ended meanwhile
            command = child.cmdline()
            if any(session in word for word in command):
                scripts.update(Path(word).name for word in command)
    assert "gcs_server" in scripts
    assert not scripts & {"log_monitor.py", "monitor.py"}


def test_a_listener_hears_everything_of_the_one_trial(one_ray: None, tmp_path: Path) -> None:
    heard = Heard()
    assert run_alone(tiny_trial(tmp_path), tmp_path, heard) == "completed"
    assert heard.epochs == [1, 2]
    (record,) = heard.ended
    assert (record.number, record.state, record.epochs, record.error) == (0, "completed", 2, None)
    kept = sorted(path.parent.name for path in tmp_path.glob("trials/trial_00000_*/checkpoint_*/checkpoint.pth"))
    assert kept == ["checkpoint_000000", "checkpoint_000001"]


class Saving(SmpTrainable):
    """A trial that saves as ours do, a few bytes."""

    inode = 0

    @override
    def setup(self, config: dict[str, Any]) -> None: ...

    @override
    def save_checkpoint(self, checkpoint_dir: str) -> None:
        file = Path(checkpoint_dir) / CHECKPOINT_NAME
        file.write_bytes(b"weights")
        self.inode = file.stat().st_ino


class Full(Saving):
    @override
    def save_checkpoint(self, checkpoint_dir: str) -> None:
        super().save_checkpoint(checkpoint_dir)
        raise OSError("no space left")


def ray_storage(folder: Path) -> StorageContext:
    return StorageContext(storage_path=folder, experiment_dir_name="search", trial_dir_name="trial_0")


def test_a_checkpoint_is_moved_to_its_place(one_ray: None, tmp_path: Path) -> None:
    trial = Saving(config={}, storage=ray_storage(tmp_path))
    for number in range(2):
        place = tmp_path / "search" / "trial_0" / f"checkpoint_{number:06d}"
        assert Path(trial.save().checkpoint.path) == place
        assert (place / CHECKPOINT_NAME).read_bytes() == b"weights"
        assert (place / CHECKPOINT_NAME).stat().st_ino == trial.inode, "a copy has another"
    assert sorted(path.name for path in place.parent.iterdir()) == ["checkpoint_000000", "checkpoint_000001"]


def test_without_a_storage_ray_saves_as_it_does(one_ray: None) -> None:
    place = Path(Saving(config={}).save().checkpoint.path)
    assert (place / CHECKPOINT_NAME).read_bytes() == b"weights"


def test_a_checkpoint_that_cannot_be_written_leaves_nothing(one_ray: None, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no space left"):
        Full(config={}, storage=ray_storage(tmp_path)).save()
    assert list((tmp_path / "search" / "trial_0").iterdir()) == []


def test_an_error_of_ours_comes_back_whole_and_is_not_tried_again(one_ray: None, tmp_path: Path) -> None:
    config = dataclasses.replace(tiny_trial(tmp_path), split=tmp_path / "no split")
    heard = Heard()
    run_alone(config, tmp_path, heard)
    (record,) = heard.ended
    assert record.state == "failed"
    assert isinstance(record.error, DataError)
    assert "no split" in str(record.error)
    assert heard.epochs == []
    assert not list(tmp_path.glob("trials/**/error.txt")), "Ray saw no failure, so it did not try again"


def test_an_error_of_ours_in_the_driver_is_raised_as_it_is(one_ray: None, tmp_path: Path) -> None:
    """A full disk, met while history.csv is written: Ray alone would make a TuneError with a traceback in it."""

    class Full(Listener):
        @override
        def epoch_ended(self, number: int, result: EpochResult) -> None:
            raise ResourceError(Problem("cannot write the file: No space left on device", "history.csv"))

    with pytest.raises(ResourceError, match="No space left") as error:
        run_alone(tiny_trial(tmp_path), tmp_path, Full())
    assert error.value.exit_code == 5


DIED = """Failure # {} (occurred at 2026-11-22_10-00-00)
ray.exceptions.ActorDiedError: The actor died unexpectedly before finishing this task.
	class_name: SmpTrainable
The actor is dead because its {} has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker unexpectedly exits.
"""
RAISED = """Failure # {} (occurred at 2026-11-22_10-00-00)
Traceback (most recent call last):
  File "x.py", line 1, in step
OSError: stale file handle
"""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "unknown"),
        (RAISED.format(1), "OSError: stale file handle"),
        (DIED.format(1, "worker process"), "its worker process has died: killed, or out of the machine's memory"),
        (DIED.format(1, "worker process") + DIED.format(2, "node"), "its node has died"),
        (DIED.format(1, "worker process") + RAISED.format(2), "OSError: stale file handle"),
    ],
)
def test_the_reason_of_a_failure_is_that_of_the_last_try_in_a_line(text: str, reason: str) -> None:
    assert failure_reason(text) == reason


def test_a_refusal_travels_as_plain_values() -> None:
    error = ResourceError([Problem("one", "here", "do this"), Problem("two")])
    back = refusal_from_plain(_as_plain(error))
    assert type(back) is ResourceError
    assert back.problems == error.problems


class TestSetUp:
    """What goes wrong while a worker sets up, in the trainable itself; Ray only calls its methods."""

    def trial_that_raises(self, error: Exception, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        def fail(_: TrialConfig) -> None:
            raise error

        monkeypatch.setattr("tune_smp.tuning.trainable.build_run", fail)
        trainable = SmpTrainable.__new__(SmpTrainable)
        trainable.setup({"trial": TrialConfig({}, Path("store"), Path("split.csv"))})
        return trainable.step()

    @pytest.mark.parametrize(
        ("error", "said"),
        [
            (ImportError("cannot import name 'Unet'"), "cannot import name 'Unet'"),
            (ModuleNotFoundError("No module named 'timm'"), "No module named 'timm'"),
            (RuntimeError("size mismatch for conv1.weight"), "size mismatch for conv1.weight"),
            (KeyError("encoder"), "encoder"),
        ],
    )
    def test_what_would_fail_again_ends_the_trial_at_once(
        self, error: Exception, said: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        result = self.trial_that_raises(error, monkeypatch)
        assert result["done"]
        assert said in refusal_from_plain(result["refusal"]).problems[0].problem
        assert said in result["traceback"]

    @pytest.mark.parametrize("error", [OSError("stale file handle"), RuntimeError("CUDA error: unspecified launch")])
    def test_what_may_pass_is_left_to_ray(self, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(type(error)):
            self.trial_that_raises(error, monkeypatch)
