"""The settings of one run: every flag of ``train`` beyond those of its data, with what it means."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen

from tune_smp.choices.architectures import ARCHITECTURES, MOST_CHANNELS, Architecture
from tune_smp.choices.augmentations import AUGMENTATIONS
from tune_smp.choices.encoders import RANDOM, Encoder
from tune_smp.choices.losses import LOSSES, Loss
from tune_smp.choices.metrics import METRICS, Metric
from tune_smp.choices.optimizers import OPTIMIZERS, Optimizer
from tune_smp.choices.schedules import SCHEDULES
from tune_smp.settings.base import Rule
from tune_smp.settings.data import DataSettings
from tune_smp.settings.duration import seconds_of
from tune_smp.settings.encoder_choice import chosen_encoder, split_choice
from tune_smp.settings.fields import About
from tune_smp.settings.folders import AbsolutePath
from tune_smp.settings.rules import RUN_RULES, encoder_exists

EPOCHS_OF_A_BUDGET = 40
"""Epochs into which a time budget is divided, at most, where nobody says: each is validated."""
DEFAULT_TILE_SIZE = 256
"""Height and width in px of a tile, where the encoder does not dictate them."""


class RunFlags(DataSettings):
    """The flags of a run, each valid by itself: of a single one, or those that hold for every trial of a search."""

    command: ClassVar[str] = "train"
    rules: ClassVar[tuple[Rule, ...]] = (*DataSettings.rules, encoder_exists)

    pretrained_model: Annotated[
        Path | None,
        AbsolutePath,
        About("Model", absent="start from encoderBaseVariantWeights", wipp=True, folder="read"),
    ] = None
    """Pretrained model to start from: output folder of a run, or its model/, or of the original WIPP plugin."""
    replace_head: Annotated[bool, About("Model")] = False
    """New segmentation head: take a pretrainedModel of other classes, with a new last layer."""
    model_name: Annotated[str, About("Model", choices=tuple(ARCHITECTURES), table="architectures", wipp=True)] = "Unet"
    """Architecture of the network: what joins the encoder's features into a mask."""
    encoder_base_variant_weights: Annotated[str, MinLen(1), About("Model", wipp=True)] = "ResNet,resnet34,imagenet"
    """Encoder as Family,variant,weights; weights may be random. tune-smp show encoders lists all."""
    encoder_depth: Annotated[int | None, Ge(3), Le(5), About("Model", absent="the architecture's own, mostly 5")] = None
    """Depth of the encoder: how often it halves the image; shallow nets are fast, and see less around a pixel."""
    decoder_channels: Annotated[
        int | None, Ge(16), Le(MOST_CHANNELS), About("Model", absent="the architecture's own, 256 for a Unet")
    ] = None
    """Width of the decoder: channels of a Unet's coarsest level (each finer one has half, at least 16), else of all."""
    decoder_attention: Annotated[Literal["none", "scse"], About("Model")] = "none"
    """Attention in the decoder of a Unet or UnetPlusPlus: scse weighs features by channel and by place."""

    loss_name: Annotated[str, About("Loss and metric", choices=tuple(LOSSES), table="losses", wipp=True)] = (
        "JaccardLoss"
    )
    """Loss function that training minimizes."""
    metric_name: Annotated[str, About("Loss and metric", choices=tuple(METRICS), table="metrics", wipp=True)] = "IoU"
    """Validation metric that decides which epoch is best."""
    tversky_alpha: Annotated[float, Gt(0), About("Loss and metric")] = 0.5
    """Tversky alpha: weight of false positives (TverskyLoss)."""
    tversky_beta: Annotated[float, Gt(0), About("Loss and metric")] = 0.5
    """Tversky beta: weight of false negatives (TverskyLoss)."""
    focal_gamma: Annotated[float, Ge(0), About("Loss and metric")] = 2.0
    """Focal gamma: how much easy pixels are discounted (FocalLoss, DiceFocalLoss); 0, or at least 1."""
    dice_weight: Annotated[float, Gt(0), Lt(1), About("Loss and metric")] = 0.5
    """Dice weight: share of the Dice loss in losses that combine it with another (DiceCELoss, DiceFocalLoss)."""

    optimizer_name: Annotated[str, About("Training", choices=tuple(OPTIMIZERS), table="optimizers", wipp=True)] = "Adam"
    """Optimizer that updates the weights."""
    learning_rate: Annotated[float | None, Gt(0), About("Training", absent="the optimizer's own")] = None
    """Learning rate after warm-up."""
    weight_decay: Annotated[float | None, Ge(0), About("Training", absent="the optimizer's own")] = None
    """Weight decay."""
    momentum: Annotated[float | None, Ge(0), Lt(1), About("Training", absent="the optimizer's own")] = None
    """Momentum of SGD and RMSprop."""
    schedule: Annotated[str, About("Training", choices=tuple(SCHEDULES), table="schedules")] = "cosine"
    """Learning-rate schedule: its course after warm-up."""
    warmup_fraction: Annotated[float, Ge(0), Lt(1), About("Training")] = 0.05
    """Learning-rate warm-up: share of all steps over which the rate climbs to its value."""
    gradient_clip: Annotated[float, Ge(0), About("Training")] = 1.0
    """Gradient clipping: largest norm of the gradient; 0 switches it off."""
    batch_size: Annotated[
        int | None, Ge(1), About("Training", unit="tiles", absent="the largest that fits, measured", wipp=True)
    ] = None
    """Batch size: tiles per step."""
    max_epochs: Annotated[int, Ge(1), About("Training", unit="epochs", wipp=True)] = 100
    """Number of epochs to train at most."""
    steps_per_epoch: Annotated[
        int | None, Ge(1), About("Training", unit="steps", absent="one pass over the training tiles")
    ] = None
    """Steps per epoch."""
    patience: Annotated[int, Ge(1), About("Training", unit="epochs", wipp=True)] = 10
    """Early-stopping patience: epochs without a better validation loss after which training stops."""
    min_delta: Annotated[float, Ge(0), About("Training", wipp=True)] = 0.0001
    """Early-stopping threshold: by how much the validation loss must fall to count as better."""

    tile_size: Annotated[
        int | None, Ge(32), About("Tiles", unit="px", absent=f"{DEFAULT_TILE_SIZE}, or what the encoder dictates")
    ] = None
    """Tile size: height and width of the windows that are trained on."""
    foreground_fraction: Annotated[float, Ge(0), Le(1), About("Tiles")] = 0.33
    """Foreground oversampling: share of training tiles that are centred on foreground."""
    augmentation: Annotated[str, About("Tiles", choices=tuple(AUGMENTATIONS), table="augmentations")] = "medium"
    """Data augmentation: how strongly training tiles are varied."""
    normalization: Annotated[
        Literal["percentile", "zscore", "minmax", "none"], About("Tiles", table="normalizations")
    ] = "percentile"
    """Intensity normalization: how pixel values become the numbers that the model sees."""
    normalization_scope: Annotated[Literal["image", "collection"], About("Tiles")] = "image"
    """Scope of the normalization: each image by its own pixel values, or all alike."""

    device: Annotated[Literal["auto", "cpu", "gpu"], About("Machine")] = "auto"
    """Device to train on; auto takes a GPU where there is one."""
    precision: Annotated[Literal["auto", "float32", "bfloat16", "float16"], About("Machine")] = "auto"
    """Numerical precision of the forward pass (mixed precision); auto takes bfloat16 where the
    device is faster in it (GPUs from Ampere on, CPUs with AMX or AVX512-BF16)."""
    dashboard: Annotated[bool, About("Machine")] = True
    """Ray dashboard: start it with the run."""
    dashboard_host: Annotated[str, MinLen(1), About("Machine")] = "127.0.0.1"
    """Dashboard address to listen on."""
    dashboard_port: Annotated[int | None, Ge(1), Le(65535), About("Machine", absent="the first free one")] = None
    """Dashboard port to listen on."""

    output_dir: Annotated[Path, AbsolutePath, About("Output", wipp=True, folder="written")]
    """Output folder for the model and everything else that is written."""
    overwrite: Annotated[bool, About("Output")] = False
    """Overwrite a finished run in outputDir."""
    export_onnx: Annotated[bool, About("Output")] = False
    """ONNX export: write model/model.onnx too."""

    @property
    def encoder(self) -> Encoder:
        """Row of the encoder."""
        encoder = chosen_encoder(self.encoder_base_variant_weights)
        assert encoder is not None  # noqa: S101 - the rules let no other settings exist
        return encoder

    @property
    def encoder_weights(self) -> str | None:
        """Name of the pretrained weights; None for random ones."""
        choice = split_choice(self.encoder_base_variant_weights)
        return None if choice is None or choice.weights == RANDOM else choice.weights

    @property
    def architecture(self) -> Architecture:
        """Row of the architecture."""
        return ARCHITECTURES[self.model_name]

    @property
    def optimizer(self) -> Optimizer:
        """Row of the optimizer."""
        return OPTIMIZERS[self.optimizer_name]

    @property
    def loss(self) -> Loss:
        """Row of the loss."""
        return LOSSES[self.loss_name]

    @property
    def metric(self) -> Metric:
        """Row of the metric."""
        return METRICS[self.metric_name]

    @property
    def resolved_learning_rate(self) -> float:
        """The learning rate given, else the optimizer's own."""
        return self.optimizer.default_learning_rate if self.learning_rate is None else self.learning_rate

    @property
    def resolved_weight_decay(self) -> float:
        """The weight decay given, else the optimizer's own; 0 where the optimizer has none."""
        return self.optimizer.default_weight_decay if self.weight_decay is None else self.weight_decay

    @property
    def resolved_momentum(self) -> float:
        """The momentum given, else the optimizer's own; 0 where the optimizer has none."""
        return self.optimizer.default_momentum if self.momentum is None else self.momentum

    @property
    def resolved_encoder_depth(self) -> int:
        """The depth given, else the architecture's own."""
        return self.encoder_depth or self.architecture.encoder_depth

    @property
    def resolved_decoder_channels(self) -> int | None:
        """The width of the decoder given, else the architecture's own; None where it follows from the encoder."""
        return self.decoder_channels or self.architecture.own_width(self.resolved_encoder_depth)

    @property
    def resolved_tile_size(self) -> int:
        """The tile size (px) given, else what the encoder dictates, else `DEFAULT_TILE_SIZE`."""
        return self.tile_size or self.encoder.tile_size or DEFAULT_TILE_SIZE


class RunSettings(RunFlags):
    """One fixed configuration."""

    rules: ClassVar[tuple[Rule, ...]] = (*RunFlags.rules, *RUN_RULES)

    time_budget: Annotated[str | None, MinLen(1), About("Training", absent="as long as maxEpochs take")] = None
    """Time budget of the training, such as 10m or 1h30m, which the schedule fits; then maxEpochs is into how many
    epochs it is divided at most (40 where not given), and only a given patience ends it early."""

    refit: Annotated[bool, About("Output")] = False
    """Refit: train once more afterwards, on training and validation images together, into refit/."""

    @property
    def time_budget_s(self) -> float | None:
        """The time budget in seconds."""
        return seconds_of(self.time_budget) if self.time_budget else None

    @property
    def most_epochs(self) -> int:
        """Epochs at most."""
        is_divided = self.time_budget is not None and "max_epochs" not in self.model_fields_set
        return EPOCHS_OF_A_BUDGET if is_divided else self.max_epochs

    @property
    def resolved_patience(self) -> float:
        """Epochs without improvement that end the run; infinite where a time budget alone does."""
        is_unlimited = self.time_budget is not None and "patience" not in self.model_fields_set
        return math.inf if is_unlimited else self.patience
