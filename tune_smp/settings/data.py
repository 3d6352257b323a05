"""The settings of the data: which images and labels, and what they mean; shared by ``check`` and ``train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Lt, MinLen

from tune_smp.settings.base import Rule, Settings
from tune_smp.settings.fields import About
from tune_smp.settings.folders import AbsolutePath, collection_folders
from tune_smp.settings.label_colors import ColorText, legible


class DataSettings(Settings):
    """The images and labels, and what they mean."""

    images_dir: Annotated[Path, AbsolutePath, About("Data", wipp=True, folder="read", subfolders=("images",))]
    """Images folder; its sub-folder images/ is used where there is one."""
    labels_dir: Annotated[Path, AbsolutePath, About("Data", wipp=True, folder="read", subfolders=("labels", "images"))]
    """Labels folder; its sub-folder labels/ is used where there is one, else images/."""
    images_pattern: Annotated[str, MinLen(1), About("Data", wipp=True)]
    """File name pattern (filepattern) of the images, such as img_{i:d+}.ome.tif."""
    labels_pattern: Annotated[str, MinLen(1), About("Data", wipp=True)]
    """File name pattern of the labels; shared variables pair images with labels."""
    segmentation_mode: Annotated[Literal["binary", "multilabel", "multiclass"], About("Data", wipp=True)]
    """Meaning of the labels: above 0 is foreground; one channel or file per class; one value per class."""
    train_fraction: Annotated[float, Gt(0), Lt(1), About("Data", wipp=True)] = 0.7
    """Training fraction: share of the images to train on; the others validate."""
    ignore_value: Annotated[int | None, About("Data", absent="no value")] = None
    """Ignored label value, which is left out of loss and metrics."""
    label_colors: Annotated[str | None, MinLen(1), ColorText, About("Data", absent="labels hold numbers")] = None
    """Colours of painted labels: name=#rrggbb,... or JSON (or a file of it); ignore=... is left out."""
    group_by: Annotated[str | None, MinLen(1), About("Data", absent="only images that share a file stay together")] = (
        None
    )
    """Grouped split: variable of imagesPattern whose equal values never fall on both sides."""
    allow_unpaired: Annotated[bool, About("Data")] = False
    """Leave out images without labels, and labels without images."""
    skip_corrupt: Annotated[bool, About("Data")] = False
    """Leave out files that cannot be read, and report them."""
    seed: Annotated[int, Ge(0), Lt(2**32), About("Training")] = 0
    """Random seed of the split, the weights, the order and the augmentation."""
    split_seed: Annotated[int | None, Ge(0), Lt(2**32), About("Data", absent="seed")] = None
    """Random seed of the split alone, to train with other seeds on the same images."""
    cache_dir: Annotated[
        Path | None, AbsolutePath, About("Machine", absent="the user's cache folder", folder="written")
    ] = None
    """Cache folder for the decoded images, shared by runs on the same data."""

    rules: ClassVar[tuple[Rule, ...]] = (legible,)

    @property
    def resolved_split_seed(self) -> int:
        """The seed of the split given, else that of everything."""
        return self.seed if self.split_seed is None else self.split_seed

    @property
    def images_folder(self) -> Path:
        """The folder that holds the images: ``images`` inside ``images_dir`` where there is one (looks at the disk)."""
        return collection_folders(self.images_dir, self.labels_dir)[0]

    @property
    def labels_folder(self) -> Path:
        """The folder that holds the labels (looks at the disk), see `collection_folders`."""
        return collection_folders(self.images_dir, self.labels_dir)[1]


class CheckSettings(DataSettings):
    """Looking at a collection before anything is trained."""

    command: ClassVar[str] = "check"
