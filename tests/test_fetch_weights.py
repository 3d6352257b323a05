"""``tune-smp fetch-weights``: what its words mean, and what it says where the weights cannot be had."""

from __future__ import annotations

from pathlib import Path

import pytest

from tune_smp.cli import main


def test_random_weights_and_spaces_without_others_need_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch-weights", "ResNet,resnet18,random", "quick"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told == [
        "nothing to fetch: ResNet,resnet18,random",
        "nothing to fetch: MobileNet,timm-mobilenetv3_small_100,random",
    ], "each encoder once"


def test_words_that_are_nothing_are_told_together(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch-weights", "ResNet,resnet18,nose", "VGG,resnet18,imagenet"]) == 2
    error = capsys.readouterr().err
    assert "resnet18 has no weights 'nose'" in error
    assert 'pass "ResNet,resnet18,imagenet"' in error
    assert main(["fetch-weights", "balansed"]) == 2
    assert "did you mean 'balanced'" in capsys.readouterr().err
    assert main(["fetch-weights"]) == 2


def test_weights_that_cannot_be_had_are_named_with_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert main(["fetch-weights", "ResNet,resnet18,imagenet"]) == 5
    error = capsys.readouterr().err
    assert all(word in error for word in ("resnet18", str(tmp_path), "HF_HOME", "ResNet,resnet18,random"))
