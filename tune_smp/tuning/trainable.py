"""Ray's shape of one training run: four short methods, one epoch per step, and one to begin the next trial."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import logging
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune

from tune_smp.errors import NoTrialSucceededError, OutOfMemoryError, Problem, TuneSmpError
from tune_smp.tuning.ray_private import moving_checkpoints
from tune_smp.tuning.worker_environment import write_as_the_user_does

if TYPE_CHECKING:
    from tune_smp.data.store.image_store import ImageStore
    from tune_smp.settings.run import RunSettings
    from tune_smp.training.run import TrainingRun
    from tune_smp.training.run_state import EpochReport
    from tune_smp.tuning.listeners import EpochResult

CHECKPOINT_NAME = "checkpoint.pth"
REFUSAL_NAME = "refused.txt"
# What the same settings and data raise on every try, as a broken model or a slip in a library does: not tried again.
# Everything else may be the machine's fault. NotImplementedError is what torch raises for an operator that the device
# lacks; it is named because it is a RuntimeError, and those of a running trial are tried again.
DETERMINISTIC = (
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    NotImplementedError,
    AssertionError,
    ArithmeticError,
)


@dataclasses.dataclass(frozen=True, slots=True)
class TrialConfig:
    """The configuration of a trial for its worker: small enough to travel with every trial.

    ``store`` is the image store, built anew on a node that lacks it; ``split`` the run's split.csv, ``start_from`` a
    checkpoint of an earlier session of this very run; ``cpus`` and ``gpus`` (fractions allowed) are what the trial gets
    of its node. ``number`` is that of the trial; one that ``is_spared`` is not pruned. ``counts_images``: at its end,
    the pixels of each validation image are counted by themselves.
    """

    settings: dict[str, Any]
    store: Path
    split: Path
    start_from: Path | None = None
    cpus: int = 1
    gpus: float = 0.0
    number: int = 0
    is_spared: bool = False
    counts_images: bool = False


class SmpTrainable(tune.Trainable):
    """A training run as Ray Tune drives it.

    An error of ours (wrong settings, unreadable data) is the same on every try: the trial then ends by itself and
    reports it, so that Ray does not try again. Any other exception goes to Ray, which starts the trial again from its
    last checkpoint.
    """

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """Return what Ray is to set aside for the trial."""
        trial: TrialConfig = config["trial"]
        return tune.PlacementGroupFactory([{"CPU": trial.cpus, "GPU": trial.gpus}])

    def setup(self, config: dict[str, Any]) -> None:
        """Build the run, and resume an earlier session's checkpoint if there is one."""
        self._begin(config["trial"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin the next trial in this process, which has Python, torch and the GPU ready.

        The run is built from nothing but its settings, as in a fresh process: no state of the trial before is left.
        """
        self._forget()
        self._begin(new_config["trial"])
        return True

    def cleanup(self) -> None:
        """Ray ends the process."""
        self._forget()

    def step(self) -> dict[str, Any]:
        """Run one epoch."""
        if self._refusal is not None:
            return self._refused(self._refusal)
        if self._run.stop is not None:
            # Its last epoch was stored, and the program died before it took note.
            return dict(_as_result(self._run.last_report, self._run))
        try:
            report = self._run.run_epoch()
            if self._counts_images and report["stop"] is not None and report["best_epoch"]:
                self._run.count_images()
            return dict(_as_result(report, self._run))
        except Exception as error:  # noqa: BLE001 - sorted out there; what may pass is raised again for Ray
            return self._refused(self._refuse(error))

    def save(self, checkpoint_dir: str | None = None) -> Any:
        """Save where it is kept: see ``moving_checkpoints``."""
        with moving_checkpoints(self) as folder:
            return super().save(checkpoint_dir or folder)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the run's whole state."""
        folder = Path(checkpoint_dir)
        if self._refusal is not None:
            # Ray insists on a checkpoint at the end of a trial, and on something in it.
            (folder / REFUSAL_NAME).write_text(str(self._refusal), encoding="utf-8")
            return
        from tune_smp.training import checkpoint  # noqa: PLC0415  imports torch

        checkpoint.save(self._run.state_dict(), folder / CHECKPOINT_NAME)

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        """Resume after a crash of the worker."""
        from tune_smp.training import checkpoint  # noqa: PLC0415  imports torch

        if self._refusal is None:
            self._run.load_state_dict(checkpoint.load(Path(checkpoint_dir) / CHECKPOINT_NAME))

    def _begin(self, trial: TrialConfig) -> None:
        self._refusal: TuneSmpError | None = None
        self._counts_images = trial.counts_images
        logging.getLogger("timm").setLevel(logging.ERROR)
        write_as_the_user_does()
        try:
            share_the_machine(trial)
            self._run: TrainingRun = build_run(trial)
        except Exception as error:  # noqa: BLE001 - sorted out there; what may pass is raised again for Ray
            self._refuse(error, is_set_up=True)

    def _refuse(self, error: Exception, *, is_set_up: bool = False) -> TuneSmpError:
        self._refusal = _refusal_for(error, is_set_up=is_set_up)
        self._traceback = "".join(traceback.format_exception(error))
        return self._refusal

    def _refused(self, refusal: TuneSmpError) -> dict[str, Any]:
        plain = {"refusal": _as_plain(refusal), "traceback": self._traceback}
        return {"done": True, "stop": "failed", "best_metric": float("nan"), **plain}

    def _forget(self) -> None:
        import torch  # noqa: PLC0415  imported by setup already

        with contextlib.suppress(AttributeError):  # there is none where setting up was refused
            del self._run
        self._refusal = None
        gc.collect()  # a model and its optimizer point at each other
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def share_the_machine(trial: TrialConfig) -> None:
    """Let this process take the cores and the part of the GPU's memory that are the trial's."""
    import torch  # noqa: PLC0415  seconds to import: workers only, never the driver

    torch.set_num_threads(trial.cpus)
    if torch.cuda.is_available() and 0 < trial.gpus < 1:
        torch.cuda.set_per_process_memory_fraction(trial.gpus)  # the rest is another trial's


def build_run(trial: TrialConfig) -> TrainingRun:
    """The run of a trial, with the data as this node has it. Raises what ``TrainingRun`` raises."""
    from tune_smp.data.split import read_split  # noqa: PLC0415  the driver needs none of these
    from tune_smp.settings.run import RunSettings  # noqa: PLC0415
    from tune_smp.training import checkpoint  # noqa: PLC0415
    from tune_smp.training.run import TrainingRun  # noqa: PLC0415

    settings = RunSettings.from_json(trial.settings)
    store = _open_store(trial.store, settings)
    return TrainingRun(
        settings,
        store,
        read_split(trial.split, store.keys),
        state=checkpoint.load(trial.start_from) if trial.start_from is not None else None,
    )


def _open_store(path: Path, settings: RunSettings) -> ImageStore:
    """The driver's image store where this node sees it, else this node's own: the first trial on the node builds it,
    under the store's lock."""
    from tune_smp.data.opening import find_collection, open_store  # noqa: PLC0415  the driver needs none of these
    from tune_smp.data.store.image_store import ImageStore  # noqa: PLC0415

    return ImageStore.open(path) if path.is_dir() else open_store(settings, find_collection(settings))


def _refusal_for(error: Exception, *, is_set_up: bool) -> TuneSmpError:
    """The error of ours that ends the trial for good. Raises the error again where another try may help."""
    if isinstance(error, TuneSmpError):
        return error
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, ImportError):
        fix = "install tune-smp and all its dependencies on every machine, in the same versions"
        return NoTrialSucceededError(Problem(text, fix=fix))
    from tune_smp.training.memory import is_out_of_memory  # noqa: PLC0415  imports torch

    if is_out_of_memory(error):
        fix = "pass a smaller --tileSize or --batchSize, or choose a smaller encoder"
        return OutOfMemoryError(Problem(f"out of memory: {error}", fix=fix))
    # While a worker sets up, torch raises RuntimeError for weights that do not fit; CUDA's may be the machine's fault.
    is_deterministic = isinstance(error, DETERMINISTIC) or (is_set_up and type(error) is RuntimeError)
    if is_deterministic and "CUDA" not in str(error):
        return NoTrialSucceededError(
            Problem(text, fix="the same settings would fail again: this trial is left as it is")
        )
    raise error


def _as_result(report: EpochReport, run: TrainingRun) -> EpochResult:
    return {
        **report,
        "epochs_before": run.epochs_before,
        "trial_epoch": report["epoch"] - run.epochs_before,
        "run_seconds": sum(row["seconds"] for row in run.history),
        "notes": run.notes,
        "used": run.used,
        "done": report["stop"] is not None,
    }


def _as_plain(error: TuneSmpError) -> dict[str, Any]:
    return {"kind": type(error).__name__, "problems": [dataclasses.asdict(problem) for problem in error.problems]}


def refusal_from_plain(plain: dict[str, Any]) -> TuneSmpError:
    """The error that a trial ended with, back from its result."""
    kinds = {kind.__name__: kind for kind in _all_kinds(TuneSmpError)}
    return kinds[plain["kind"]](Problem(**problem) for problem in plain["problems"])


def _all_kinds(kind: type[TuneSmpError]) -> list[type[TuneSmpError]]:
    return [kind, *(deeper for child in kind.__subclasses__() for deeper in _all_kinds(child))]
