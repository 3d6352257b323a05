"""One run: a model trained epoch by epoch. Knows no Ray, writes no file but a note in the cache."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from tune_smp.choices.metrics import DEFAULT_THRESHOLD
from tune_smp.data.split import Region
from tune_smp.data.store.image_store import ImageStore
from tune_smp.errors import DataError, Problem
from tune_smp.settings.run import RunSettings
from tune_smp.training.batch_norm import remembers_its_start, statistics_of
from tune_smp.training.batch_size import described, measure_batch_size, random_tile, useful_batch_size
from tune_smp.training.builders import ModelShape, build_model
from tune_smp.training.early_stopping import EarlyStopping
from tune_smp.training.feed import TileFeed
from tune_smp.training.losses import build_loss
from tune_smp.training.memory import keep_freed_memory
from tune_smp.training.metrics import PixelCounts
from tune_smp.training.optimizers import build_optimizer, learning_rate, load_optimizer_state, set_learning_rate
from tune_smp.training.precision import choose_device, choose_precision, use_fast_kernels
from tune_smp.training.pretrained import adopt_weights, load_earlier_run, optimizer_state
from tune_smp.training.run_state import EpochReport, RunState, Used, format_of
from tune_smp.training.seeding import seeded
from tune_smp.training.step import Tiles, TrainingStep
from tune_smp.training.step_memory import StepMemory
from tune_smp.training.time_budget import TimeBudget
from tune_smp.training.validation import NOT_VALIDATED, Validation, better, validate, with_logits

TILES_FOR_STATISTICS = 128
"""Tiles over which statistics of batch normalisation are taken anew."""


class TrainingRun:
    """Model, optimizer and data of one run, and where it stands.

    Everything random depends on the seed and the number of the epoch alone: a run that is stopped, stored, loaded and
    continued has, on a CPU, the very history of one that was never stopped.
    """

    def __init__(
        self,
        settings: RunSettings,
        store: ImageStore,
        regions: Sequence[Region],
        *,
        device: torch.device | None = None,
        state: RunState | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """``state``, an earlier ``state_dict`` of this run: resume there, without fetching encoder weights, reading
        the model that ``--pretrainedModel`` names, or measuring a batch size. ``clock`` counts the seconds of epochs
        and of ``--timeBudget``.

        Raises SettingsError, DataError or ResourceError where this cannot be trained here.
        """
        self.settings = settings
        self.device = device or choose_device(settings.device)
        use_fast_kernels(self.device)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.shape = ModelShape.of(settings, channels=store.channels, classes=store.class_map.classes)
        self.feed = TileFeed(settings, store, regions, device=self.device)
        self._cache = store.path.parent
        self.precision = choose_precision(
            settings.precision,
            self.device,
            needs_closure=settings.optimizer.needs_closure,
            before=format_of(state),
        )
        starts_from_weights = state is None and settings.pretrained_model is None
        self.model = self._new_model(load_weights=starts_from_weights)
        self.step = self._new_step(self.model)

        self._clock = clock
        budget = settings.time_budget_s
        self._budget = None if budget is None else TimeBudget(budget, epochs=settings.most_epochs, clock=clock)
        self.steps = 0  # of this run
        self.epoch = 0
        self.epochs_before = 0  # of the earlier run that this one continues
        self.best_epoch = 0
        self.best_metric = math.nan
        self.stop: str | None = None
        self.history: list[EpochReport] = []
        self._stopping = EarlyStopping(settings.resolved_patience, settings.min_delta)
        self._best_weights: dict[str, Tensor] | None = None  # None: those of the model as it is
        self._notes: tuple[str, ...] = ()
        self._thresholds: tuple[float, ...] | None = None  # the best ones
        self.image_counts: list[list[list[int]]] | None = None  # not asked for

        if state is not None:
            self.load_state_dict(state)
        else:
            self._start()

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user, so far."""
        return self._notes + self.step.notes

    @property
    def used(self) -> Used:
        """The values that settings leave open, or the machine decides."""
        group = self.step.optimizer.param_groups[0]
        is_gpu = self.device.type == "cuda"
        return {
            "batchSize": self.batch_size,
            "stepsPerEpoch": self.feed.steps if self._budget is None else round(self.steps / max(self._epochs_done, 1)),
            "tileSize": self.settings.resolved_tile_size,
            "learningRate": self.settings.resolved_learning_rate,
            "weightDecay": float(group.get("weight_decay", 0.0)),
            "device": torch.cuda.get_device_name(self.device) if is_gpu else self.device.type,
            "precision": self.precision.name,
            "threads": torch.get_num_threads(),
        }

    @property
    def batch_size(self) -> int:
        """Tiles per step."""
        return self.feed.batch_size

    @property
    def last_report(self) -> EpochReport:
        """The report of the last epoch. Raises IndexError before the first."""
        return self.history[-1]

    def run_epoch(self) -> EpochReport:
        """Train on the training tiles, validate on the whole validation set, and judge.

        Raises ResourceError where memory does not suffice.
        """
        if self.stop is not None:
            raise RuntimeError(f"the run has ended: {self.stop}")
        started = self._clock()
        self._keep_best_weights()
        self.epoch += 1
        if self._budget is not None:
            self._budget.begin_epoch()

        with seeded(self.settings.seed, self.epoch, self.device):
            train_loss = self._train_epoch()
        validation, weights = self._validate_epoch() if math.isfinite(train_loss) else (NOT_VALIDATED, None)
        self._judge(train_loss, validation, weights)

        report = self._report(train_loss, validation, seconds=self._clock() - started)
        self.history.append(report)
        return report

    def validate(self, thresholds: Sequence[float] | None = None) -> Validation:
        """Validate the model as it is, on the whole validation set; without ``thresholds`` at those that suit best."""
        self.model.eval()
        counts = PixelCounts(self.settings.segmentation_mode, self.shape.classes, self.device)
        at = self._thresholds if thresholds is None else thresholds
        tiles = self.feed.validation()
        return validate(self.step, tiles, counts, self.settings.metric, at, batch_size=self.batch_size)

    @torch.inference_mode()
    def count_images(self) -> None:
        """Count the pixels of each validation image by itself, for the best epoch above its thresholds: they are in the
        state from then on.

        Raises RuntimeError where no epoch had finite losses.
        """
        if self.best_epoch == 0:
            raise RuntimeError("no epoch can be counted")
        thresholds = next(row["thresholds"] for row in self.history if row["epoch"] == self.best_epoch)
        kept = _copied(self.model) if self._best_weights is not None else None
        if self._best_weights is not None:
            self.model.load_state_dict(self._best_weights)
        self.model.eval()
        self.image_counts = []
        for batches in self.feed.validation_by_image():
            counts = PixelCounts(self.settings.segmentation_mode, self.shape.classes, self.device)
            for tiles in batches:
                for batch, logits in with_logits(self.step, tiles, self.batch_size):
                    counts.add_logits(logits, batch.masks)
            self.image_counts.append(counts.at(thresholds))
        if kept is not None:
            self.model.load_state_dict(kept)

    def _train_epoch(self) -> float:
        """Mean loss over the steps."""
        self.model.train()
        # Added up on the device and read once: every reading makes the host wait.
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        before = self.steps
        for tiles in self.feed.training(self.epoch, without_end=self._budget is not None):
            set_learning_rate(self.step.optimizer, self._learning_rate())
            total += self.step(tiles)
            self.steps += 1
            if self._budget is not None and self._budget.has_trained_enough():
                break
        return total.item() / (self.steps - before)

    def _validate_epoch(self) -> tuple[Validation, dict[str, Tensor] | None]:
        """The result of the epoch, and the weights that it belongs to, None for the model as it is.

        While the statistics of batch normalisation are far behind the weights, those of now are tried too, and the
        better of both counts.
        """
        validation = self.validate()
        if self._budget is not None:
            self._budget.validated()
        if not remembers_its_start(self.model, self.steps) or not self._has_time_for_statistics():
            return validation, None
        size = max(2, self.step.piece_size(self.batch_size))
        tiles = self.feed.plain_training(self.epoch, tiles=TILES_FOR_STATISTICS, batch_size=size)
        with (
            seeded(self.settings.seed, self.epoch, self.device),
            self.step.in_format(),
            statistics_of(self.model, self._images_in_time(tiles)),
        ):
            counts = better(validation, self.validate())
            return counts, None if counts is validation else _copied(self.model)

    def _has_time_for_statistics(self) -> bool:
        """They cost, with the validation that follows, at most twice what validation costs where time is limited."""
        return self._budget is None or self._budget.has_time_for(2 * self._budget.validation)

    def _images_in_time(self, tiles: Iterable[Tiles]) -> Iterator[Tensor]:
        """The images of the batches, with a time budget no more than take as long as a validation."""
        started = self._clock()
        for batch in tiles:
            yield batch.images
            if self._budget is not None and self._clock() - started > self._budget.validation:
                return

    def _judge(self, train_loss: float, validation: Validation, weights: dict[str, Tensor] | None) -> None:
        """Whether this epoch, with these weights, is the best so far, and whether it was the last."""
        if not (math.isfinite(train_loss) and math.isfinite(validation.loss)):
            self.stop = "diverged"
            return
        if self.best_epoch == 0 or validation.metric > self.best_metric:
            self.best_epoch, self.best_metric = self.epoch, validation.metric
            self._best_weights = weights
        self._stopping.update(validation.loss)
        self.stop = self._reason_to_stop()

    def _reason_to_stop(self) -> str | None:
        is_done = self._epochs_done >= self.settings.max_epochs if self._budget is None else self._budget.is_over
        if is_done:
            return "completed"
        return "early_stopped" if self._stopping.is_over else None

    def _report(self, train_loss: float, validation: Validation, *, seconds: float) -> EpochReport:
        metrics = validation.metrics
        return EpochReport(
            epoch=self.epoch,
            train_loss=train_loss,
            val_loss=validation.loss,
            val_iou=metrics.iou,
            val_fscore=metrics.fscore,
            val_accuracy=metrics.accuracy,
            val_recall=metrics.recall,
            val_precision=metrics.precision,
            learning_rate=self.step.optimizer.param_groups[0]["lr"],
            seconds=seconds,
            metric=validation.metric,
            thresholds=validation.thresholds,
            best_metric=self.best_metric,
            best_epoch=self.best_epoch,
            stop=self.stop,
            class_iou=validation.best_metrics.class_iou,
            batch_size=self.batch_size,
        )

    @property
    def _epochs_done(self) -> int:
        """Epochs of this run, without those of the one that it continues."""
        return self.epoch - self.epochs_before

    def _learning_rate(self) -> float:
        """Return the rate of the next step."""
        if self._budget is not None:
            return learning_rate(self.settings, self._budget.progress)
        return learning_rate(self.settings, self.steps / (self.feed.steps * self.settings.max_epochs))

    def state_dict(self) -> RunState:
        """Return the state of the run: numbers, text, tensors, and containers of these.

        The tensors are the live ones: store them, or copy them, before the next epoch. ``best_model`` is None where the
        model as it is now is the best one.
        """
        return {
            "shape": self.shape.to_json(),
            "batch_size": self.batch_size,
            "epoch": self.epoch,
            "epochs_before": self.epochs_before,
            "steps": self.steps,
            "budget": None if self._budget is None else self._budget.state_dict(),
            "best_epoch": self.best_epoch,
            "best_metric": self.best_metric,
            "stop": self.stop,
            "history": list(self.history),
            "notes": self.notes,
            "used": self.used,
            "early_stopping": self._stopping.state_dict(),
            "model": self.model.state_dict(),
            "best_model": self._best_weights,
            "image_counts": self.image_counts,
            **self.step.state_dict(),
        }

    def load_state_dict(self, state: RunState) -> None:
        """Resume where a run of the same settings stood. Raises DataError where the state is of another model."""
        shape = ModelShape.from_json(state["shape"])
        if shape != self.shape:
            fix = "resume with the settings that the run was started with"
            raise DataError(Problem(f"the stored state is of {shape}, this run trains {self.shape}", fix=fix))
        self.feed.batch_size = state["batch_size"]
        self.epoch, self.epochs_before = state["epoch"], state["epochs_before"]
        # A checkpoint of an older version counts epochs alone, which had all one length.
        self.steps = state.get("steps", self._epochs_done * self.feed.steps)
        budget = state.get("budget")
        if self._budget is not None and budget is not None:
            self._budget.load_state_dict(budget)
        self.best_epoch, self.best_metric = state["best_epoch"], state["best_metric"]
        self.history = list(state["history"])
        self._notes = tuple(state["notes"])
        if (before := format_of(state)) not in (None, self.precision.name):
            self._notes += (f"resumed in {self.precision.name}: the run began in {before}, which is slower here",)
        if self.settings.segmentation_mode != "multiclass" and any("thresholds" not in row for row in self.history):
            # Begun by a version that knew 0.5 alone: epochs are comparable at one kind of threshold only.
            self._thresholds = (DEFAULT_THRESHOLD,) * self.shape.classes
        self._stopping.load_state_dict(state["early_stopping"])
        self.image_counts = state.get("image_counts")
        self.model.load_state_dict(dict(state["model"]))
        self._best_weights = state["best_model"]
        self.step.load_state_dict(state)
        # Asked again, for a run that is resumed with more epochs or patience.
        self.stop = state["stop"] if state["stop"] == "diverged" else self._reason_to_stop()

    def _start(self) -> None:
        if self.settings.pretrained_model is not None:
            self._continue_earlier_run()
        self.feed.batch_size = self.settings.batch_size or self._measured_batch_size()

    def _continue_earlier_run(self) -> None:
        """Take over weights and, from a checkpoint, what the optimizer has learnt and the count of epochs."""
        assert self.settings.pretrained_model is not None  # noqa: S101 - the caller's condition
        earlier = load_earlier_run(self.settings.pretrained_model)
        replace_head = self.settings.replace_head
        self._notes += adopt_weights(self.model, self.shape, earlier, replace_head=replace_head)
        if earlier.training is None:
            return
        self.epoch = self.epochs_before = earlier.training.epochs
        same = not replace_head and earlier.training.optimizer_name == self.settings.optimizer_name
        learnt = optimizer_state(self.model, earlier.training) if same else None
        if learnt is None:
            self._notes += (f"{self.settings.optimizer_name} starts anew: the earlier run's state does not fit it",)
        else:
            load_optimizer_state(self.step.optimizer, learnt)

    def _new_model(self, *, load_weights: bool) -> nn.Module:
        with seeded(self.settings.seed, 0, self.device):
            channels, classes = self.shape.channels, self.shape.classes
            model = build_model(self.settings, channels=channels, classes=classes, load_weights=load_weights)
        return model.to(self.device)

    def _new_step(self, model: nn.Module) -> TrainingStep:
        return TrainingStep(
            model,
            build_loss(self.settings),
            build_optimizer(self.settings, model.parameters()),
            row=self.settings.optimizer,
            precision=self.precision,
            gradient_clip=self.settings.gradient_clip,
        )

    def _measured_batch_size(self) -> int:
        device = self.device
        most = useful_batch_size(
            tiles=self.feed.training_tiles,
            steps_per_epoch=self.settings.steps_per_epoch,
            device_type=device.type,
        )
        with seeded(self.settings.seed, 0, device):
            tile = random_tile(self.settings, self.shape, device)
        network = described(self.settings, self.shape, precision=self.precision, device=device)
        memory = StepMemory(self._cache, network)
        return measure_batch_size(self._new_step, self.model, tile=tile, most=most, memory=memory)

    def _keep_best_weights(self) -> None:
        """The next epoch changes the weights: copy them if they are the best so far."""
        if 0 < self.best_epoch == self.epoch and self._best_weights is None:
            self._best_weights = _copied(self.model)


def _copied(model: nn.Module) -> dict[str, Tensor]:
    layout = torch.contiguous_format
    return {
        name: tensor.detach().to("cpu", copy=True, memory_format=layout) for name, tensor in model.state_dict().items()
    }
