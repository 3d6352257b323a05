"""model/members/ and model/ensemble.json: models that predict together with the one in model/."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from tune_smp.data.ensemble_record import FILE_NAME, ITSELF, MEMBERS, EnsembleRecord
from tune_smp.data.preprocessing import FILE_NAME as PREPROCESSING
from tune_smp.results.export import CARD
from tune_smp.results.folder import whole_folder, write_json, write_text
from tune_smp.results.model_card import ensemble_section
from tune_smp.training.pretrained import CONFIG, WEIGHTS


def export_ensemble(model: Path, record: EnsembleRecord, sources: Mapping[int, Path]) -> None:
    """Add the members to an exported model; ``sources`` are their own model folders, by trial.

    ensemble.json comes last: until then the model is that of the best trial alone. Raises ResourceError when the disk
    is full.
    """
    with whole_folder(model / MEMBERS) as target:
        for member in record.members:
            if member.folder != ITSELF:
                copied = target / Path(member.folder).name
                copied.mkdir()
                for name in (CONFIG, WEIGHTS, PREPROCESSING):
                    shutil.copyfile(sources[member.trial] / name, copied / name)
    write_json(model / FILE_NAME, record.to_json())


def describe_ensemble(model: Path, record: EnsembleRecord) -> None:
    """Say in the model card what the ensemble is."""
    card = model / CARD
    write_text(card, card.read_text(encoding="utf-8") + ensemble_section(record))


def withdraw_ensemble(model: Path) -> None:
    """Leave the model of the best trial alone."""
    (model / FILE_NAME).unlink(missing_ok=True)
    shutil.rmtree(model / MEMBERS, ignore_errors=True)
