"""Where a run computes, in which number format, and with how much memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch

from tune_smp.data.labels import Mode
from tune_smp.data.split import Region
from tune_smp.data.store.image_store import ImageStore
from tune_smp.errors import ResourceError, SettingsError
from tune_smp.settings.run import RunSettings
from tune_smp.training import memory, precision
from tune_smp.training.memory import available_memory, is_out_of_memory, keep_freed_memory
from tune_smp.training.precision import Precision, choose_device, choose_precision, cpu_is_faster_in_bfloat16
from tune_smp.training.run import TrainingRun

MakeSettings = Callable[..., RunSettings]
MakeStore = Callable[[Mode], ImageStore]
CPU = torch.device("cpu")


def test_devices() -> None:
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(ResourceError, match="--device gpu"):
        choose_device("gpu")


def test_formats_on_a_cpu() -> None:
    assert choose_precision("float32", CPU) == Precision(None)
    assert choose_precision("bfloat16", CPU) == Precision(torch.bfloat16)
    with pytest.raises(SettingsError, match="float16 needs a GPU"):
        choose_precision("float16", CPU)


@pytest.mark.parametrize(
    ("can", "gain", "expected"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, None, "bfloat16"),
        ({"avx512_bf16": False, "avx2": True}, None, "float32"),
        ({"avx512_bf16": True}, None, "bfloat16"),
        ({"bf16": True}, 1.5, "bfloat16"),  # as Arm's are called
        ({"bf16": True}, 1.1, "float32"),
        ({}, None, "float32"),
    ],
)
def test_a_cpu_is_asked_and_where_the_answer_is_unclear_measured(
    monkeypatch: pytest.MonkeyPatch, can: dict[str, bool], gain: float | None, expected: str
) -> None:
    def measured() -> float:
        assert gain is not None, "nothing was to be measured"
        return gain

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: can, raising=False)
    monkeypatch.setattr(precision, "_gain_of_bfloat16", measured)
    monkeypatch.setattr(precision, "cpu_is_faster_in_bfloat16", cpu_is_faster_in_bfloat16.__wrapped__)
    assert choose_precision("auto", CPU).name == expected


def test_the_gain_is_measured_without_disturbing_random_numbers() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    assert 0.001 < precision._gain_of_bfloat16() < 100.0
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize("fast_here", [True, False])
@pytest.mark.parametrize("fast_there", [True, False])
def test_a_run_that_resumes_elsewhere_keeps_its_format_where_it_can(
    monkeypatch: pytest.MonkeyPatch,
    make_settings: MakeSettings,
    make_store: MakeStore,
    regions: tuple[Region, ...],
    fast_here: bool,
    fast_there: bool,
) -> None:
    settings, store = make_settings(max_epochs=2, steps_per_epoch=1), make_store("binary")
    monkeypatch.setattr(precision, "cpu_is_faster_in_bfloat16", lambda: fast_here)
    begun = TrainingRun(settings, store, regions)
    begun.run_epoch()
    assert begun.used["precision"] == ("bfloat16" if fast_here else "float32")

    monkeypatch.setattr(precision, "cpu_is_faster_in_bfloat16", lambda: fast_there)
    resumed = TrainingRun(settings, store, regions, state=begun.state_dict())
    assert resumed.used["precision"] == ("bfloat16" if fast_here and fast_there else "float32")
    noted = any("resumed in float32: the run began in bfloat16" in note for note in resumed.notes)
    assert noted == (fast_here and not fast_there)
    resumed.run_epoch()


def test_formats_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    for native, expected in ((True, torch.bfloat16), (False, None)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda native=native, **_: native)
        assert choose_precision("auto", gpu) == Precision(expected)
    assert choose_precision("float16", gpu) == Precision(torch.float16, scales_loss=True)
    with pytest.raises(SettingsError, match="LBFGS"):
        choose_precision("float16", gpu, needs_closure=True)


def test_bfloat16_on_a_cpu_trains(
    make_settings: MakeSettings, make_store: MakeStore, regions: tuple[Region, ...]
) -> None:
    settings = make_settings(precision="bfloat16", steps_per_epoch=1)
    run = TrainingRun(settings, make_store("binary"), regions)
    formats = set()
    run.model.register_forward_hook(lambda _model, _images, logits: formats.add(logits.dtype))
    assert run.run_epoch()["stop"] is None
    assert formats == {torch.bfloat16}
    assert all(parameter.dtype == torch.float32 for parameter in run.model.parameters())


def test_available_memory() -> None:
    assert 2**20 < available_memory() <= psutil.virtual_memory().total


def test_a_container_has_what_its_limit_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in {
        "memory.max": "1000000\n",
        "memory.current": "700000\n",
        "memory.stat": "anon 500000\ninactive_file 200000\n",
    }.items():
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(memory, "_CONTROL_GROUPS", ((tmp_path, "memory.max", "memory.current", "inactive_file"),))
    assert available_memory() == 500_000
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory() > 2**20


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
            True,
        ),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("shape '[2]' is invalid for input of size 3"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_is_out_of_memory(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) == expected


def test_torch_says_so_when_the_host_is_full() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(raised.value)


def test_keeping_freed_memory_changes_no_number() -> None:
    keep_freed_memory()
    assert torch.ones(10_000_000).sum() == 10_000_000
