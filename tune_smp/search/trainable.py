"""Ray's shape of one training run: four short methods, one epoch per step."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

from ray import tune

from tune_smp.errors import Problem, TuneSmpError

CHECKPOINT_NAME = "checkpoint.pth"
REFUSAL_NAME = "refused.txt"


@dataclasses.dataclass(frozen=True, slots=True)
class TrialConfig:
    """What a worker needs to build its run: small enough to travel with every trial.

    ``store`` is the image store of the worker's node, ``split`` the run's split.csv, ``start_from`` a checkpoint of an
    earlier session of this very run; ``cpus`` and ``gpus`` (fractions allowed) are what the trial gets of its node.
    """

    settings: dict[str, Any]
    store: Path
    split: Path
    start_from: Path | None = None
    cpus: int = 1
    gpus: float = 0.0

    def as_ray_config(self) -> dict[str, Any]:
        """The flat dictionary that Ray hands to ``setup``."""
        return {"trial": self}


class SmpTrainable(tune.Trainable):
    """A training run as Ray Tune drives it.

    An error of ours (wrong settings, unreadable data) is the same on every try: the trial then ends by itself and
    reports it, so that Ray does not try again. Any other exception goes to Ray, which starts the trial again from its
    last checkpoint.
    """

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """What Ray sets aside for the trial."""
        trial: TrialConfig = config["trial"]
        return tune.PlacementGroupFactory([{"CPU": trial.cpus, "GPU": trial.gpus}])

    def setup(self, config: dict[str, Any]) -> None:
        """Build the run, and go on from an earlier session's checkpoint if there is one."""
        import torch  # noqa: PLC0415  seconds to import: workers only, never the driver

        torch.set_num_threads(config["trial"].cpus)
        _log_warnings_only()
        trial: TrialConfig = config["trial"]
        self._run: Any = None
        self._refusal: TuneSmpError | None = None
        try:
            self._run = _build(trial)
        except TuneSmpError as error:
            self._refusal = error

    def step(self) -> dict[str, Any]:
        """Run one epoch."""
        if self._refusal is None:
            try:
                return _as_result(self._run.run_epoch(), self._run)
            except TuneSmpError as error:
                self._refusal = error
        return {"done": True, "stop": "failed", "refusal": _as_plain(self._refusal)}

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
        """Go on after a crash of the worker."""
        from tune_smp.training import checkpoint  # noqa: PLC0415  imports torch

        self._run.load_state_dict(checkpoint.load(Path(checkpoint_dir) / CHECKPOINT_NAME))


def _build(trial: TrialConfig) -> Any:
    from tune_smp.data.split import read_split  # noqa: PLC0415  the driver needs none of these
    from tune_smp.data.store import ImageStore  # noqa: PLC0415
    from tune_smp.settings.run import RunSettings  # noqa: PLC0415
    from tune_smp.training import checkpoint  # noqa: PLC0415
    from tune_smp.training.run import TrainingRun  # noqa: PLC0415

    store = ImageStore.open(trial.store)
    return TrainingRun(
        RunSettings.from_json(trial.settings),
        store,
        read_split(trial.split, store.collection),
        state=checkpoint.load(trial.start_from) if trial.start_from is not None else None,
    )


def _as_result(report: Any, run: Any) -> dict[str, Any]:
    return {
        **dataclasses.asdict(report),
        "epochs_before": run.epochs_before,
        "notes": run.notes,
        "done": report.stop is not None,
    }


def _as_plain(error: TuneSmpError) -> dict[str, Any]:
    return {"kind": type(error).__name__, "problems": [dataclasses.asdict(problem) for problem in error.problems]}


def refusal_from_plain(plain: dict[str, Any]) -> TuneSmpError:
    """The error that a trial ended with, back from its result."""
    kinds = {kind.__name__: kind for kind in _all_kinds(TuneSmpError)}
    return kinds[plain["kind"]](Problem(**problem) for problem in plain["problems"])


def _all_kinds(kind: type[TuneSmpError]) -> list[type[TuneSmpError]]:
    return [kind, *(deeper for child in kind.__subclasses__() for deeper in _all_kinds(child))]


def _log_warnings_only() -> None:
    logging.getLogger("timm").setLevel(logging.ERROR)
