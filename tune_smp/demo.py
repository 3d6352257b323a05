"""``tune-smp demo``: two folders of synthetic images in, a search, a model and masks out, within three minutes on two
CPU cores."""

from __future__ import annotations

import shlex
from pathlib import Path

from tune_smp import workflows
from tune_smp.data.synthetic import write_nuclei
from tune_smp.results.folder import RunFolder
from tune_smp.results.summary import Summary
from tune_smp.settings.predict import PredictSettings
from tune_smp.settings.search import SearchSettings

PATTERN = "nuclei_{i:d+}.tif"
SEEN, UNSEEN = 32, 4  # images for training and validation; images that only `predict` sees
# About two minutes on two idle CPU cores, and enough to beat any threshold clearly (best threshold: IoU 0.5 to 0.6).
TRIALS, TRIAL_BUDGET, EPOCHS, TILE_SIZE = 8, "14s", 4, 64  # px


def demonstrate(folder: Path) -> Summary:
    """Write ``data/``, ``search/`` and ``masks/`` into ``folder`` and say where to look."""
    seen, unseen = folder / "data" / "seen", folder / "data" / "unseen"
    write_nuclei(seen, count=SEEN, seed=0)
    write_nuclei(unseen, count=UNSEEN, seed=1)
    summary = workflows.search(_settings(seen, folder / "search"))
    workflows.predict(
        PredictSettings(
            model=folder / "search",
            images_dir=unseen / "images",
            images_pattern=PATTERN,
            output_dir=folder / "masks",
            overwrite=True,
        )
    )
    _say_where_to_look(folder, summary)
    return summary


def _settings(data: Path, output: Path) -> SearchSettings:
    return SearchSettings(
        images_dir=data / "images",
        labels_dir=data / "labels",
        images_pattern=PATTERN,
        labels_pattern=PATTERN,
        segmentation_mode="binary",
        search_space="quick",
        num_trials=TRIALS,
        trial_budget=TRIAL_BUDGET,
        max_epochs=EPOCHS,
        tile_size=TILE_SIZE,
        output_dir=output,
        overwrite=True,
    )


def _say_where_to_look(folder: Path, summary: Summary) -> None:
    say = workflows.output.print
    run = RunFolder(folder / "search")
    say("")
    say(f"searched {SEEN} synthetic images: trial {summary.best_trial} has {summary.metric} {summary.best_metric:.3f}")
    if summary.default_metric is not None:
        say(f"the default configuration, trial 0, has {summary.metric} {summary.default_metric:.3f}")
    say(f"report: {run.report}")
    say(f"masks of {UNSEEN} images that the model has not seen: {folder / 'masks'}")
    say("now your own images:")
    say("  tune-smp search --imagesDir IMAGES --labelsDir LABELS --segmentationMode binary --searchSpace quick \\")
    say(f"    --imagesPattern '.*' --labelsPattern '.*' --outputDir {shlex.quote(str(folder / 'mine'))}")
