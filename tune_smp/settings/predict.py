"""The settings of a prediction: every flag of ``predict``, with what it means."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal, cast

from annotated_types import Ge, Gt, Lt, MinLen
from pydantic import BeforeValidator, TypeAdapter, ValidationError

from tune_smp.errors import Problem, SettingsError
from tune_smp.settings.base import Draft, Rule, Settings
from tune_smp.settings.fields import About, flags_of
from tune_smp.settings.folders import AbsolutePath, resolve_folder
from tune_smp.settings.wording import wrong_value

AskedViews = Literal["none", "flips", "all", "auto"]


def _preset_for_a_truth(value: object) -> object:
    """The flag was a switch once: true means every view, false none."""
    try:
        return "all" if TypeAdapter(bool).validate_python(value) else "none"
    except ValidationError:
        return value


def asked_views(value: object) -> AskedViews:
    """A preset's name, or a truth, as ``--testTimeAugmentation`` takes it. Raises SettingsError for anything else."""
    (flag,) = (flag for flag in flags_of(PredictSettings) if flag.field == "test_time_augmentation")
    preset = _preset_for_a_truth(value)
    if preset not in flag.choices:
        raise SettingsError(wrong_value(flag, value))
    return cast(AskedViews, preset)


def overlap_leaves_a_step(draft: Draft) -> Iterator[Problem]:
    """Tiles move on from one to the next."""
    tile_size, overlap = draft.values.get("tile_size"), draft.values.get("overlap")
    if tile_size is not None and overlap is not None and overlap >= tile_size:
        yield Problem(
            f"--overlap must be smaller than the tile, got {overlap} of {tile_size} px",
            where=draft.where("overlap", "tile_size"),
            fix=f"pass --overlap {tile_size // 4}, or leave it out for: a quarter of the tile",
        )


def threshold_is_for_labels(draft: Draft) -> Iterator[Problem]:
    """Probabilities are written as they are."""
    if draft.values.get("output") == "probabilities" and draft.values.get("threshold") is not None:
        yield Problem(
            "--threshold makes labels of probabilities, and probabilities are asked for",
            where=draft.where("threshold", "output"),
            fix="leave --threshold out, or pass --output labels",
        )


class PredictSettings(Settings):
    """From an exported model and images to label images."""

    command: ClassVar[str] = "predict"
    rules: ClassVar[tuple[Rule, ...]] = (overlap_leaves_a_step, threshold_is_for_labels)

    model: Annotated[Path, AbsolutePath, About("Model", folder="read")]
    """Model: output folder of a run, or its model/."""
    images_dir: Annotated[Path, AbsolutePath, About("Data", folder="read", subfolders=("images",))]
    """Images folder; its sub-folder images/ is used where there is one."""
    images_pattern: Annotated[str, MinLen(1), About("Data")] = ".*"
    """File name pattern (filepattern) of the images."""
    skip_corrupt: Annotated[bool, About("Data")] = False
    """Leave out files that cannot be read, and report them."""

    tile_size: Annotated[int | None, Ge(32), About("Tiles", unit="px", absent="as in training")] = None
    """Tile size: height and width of the windows that are predicted."""
    overlap: Annotated[int | None, Ge(0), About("Tiles", unit="px", absent="a quarter of the tile")] = None
    """Overlap of neighbouring tiles."""
    batch_size: Annotated[int | None, Ge(1), About("Tiles", unit="tiles", absent="what the device takes well")] = None
    """Batch size: tiles per forward pass."""
    test_time_augmentation: Annotated[AskedViews, BeforeValidator(_preset_for_a_truth), About("Tiles", alone="all")] = (
        "none"
    )
    """Test-time augmentation: average over mirrored copies (flips: 4 views), or mirrored and turned ones (all: 8), so
    many times slower; auto takes the preset that paid on the validation images. Without a value: all."""

    threshold: Annotated[
        float | None, Gt(0), Lt(1), About("Output", absent="of each class the one that did best in validation")
    ] = None
    """Threshold of probability above which a pixel is of a class (binary and multilabel)."""

    device: Annotated[Literal["auto", "cpu", "gpu"], About("Machine")] = "auto"
    """Device to predict on; auto takes a GPU where there is one."""
    precision: Annotated[Literal["auto", "float32", "bfloat16"], About("Machine")] = "auto"
    """Numerical precision of the model; auto takes bfloat16 where the device is faster in it."""

    output_dir: Annotated[Path, AbsolutePath, About("Output", folder="written")]
    """Output folder for the label images."""
    output: Annotated[Literal["labels", "probabilities"], About("Output")] = "labels"
    """Kind of output: label values as in training, or one channel of probabilities per class."""
    format: Annotated[Literal["ome.tif", "ome.zarr"], About("Output")] = "ome.tif"
    """File format of what is written."""
    overwrite: Annotated[bool, About("Output")] = False
    """Overwrite label images that are in outputDir."""

    @property
    def images_folder(self) -> Path:
        """The folder that holds the images: ``images`` inside ``images_dir`` where there is one (looks at the disk)."""
        return resolve_folder(self.images_dir, "images")
