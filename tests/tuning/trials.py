"""Trials for tests."""

from __future__ import annotations

from pathlib import Path

from tune_smp.data.pairing.collection import find_pairs
from tune_smp.data.split import Region, write_split
from tune_smp.data.store.image_store import open_or_build
from tune_smp.data.synthetic import write_nuclei
from tune_smp.settings.run import RunSettings
from tune_smp.tuning.trainable import TrialConfig


def tiny_trial(folder: Path) -> TrialConfig:
    """A trial of two epochs on two images of 32 px that are written into the folder."""
    write_nuclei(folder, count=2, size=(32, 32))
    settings = RunSettings(
        images_dir=folder,
        labels_dir=folder,
        images_pattern="nuclei_{i:d+}.tif",
        labels_pattern="nuclei_{i:d+}.tif",
        segmentation_mode="binary",
        encoder_base_variant_weights="Test,tu-test_efficientnet,random",
        tile_size=32,
        batch_size=2,
        max_epochs=2,
        output_dir=folder / "out",
    )
    collection = find_pairs(
        settings.images_folder,
        settings.labels_folder,
        images_pattern=settings.images_pattern,
        labels_pattern=settings.labels_pattern,
    )
    store = open_or_build(collection, mode="binary", cache_dir=folder / "cache")
    regions = [Region(0, 0, 32, 0, 32, "train"), Region(1, 0, 32, 0, 32, "validation")]
    write_split(folder / "split.csv", regions, store.collection)
    return TrialConfig(settings.to_json(), store=store.path, split=folder / "split.csv", number=0)
