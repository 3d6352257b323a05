"""``tune-smp demo``: two folders of synthetic images in, a model and masks out, in a minute or two on two CPU cores."""

from __future__ import annotations

import shlex
from pathlib import Path

from tune_smp import workflows
from tune_smp.data.synthetic import write_nuclei
from tune_smp.results.folder import RunFolder
from tune_smp.results.summary import RunSummary
from tune_smp.settings.predict import PredictSettings
from tune_smp.settings.run import RunSettings

PATTERN = "nuclei_{i:d+}.tif"
SEEN, UNSEEN = 32, 4  # images for training and validation; images that only `predict` sees
# About a minute on two idle CPU cores, and enough to beat any threshold clearly (best threshold: IoU 0.5 to 0.6).
EPOCHS, STEPS, BATCH = 6, 30, 8


def demonstrate(folder: Path) -> RunSummary:
    """Write ``data/``, ``run/`` and ``masks/`` into ``folder`` and say where to look."""
    seen, unseen = folder / "data" / "seen", folder / "data" / "unseen"
    write_nuclei(seen, count=SEEN, seed=0)
    write_nuclei(unseen, count=UNSEEN, seed=1)
    summary = workflows.train(_run_settings(seen, folder / "run"))
    workflows.predict(
        PredictSettings(
            model=folder / "run",
            images_dir=unseen / "images",
            images_pattern=PATTERN,
            output_dir=folder / "masks",
            overwrite=True,
        )
    )
    _say_where_to_look(folder, summary)
    return summary


def _run_settings(data: Path, output: Path) -> RunSettings:
    return RunSettings(
        images_dir=data / "images",
        labels_dir=data / "labels",
        images_pattern=PATTERN,
        labels_pattern=PATTERN,
        segmentation_mode="binary",
        encoder_base_variant_weights="MobileNet,timm-mobilenetv3_small_100,random",
        tile_size=128,
        max_epochs=EPOCHS,
        steps_per_epoch=STEPS,
        batch_size=BATCH,
        output_dir=output,
        overwrite=True,
    )


def _say_where_to_look(folder: Path, summary: RunSummary) -> None:
    say = workflows.console.print
    run = RunFolder(folder / "run")
    say("")
    say(f"trained on {SEEN} synthetic images: {summary.metric} {summary.best_metric:.3f} on those kept back")
    say(f"model, history and model card: {run.path}")
    say(f"masks of {UNSEEN} images that the model has not seen: {folder / 'masks'}")
    say("now your own images:")
    say("  tune-smp train --imagesDir IMAGES --labelsDir LABELS --segmentationMode binary \\")
    say(f"    --imagesPattern '.*' --labelsPattern '.*' --outputDir {shlex.quote(str(folder / 'mine'))}")
