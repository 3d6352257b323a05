"""One trial under a real Ray."""

from __future__ import annotations

from pathlib import Path

import pytest

from tune_smp.errors import DataError, Problem, ResourceError
from tune_smp.search.cluster import local_ray
from tune_smp.search.trainable import TrialConfig, _as_plain, refusal_from_plain
from tune_smp.search.tuner import run_single


def test_a_gpu_that_is_not_there_is_refused(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ResourceError, match="--device gpu") as error, local_ray(device="gpu"):
        pass
    assert error.value.exit_code == 5


def test_an_error_of_ours_comes_back_whole_and_is_not_tried_again(tmp_path: Path) -> None:
    config = TrialConfig(settings={}, store=tmp_path / "no store", split=tmp_path / "no split")
    epochs: list[object] = []
    with local_ray(device="cpu"):
        outcome = run_single(config, storage=tmp_path, name="trials", on_epoch=epochs.append)
    assert outcome.state == "failed"
    assert isinstance(outcome.refusal, DataError)
    assert "no store" in str(outcome.refusal)
    assert epochs == []
    assert not list(tmp_path.glob("trials/**/error.txt")), "Ray saw no failure, so it did not try again"


def test_a_refusal_travels_as_plain_values() -> None:
    error = ResourceError([Problem("one", "here", "do this"), Problem("two")])
    back = refusal_from_plain(_as_plain(error))
    assert type(back) is ResourceError
    assert back.problems == error.problems
