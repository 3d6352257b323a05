"""model.onnx: the exported model for other programs, written last, in a process of its own, under a time limit.

torch's exporter may take minutes, or more memory than there is, on a model that trained well: nothing that came before
may depend on it.
"""

from __future__ import annotations

import importlib.util
import math
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tune_smp.errors import Problem, SettingsError
from tune_smp.importing import python_command, python_environment
from tune_smp.writing import whole_file

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

ONNX_NAME = "model.onnx"
SECONDS = 900  # the slowest encoder of the catalogue that was tried took a minute on one core
# Rounding of a few hundred float32 layers in another order of operations.
TOLERANCE = 1e-3
# onnxruntime proves the result, torch's exporter needs the others.
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_CODE = "from tune_smp.results.onnx_export import main; main(Path(sys.argv[2]))"


def require_onnx() -> None:
    """Raise SettingsError where a package of the ``onnx`` extra is not installed."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        problem = f"ONNX needs the package{'s' * (len(missing) > 1)} {', '.join(missing)}"
        raise SettingsError(Problem(problem, "--exportOnnx", "pip install 'tune-smp[onnx]'"))


def write_onnx(model: Path, *, seconds: float = SECONDS) -> str:
    """Write ``model.onnx`` into an exported model's folder; the reason where that did not succeed, else nothing."""
    process = subprocess.Popen(
        [*python_command(f"import sys; from pathlib import Path; {_CODE}"), str(model)],
        env={**os.environ, **python_environment()},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"it was not done after {seconds:.0f} s"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode == 0:
        return ""
    lines = [line for line in errors.splitlines() if line.strip()]
    return lines[-1] if lines else f"its process ended with {process.returncode}"


def main(folder: Path) -> None:
    """Convert, or end the process with the reason in a line."""
    try:
        convert(folder)
    except Exception as error:  # noqa: BLE001  whatever torch, sympy or onnx raise
        sys.stderr.write(f"\n{type(error).__name__}: {' '.join(str(error).split())[:300]}\n")
        raise SystemExit(1) from None


def convert(folder: Path) -> None:
    """Write the model as ONNX, batch, height and width free, and prove that it gives the model's own numbers: logits,
    or the probabilities of an ensemble.

    Padding that depends on the size is written as it is for sizes that the divisor divides: only those are predicted.

    Raises AssertionError where the numbers differ, ValueError for an ensemble whose members have no tile in common.
    """
    import onnxruntime  # noqa: PLC0415  an optional extra
    import torch  # noqa: PLC0415  seconds to import, in a process of its own only

    from tune_smp.training.fixed_padding import fixed_same_padding  # noqa: PLC0415

    net = _net_in(folder)
    random = torch.Generator().manual_seed(0)
    inputs = [net.inputs(one, random) for one in net.sizes]
    with torch.inference_mode():
        expected = [net.module(*one) for one in inputs]
    with whole_file(folder / ONNX_NAME) as temporary:
        with fixed_same_padding():
            torch.onnx.export(
                net.module,
                inputs[-1],
                temporary,
                input_names=list(net.input_names),
                output_names=[net.output_name],
                dynamic_shapes=net.dynamic_shapes,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        session = onnxruntime.InferenceSession(temporary, providers=["CPUExecutionProvider"])
        for one, numbers in zip(inputs, expected, strict=True):
            given = {name: tensor.numpy() for name, tensor in zip(net.input_names, one, strict=True)}
            (found,) = session.run(None, given)
            torch.testing.assert_close(torch.from_numpy(found), numbers, rtol=TOLERANCE, atol=TOLERANCE)


@dataclass(frozen=True)
class _Net:
    """What is written: a model from normalised pixels to logits, or an ensemble of ``members`` nets from pixels and
    each member's constants to probabilities."""

    module: nn.Module
    channels: int
    tile_size: int
    divisor: int
    is_fixed: bool
    members: int = 0  # 0: a single model

    @property
    def input_names(self) -> tuple[str, ...]:
        return ("images", "scale", "offset") if self.members else ("images",)

    @property
    def output_name(self) -> str:
        return "probabilities" if self.members else "logits"

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Another size as well, where there are others: it must be as free as it is said to be."""
        size = self.tile_size
        return [(size, size)] if self.is_fixed else [(size, size), (size, size + self.divisor)]

    @property
    def dynamic_shapes(self) -> tuple[dict[int, Any], ...]:
        """The dimensions that are free."""
        import torch  # noqa: PLC0415

        sides = {} if self.is_fixed else {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
        batch = {0: torch.export.Dim.DYNAMIC}
        return ({**batch, **sides}, *(batch for _ in self.input_names[1:]))

    def inputs(self, size: tuple[int, int], random: Generator) -> tuple[Tensor, ...]:
        """Two random images of this size, and constants for each where there are any."""
        import torch  # noqa: PLC0415

        images = torch.randn(2, self.channels, *size, generator=random)
        constants = (torch.rand(2, self.members, self.channels, generator=random) for _ in self.input_names[1:])
        return (images, *constants)


def _net_in(folder: Path) -> _Net:
    from tune_smp.data.ensemble_record import read_ensemble  # noqa: PLC0415
    from tune_smp.data.preprocessing import read_preprocessing  # noqa: PLC0415
    from tune_smp.training.averaged_nets import AveragedNets  # noqa: PLC0415
    from tune_smp.training.pretrained import load_exported  # noqa: PLC0415

    own, ensemble = read_preprocessing(folder), read_ensemble(folder)
    if ensemble is None:
        is_fixed = own.fixed_tile_size is not None
        return _Net(load_exported(folder).eval(), own.channels, own.tile_size, own.divisor, is_fixed)
    folders = [folder / member.folder for member in ensemble.members]
    records = [read_preprocessing(one) for one in folders]
    fixed = {record.fixed_tile_size for record in records} - {None}
    if len(fixed) > 1:
        raise ValueError(f"the members of the ensemble take tiles of different sizes only: {sorted(map(str, fixed))}")
    return _Net(
        AveragedNets(
            [load_exported(one) for one in folders],
            [member.weight for member in ensemble.members],
            multiclass=own.segmentation_mode == "multiclass",
        ).eval(),
        own.channels,
        tile_size=next(iter(fixed)) or 0 if fixed else max(record.tile_size for record in records),
        divisor=math.lcm(*(record.divisor for record in records)),
        is_fixed=bool(fixed),
        members=len(records),
    )
