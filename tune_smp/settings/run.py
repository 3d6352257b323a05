"""The settings of one run: every flag of ``train`` beyond those of its data, with what it means."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen

from tune_smp.choices.architectures import ARCHITECTURES, Architecture
from tune_smp.choices.augmentations import AUGMENTATIONS
from tune_smp.choices.encoders import RANDOM, Encoder
from tune_smp.choices.losses import LOSSES, Loss
from tune_smp.choices.metrics import METRICS, Metric
from tune_smp.choices.optimizers import OPTIMIZERS, Optimizer
from tune_smp.choices.schedules import SCHEDULES
from tune_smp.settings.base import Rule
from tune_smp.settings.data import DataSettings
from tune_smp.settings.encoder_choice import chosen_encoder, split_choice
from tune_smp.settings.fields import About
from tune_smp.settings.folders import AbsolutePath
from tune_smp.settings.rules import RUN_RULES, encoder_exists

DEFAULT_TILE_SIZE = 256
"""Height and width in px of a tile, where the encoder does not dictate them."""


class RunFlags(DataSettings):
    """The flags of a run, each valid by itself: of a single one, or those that hold for every trial of a search."""

    command: ClassVar[str] = "train"
    rules: ClassVar[tuple[Rule, ...]] = (*DataSettings.rules, encoder_exists)

    pretrained_model: Annotated[
        Path | None,
        AbsolutePath,
        About(
            "Pretrained model to start from: output folder of a run, or its model/, or of the original WIPP plugin.",
            "Model",
            absent="start from encoderBaseVariantWeights",
            wipp=True,
            folder="read",
        ),
    ] = None
    replace_head: Annotated[
        bool, About("New segmentation head: take a pretrainedModel of other classes, with a new last layer.", "Model")
    ] = False
    model_name: Annotated[
        str,
        About(
            "Architecture of the network: what joins the encoder's features into a mask.",
            "Model",
            choices=tuple(ARCHITECTURES),
            table="architectures",
            wipp=True,
        ),
    ] = "Unet"
    encoder_base_variant_weights: Annotated[
        str,
        MinLen(1),
        About(
            "Encoder as Family,variant,weights; weights may be random. tune-smp show encoders lists all.",
            "Model",
            wipp=True,
        ),
    ] = "ResNet,resnet34,imagenet"

    loss_name: Annotated[
        str,
        About(
            "Loss function that training minimizes.",
            "Loss and metric",
            choices=tuple(LOSSES),
            table="losses",
            wipp=True,
        ),
    ] = "JaccardLoss"
    metric_name: Annotated[
        str,
        About(
            "Validation metric that decides which epoch is best.",
            "Loss and metric",
            choices=tuple(METRICS),
            table="metrics",
            wipp=True,
        ),
    ] = "IoU"
    tversky_alpha: Annotated[
        float, Gt(0), About("Tversky alpha: weight of false positives (TverskyLoss).", "Loss and metric")
    ] = 0.5
    tversky_beta: Annotated[
        float, Gt(0), About("Tversky beta: weight of false negatives (TverskyLoss).", "Loss and metric")
    ] = 0.5
    focal_gamma: Annotated[
        float,
        Ge(0),
        About("Focal gamma: how much easy pixels are discounted (FocalLoss); 0, or at least 1.", "Loss and metric"),
    ] = 2.0

    optimizer_name: Annotated[
        str,
        About(
            "Optimizer that updates the weights.", "Training", choices=tuple(OPTIMIZERS), table="optimizers", wipp=True
        ),
    ] = "Adam"
    learning_rate: Annotated[
        float | None, Gt(0), About("Learning rate after warm-up.", "Training", absent="the optimizer's own")
    ] = None
    weight_decay: Annotated[float | None, Ge(0), About("Weight decay.", "Training", absent="the optimizer's own")] = (
        None
    )
    momentum: Annotated[
        float | None, Ge(0), Lt(1), About("Momentum of SGD and RMSprop.", "Training", absent="the optimizer's own")
    ] = None
    schedule: Annotated[
        str,
        About(
            "Learning-rate schedule: its course after warm-up.", "Training", choices=tuple(SCHEDULES), table="schedules"
        ),
    ] = "cosine"
    warmup_fraction: Annotated[
        float,
        Ge(0),
        Lt(1),
        About("Learning-rate warm-up: share of all steps over which the rate climbs to its value.", "Training"),
    ] = 0.05
    gradient_clip: Annotated[
        float, Ge(0), About("Gradient clipping: largest norm of the gradient; 0 switches it off.", "Training")
    ] = 1.0
    batch_size: Annotated[
        int | None,
        Ge(1),
        About(
            "Batch size: tiles per step.", "Training", unit="tiles", absent="the largest that fits, measured", wipp=True
        ),
    ] = None
    max_epochs: Annotated[
        int, Ge(1), About("Number of epochs to train at most.", "Training", unit="epochs", wipp=True)
    ] = 100
    steps_per_epoch: Annotated[
        int | None,
        Ge(1),
        About("Steps per epoch.", "Training", unit="steps", absent="one pass over the training tiles"),
    ] = None
    patience: Annotated[
        int,
        Ge(1),
        About(
            "Early-stopping patience: epochs without a better validation loss after which training stops.",
            "Training",
            unit="epochs",
            wipp=True,
        ),
    ] = 10
    min_delta: Annotated[
        float,
        Ge(0),
        About(
            "Early-stopping threshold: by how much the validation loss must fall to count as better.",
            "Training",
            wipp=True,
        ),
    ] = 1e-4

    tile_size: Annotated[
        int | None,
        Ge(32),
        About(
            "Tile size: height and width of the windows that are trained on.",
            "Tiles",
            unit="px",
            absent=f"{DEFAULT_TILE_SIZE}, or what the encoder dictates",
        ),
    ] = None
    foreground_fraction: Annotated[
        float,
        Ge(0),
        Le(1),
        About("Foreground oversampling: share of training tiles that are centred on foreground.", "Tiles"),
    ] = 0.33
    augmentation: Annotated[
        str,
        About(
            "Data augmentation: how strongly training tiles are varied.",
            "Tiles",
            choices=tuple(AUGMENTATIONS),
            table="augmentations",
        ),
    ] = "medium"
    normalization: Annotated[
        Literal["percentile", "zscore", "minmax", "none"],
        About(
            "Intensity normalization: how pixel values become the numbers that the model sees.",
            "Tiles",
            table="normalizations",
        ),
    ] = "percentile"
    normalization_scope: Annotated[
        Literal["image", "collection"],
        About("Scope of the normalization: each image by its own pixel values, or all alike.", "Tiles"),
    ] = "image"

    device: Annotated[
        Literal["auto", "cpu", "gpu"], About("Device to train on; auto takes a GPU where there is one.", "Machine")
    ] = "auto"
    precision: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        About("Numerical precision of the forward pass (mixed precision); auto takes the fastest safe one.", "Machine"),
    ] = "auto"
    dashboard: Annotated[bool, About("Ray dashboard: start it with the run.", "Machine")] = True
    dashboard_host: Annotated[str, MinLen(1), About("Dashboard address to listen on.", "Machine")] = "127.0.0.1"
    dashboard_port: Annotated[
        int | None,
        Ge(1),
        Le(65535),
        About("Dashboard port to listen on.", "Machine", absent="the first free one"),
    ] = None

    output_dir: Annotated[
        Path,
        AbsolutePath,
        About(
            "Output folder for the model and everything else that is written.", "Output", wipp=True, folder="written"
        ),
    ]
    overwrite: Annotated[bool, About("Overwrite a finished run in outputDir.", "Output")] = False
    export_onnx: Annotated[bool, About("ONNX export: write model/model.onnx too.", "Output")] = False

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
    def resolved_tile_size(self) -> int:
        """The tile size (px) given, else what the encoder dictates, else `DEFAULT_TILE_SIZE`."""
        return self.tile_size or self.encoder.tile_size or DEFAULT_TILE_SIZE


class RunSettings(RunFlags):
    """One fixed configuration."""

    rules: ClassVar[tuple[Rule, ...]] = (*RunFlags.rules, *RUN_RULES)
