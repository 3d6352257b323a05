"""What people write by hand around segmentation-models-pytorch: the peers of ``benchmarks.table``.

A data set that reads the images with tifffile, a DataLoader, plain float32, Adam at 0.001, the Jaccard loss; as a loop,
as a LightningModule, as a function for Ray Tune, and as an objective of Optuna. Crops are mirrored, and not augmented
otherwise: less work than this project's default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import segmentation_models_pytorch as smp
import tifffile
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset


@dataclass(frozen=True)
class Task:
    """Images of a folder that ``write_nuclei`` made, the first of them for validation, and what one run does."""

    folder: Path
    encoder: str
    tile: int
    batch: int
    steps: int  # an epoch
    validation_tiles: int
    validation_images: int
    epochs: int = 1

    @property
    def files(self) -> list[Path]:
        return sorted((self.folder / "images").iterdir())


class Crops(Dataset[tuple[Tensor, Tensor]]):
    """Random crops (1, tile, tile) in [0, 1] and their masks; every one is read from its file."""

    def __init__(self, files: Sequence[Path], *, tile: int, count: int) -> None:
        self._files, self._tile, self._count = list(files), tile, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        path = self._files[index % len(self._files)]
        image = tifffile.imread(path)
        mask = tifffile.imread(path.parents[1] / "labels" / path.name)
        y, x = (int(torch.randint(0, side - self._tile + 1, ())) for side in image.shape)
        place = slice(y, y + self._tile), slice(x, x + self._tile)
        crop, truth = image[place].astype(np.float32) / np.iinfo(image.dtype).max, (mask[place] > 0).astype(np.float32)
        if torch.rand(()) < 0.5:
            crop, truth = crop[:, ::-1], truth[:, ::-1]
        return torch.from_numpy(crop.copy())[None], torch.from_numpy(truth.copy())[None]


def loaders(task: Task, *, workers: int) -> tuple[DataLoader[tuple[Tensor, Tensor]], DataLoader[tuple[Tensor, Tensor]]]:
    """The training and the validation tiles of an epoch."""
    held_out, rest = task.files[: task.validation_images], task.files[task.validation_images :]
    counts = (rest, task.steps * task.batch), (held_out, task.validation_tiles)
    training, validation = (
        DataLoader(
            Crops(files, tile=task.tile, count=count),
            batch_size=task.batch,
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        for files, count in counts
    )
    return training, validation


def new_model(task: Task) -> nn.Module:
    model: nn.Module = smp.Unet(task.encoder, encoder_weights=None, in_channels=1, classes=1)
    return model


class Loop:
    """The usual loop; an epoch ends with the IoU of the validation tiles."""

    def __init__(self, task: Task, *, workers: int = 2, learning_rate: float = 1e-3) -> None:
        self._model = new_model(task)
        self._loss = smp.losses.JaccardLoss("binary")
        self._optimizer = torch.optim.Adam(self._model.parameters(), lr=learning_rate)
        self._training, self._validation = loaders(task, workers=workers)

    def epoch(self) -> float:
        self._model.train()
        for images, masks in self._training:
            self._optimizer.zero_grad()
            self._loss(self._model(images), masks).backward()
            self._optimizer.step()
        self._model.eval()
        hit = union = 0.0
        with torch.no_grad():
            for images, masks in self._validation:
                found = self._model(images).sigmoid() > 0.5
                hit += (found & (masks > 0.5)).sum().item()
                union += (found | (masks > 0.5)).sum().item()
        return hit / max(union, 1.0)

    def run(self, epochs: int, folder: Path) -> Iterator[float]:
        """Train, keeping the best model; the IoU of each epoch."""
        best = -1.0
        for _ in range(epochs):
            iou = self.epoch()
            if iou > best:
                best = iou
                torch.save(self._model.state_dict(), folder / "best.pth")
            yield iou


def lightning_run(task: Task, folder: Path) -> Callable[[], None]:
    """A whole run by PyTorch Lightning. Raises ImportError where that is not installed (``pip install '.[bench]'``)."""
    import pytorch_lightning as lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.loss = new_model(task), smp.losses.JaccardLoss("binary")

        def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
            images, masks = batch
            loss: Tensor = self.loss(self.model(images), masks)
            return loss

        def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
            images, masks = batch
            self.log("val_loss", self.loss(self.model(images), masks))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=1e-3)

    def run() -> None:
        training, validation = loaders(task, workers=2)
        trainer = lightning.Trainer(
            accelerator="cpu",
            max_epochs=task.epochs,
            num_sanity_val_steps=0,
            default_root_dir=folder,
            callbacks=[lightning.callbacks.ModelCheckpoint(monitor="val_loss")],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(Module(), training, validation)

    return run


def ray_search(task: Task, folder: Path, *, trials: int, concurrency: int) -> None:
    """A random search by Ray Tune over the learning rate; every trial loads its own data."""
    import ray
    from ray import tune

    def trainable(config: dict[str, float]) -> None:
        torch.set_num_threads(1)
        loop = Loop(task, workers=0, learning_rate=config["learning_rate"])
        for iou in loop.run(task.epochs, Path()):
            tune.report({"iou": iou})

    ray.init(address="local", num_cpus=concurrency, log_to_driver=False)
    try:
        tuner = tune.Tuner(
            trainable,
            param_space={"learning_rate": tune.loguniform(1e-4, 1e-2)},
            tune_config=tune.TuneConfig(num_samples=trials, metric="iou", mode="max"),
            run_config=tune.RunConfig(storage_path=str(folder), verbose=0),
        )
        results = tuner.fit()
        assert not results.errors, results.errors
    finally:
        ray.shutdown()


def optuna_search(task: Task, folder: Path, *, trials: int) -> None:
    """A search by Optuna over the learning rate, in this process, one trial after the other on all cores."""
    import optuna

    def objective(trial: optuna.Trial) -> float:
        rate = trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)
        return max(Loop(task, workers=0, learning_rate=rate).run(task.epochs, folder))

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    optuna.create_study(direction="maximize").optimize(objective, n_trials=trials)
