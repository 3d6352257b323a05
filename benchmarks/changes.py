"""One change at a time to a sensible run, at equal CPU time: what the space of the recorded curves does not hold.

Runs are those of ``record_curves.py`` (`SECONDS` of CPU time, one thread, every fourth image kept back), on five
collections and three seeds. `REFIT` is trained on the validation images too, and predicts above the thresholds of the
run without a change; views are those of test-time augmentation, averaged over the tiles of that run.

The runs of one collection and seed but for the refit are then candidates of an ensemble, as trials of a search are:
`ENSEMBLES` has what the one that ``--ensemble`` finds is worth, against the best of them alone, both as ``predict`` has
them.

    python -m benchmarks.changes --data COLLECTIONS [--part 0/2]
    python -m benchmarks.changes --report
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.ablations import show
from benchmarks.kept_back import COLLECTIONS, split
from benchmarks.record_curves import SENSIBLE, recorded_space
from benchmarks.recording import own_part, recording_parser
from benchmarks.tables import add_row, rows_of
from tune_smp.choices.views import PRESETS, Preset, View
from tune_smp.data.ensemble_record import ITSELF, MEMBERS, EnsembleMember, EnsembleRecord
from tune_smp.data.opening import find_collection, open_store
from tune_smp.data.split import all_for_training
from tune_smp.inference.ensemble_selection import Selection, measured_again, select_ensemble
from tune_smp.inference.views import turned, turned_back
from tune_smp.results.ensemble_export import export_ensemble
from tune_smp.results.export import export_best
from tune_smp.results.folder import RunFolder
from tune_smp.training.metrics import PixelCounts
from tune_smp.training.run import TrainingRun
from tune_smp.training.run_state import best_report
from tune_smp.tuning.space import Scalar

TABLE = Path(__file__).parent / "data" / "changes.csv"
ENSEMBLES = Path(__file__).parent / "data" / "ensembles.csv"
VIEWS: Sequence[Preset] = ("flips", "all")
COLUMNS = ("change", "collection", "seed", "steps", "kept_half", "kept", *VIEWS, "thresholds", "metric")
OF_ENSEMBLES = ("collection", "seed", "members", "single", "metric", "low", "wins", "cost", "kept_single", "kept")
MOST_MEMBERS = 3  # of --ensemble 3
SEEDS = range(3)
NOTHING, REFIT = "nothing", "refit on all images"
CHANGES: Mapping[str, Mapping[str, Scalar]] = {
    NOTHING: {},
    REFIT: {},
    "--lossName DiceFocalLoss": {"lossName": "DiceFocalLoss"},
    "--decoderAttention scse": {"decoderAttention": "scse"},
    "regnetx_002": {"encoderBaseVariantWeights": "RegNet(x/y),timm-regnetx_002,random"},
    "resnet18, --encoderDepth 4": {"encoderBaseVariantWeights": "ResNet,resnet18,random", "encoderDepth": 4},
}


def warm_up(data: Path) -> None:
    """Spend what the first steps of a process cost, so that no run has it."""
    settings = recorded_space(data, "membrane-binary", seconds=1).settings(SENSIBLE)
    store = open_store(settings, find_collection(settings))
    train, validation, _ = split(store, settings)
    TrainingRun(settings, store, train + validation, clock=time.process_time).run_epoch()


def record(data: Path, collection: str, seed: int) -> None:
    """Train once without and once with each change, score on the images kept back, and add the rows."""
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        models = {change: RunFolder(Path(scratch) / str(place)) for place, change in enumerate(CHANGES)}
        for change, folder in models.items():
            plain = rows.get(NOTHING, {})
            rows[change] = trained(data, change, collection, seed, folder, plain_thresholds=plain.get("thresholds", ""))
        candidates = sorted((row["metric"], change) for change, row in rows.items() if change != REFIT)
        best_first = [models[change] for _, change in reversed(candidates)]
        row = ensemble(data, collection, seed, best_first)
    for change_row in rows.values():  # all at once: an ensemble needs every model
        add_row(TABLE, COLUMNS, change_row)
    add_row(ENSEMBLES, OF_ENSEMBLES, row)


def trained(
    data: Path, change: str, collection: str, seed: int, folder: RunFolder, *, plain_thresholds: str
) -> dict[str, Any]:
    """Train once; the row, and the model in ``folder``."""
    settings = recorded_space(data, collection, seed).settings({**SENSIBLE, **CHANGES[change]})
    store = open_store(settings, find_collection(settings))
    train, validation, kept = split(store, settings)
    regions = all_for_training(train + validation) if change == REFIT else train + validation
    run = TrainingRun(settings, store, regions, clock=time.process_time)
    while run.stop is None:
        run.run_epoch()
    state = run.state_dict()
    export_best(folder, state, settings, store, regions)
    thresholds = best_report(state)["thresholds"]
    if change == REFIT:
        thresholds = tuple(map(float, plain_thresholds.split()))
    unseen = TrainingRun(settings, store, train + kept)
    unseen.model.load_state_dict(dict(state["best_model"] or state["model"]))
    unseen.model.eval()
    views: dict[str, float] = {}
    if change == NOTHING:
        views = {name: kept_metric(unseen, PRESETS[name], thresholds) for name in VIEWS}
    return {
        **{"change": change, "collection": collection, "seed": seed, "steps": run.steps, **views},
        **{"kept_half": kept_metric(unseen, PRESETS["none"], ()), "thresholds": " ".join(map(str, thresholds))},
        **{"kept": kept_metric(unseen, PRESETS["none"], thresholds), "metric": round(state["best_metric"], 5)},
    }


def ensemble(data: Path, collection: str, seed: int, folders: Sequence[RunFolder]) -> dict[str, Any]:
    """What the ensemble of these models is worth, the best of which comes first."""
    settings = recorded_space(data, collection, seed).settings(SENSIBLE)
    store = open_store(settings, find_collection(settings))
    _, validation, kept = split(store, settings)
    models, metric = [folder.model for folder in folders], settings.metric_name
    found = select_ensemble(models, store, validation, metric_name=metric, device="cpu", most=MOST_MEMBERS)
    kept_single = measured_again(models[0], store, kept, metric_name=metric, device="cpu")
    export_ensemble(models[0], as_record(found, metric), dict(enumerate(models)))
    return {
        **{"collection": collection, "seed": seed, "members": len(found.weights), "wins": found.wins},
        **{name: round(getattr(found, name), 5) for name in ("single", "metric", "low", "cost")},
        "kept_single": round(kept_single, 5),
        "kept": round(measured_again(models[0], store, kept, metric_name=metric, device="cpu"), 5),
    }


def as_record(found: Selection, metric: str) -> EnsembleRecord:
    """The ensemble as a file of the best model's folder, whether it wins or not."""
    members = tuple(
        EnsembleMember(f"{MEMBERS}/{place}" if place else ITSELF, weight, place)
        for place, weight in found.weights.items()
    )
    facts = (found.thresholds, metric, found.metric, found.single, found.low, found.images, found.cost)
    return EnsembleRecord(members, *facts)


@torch.inference_mode()
def kept_metric(unseen: TrainingRun, views: Sequence[View], thresholds: Sequence[float]) -> float:
    """The metric where the mean of the views' probabilities is above the thresholds."""
    settings = unseen.settings
    counts = PixelCounts(settings.segmentation_mode, unseen.shape.classes)
    for tiles in unseen.feed.validation():
        seen = (turned_back(probabilities(unseen, turned(tiles.images, view)), view) for view in views)
        counts.add_probabilities(reduce(torch.add, seen) / len(views), tiles.masks)
    return round(float(getattr(counts.metrics(thresholds), settings.metric.key)), 5)


def probabilities(run: TrainingRun, images: Tensor) -> Tensor:
    logits = run.step.forward(images.contiguous(memory_format=torch.channels_last)).float()
    return logits.softmax(dim=1) if run.settings.segmentation_mode == "multiclass" else logits.sigmoid()


def report() -> None:
    """Print paired differences to the run without a change, with intervals over collections and seeds."""
    kept = {(row["change"], row["collection"], row["seed"]): float(row["kept"]) for row in rows_of(TABLE)}
    for row in rows_of(TABLE):
        for name in VIEWS:
            if row["change"] == NOTHING:
                kept[f"views: {name}", row["collection"], row["seed"]] = float(row[name])
    for change in dict.fromkeys(change for change, _, _ in kept):
        runs = [(name, "", seed) for other, name, seed in kept if other == change != NOTHING]
        show(change, runs, lambda run, change=change: kept[change, run[0], run[2]] - kept[NOTHING, run[0], run[2]])  # type: ignore[misc]
    found = {(row["collection"], "", row["seed"]): row for row in rows_of(ENSEMBLES)}
    gains = {run: float(row["kept"]) - float(row["kept_single"]) for run, row in found.items()}
    show("--ensemble 3, as found", list(found), gains.__getitem__)
    delivered = {run: gain if found[run]["wins"] == "True" else 0.0 for run, gain in gains.items()}
    show("--ensemble 3, as delivered", list(found), delivered.__getitem__)


def main() -> None:
    parser = recording_parser(__doc__)
    arguments = parser.parse_args()
    if arguments.report:
        report()
        return
    torch.set_num_threads(1)
    pairs = [(name, seed) for seed in SEEDS for name in COLLECTIONS]
    warm_up(arguments.data.resolve())
    for name, seed in own_part(pairs, arguments.part):
        if (name, str(seed)) not in {(row["collection"], row["seed"]) for row in rows_of(ENSEMBLES)}:
            record(arguments.data.resolve(), name, seed)


if __name__ == "__main__":
    main()
