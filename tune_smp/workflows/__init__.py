"""Train, search, resume, predict, check, report: each a table of contents of the rooms below."""

from __future__ import annotations

from tune_smp.workflows.inspection import check, report
from tune_smp.workflows.predicting import predict
from tune_smp.workflows.printing import output
from tune_smp.workflows.resuming import resume
from tune_smp.workflows.road import search, train
from tune_smp.workflows.starting_weights import fetch_weights

__all__ = ["check", "fetch_weights", "output", "predict", "report", "resume", "search", "train"]
