"""Checkpoints: whole or not at all, and never executed."""

from __future__ import annotations

import pickle
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tune_smp.errors import DataError, ResourceError
from tune_smp.training import checkpoint

STATE: dict[str, Any] = {
    "epoch": 3,
    "best_metric": float("nan"),
    "model": {"weight": torch.arange(6.0).view(2, 3)},
    "history": [{"epoch": 1, "stop": None, "class_iou": (0.5, None)}],
}


class Malicious:
    """Unpickled, it creates a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    checkpoint.save(STATE, path)
    loaded = checkpoint.load(path)
    assert loaded["epoch"] == 3
    assert loaded["history"] == STATE["history"]
    assert torch.equal(loaded["model"]["weight"], STATE["model"]["weight"])
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pth"]


def test_the_layout_of_tensors_survives(tmp_path: Path) -> None:
    weight = torch.rand(4, 3, 2, 2).to(memory_format=torch.channels_last)
    checkpoint.save({"model": {"weight": weight}}, tmp_path / "checkpoint.pth")
    assert checkpoint.load(tmp_path / "checkpoint.pth")["model"]["weight"].stride() == weight.stride()


def refusal(path: Path) -> str:
    """What is said of this file."""
    with pytest.raises(DataError) as raised:
        checkpoint.load(path)
    (problem,) = raised.value.problems
    assert str(path) in problem.where
    assert problem.fix
    return problem.problem


@pytest.mark.parametrize("writer", ["torch", "pickle", "legacy"])
def test_a_malicious_pickle_is_refused_and_not_executed(tmp_path: Path, writer: str) -> None:
    mark, path = tmp_path / "executed", tmp_path / "checkpoint.pth"
    content = {"kind": checkpoint.KIND, "format": checkpoint.FORMAT, "state": {"model": Malicious(mark)}}
    if writer == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=writer == "torch")
    reason = refusal(path)
    assert not mark.exists()
    assert "nothing in it was executed" in reason or "damaged" in reason
    # The file is as dangerous as it is meant to be.
    torch.load(path, weights_only=False) if writer != "pickle" else pickle.loads(path.read_bytes())  # noqa: S301
    assert mark.exists()


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(nn.Conv2d(1, 1, 3), path)
    assert "more than weights" in refusal(path)


def test_numpy_arrays_are_no_plain_data(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save({"kind": checkpoint.KIND, "format": 1, "state": {"a": np.zeros(3)}}, path)
    assert "more than weights" in refusal(path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_file_cut_short_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "checkpoint.pth"
    checkpoint.save(STATE, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    assert refusal(path)


@pytest.mark.parametrize(
    "content", [b"", b"not a checkpoint", b"PK\x03\x04", b"\x80\x02}q\x00.", bytes(range(256)) * 50]
)
def test_any_other_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "checkpoint.pth"
    path.write_bytes(content)
    assert refusal(path)


@pytest.mark.parametrize("content", [{"weight": torch.zeros(1)}, [1, 2], {"kind": checkpoint.KIND, "format": 1}])
def test_plain_data_of_others_is_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save(content, path)
    assert "no checkpoint of tune-smp" in refusal(path)


def test_a_newer_format_is_refused_naming_both(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save({"kind": checkpoint.KIND, "format": 99, "state": STATE}, path)
    assert "format 99, this program reads format 1" in refusal(path)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    assert "no such checkpoint" in refusal(tmp_path / "nothing.pth")
    assert refusal(tmp_path)


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    checkpoint.save(STATE, path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(ResourceError, match="cannot be written") as raised:
            checkpoint.save({"weight": torch.rand(100_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(path) in str(raised.value)
    assert checkpoint.load(path)["epoch"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pth"]


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="cannot be written"):
        checkpoint.save(STATE, tmp_path / "missing" / "checkpoint.pth")
