"""model.onnx: the exported model for other programs, written last, in a process of its own, under a time limit.

torch's exporter may take minutes, or more memory than there is, on a model that trained well: nothing that came before
may depend on it.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

from tune_smp.errors import Problem, SettingsError
from tune_smp.importing import python_command, python_environment
from tune_smp.writing import whole_file

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
    """Write the model as ONNX, batch, height and width free, and prove that it gives the model's own logits.

    Padding that depends on the size is written as it is for sizes that the divisor divides: only those are predicted.

    Raises AssertionError where the logits differ.
    """
    import onnxruntime  # noqa: PLC0415  an optional extra
    import torch  # noqa: PLC0415  seconds to import, in a process of its own only

    from tune_smp.data.preprocessing import read_preprocessing  # noqa: PLC0415
    from tune_smp.training.fixed_padding import fixed_same_padding  # noqa: PLC0415
    from tune_smp.training.pretrained import load_exported  # noqa: PLC0415

    model, preprocessing = load_exported(folder).eval(), read_preprocessing(folder)
    size, is_fixed = preprocessing.tile_size, preprocessing.fixed_tile_size is not None
    # Another size as well, where there are others: it must be as free as it is said to be.
    sizes = [(size, size)] if is_fixed else [(size, size), (size, size + preprocessing.divisor)]
    random = torch.Generator().manual_seed(0)
    images = [torch.randn(2, preprocessing.channels, *one, generator=random) for one in sizes]
    with torch.inference_mode():
        expected = [model(one) for one in images]
    free = {0: torch.export.Dim.DYNAMIC}
    if not is_fixed:
        free |= {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    with whole_file(folder / ONNX_NAME) as temporary:
        with fixed_same_padding():
            torch.onnx.export(
                model,
                (images[-1],),
                temporary,
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=(free,),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        session = onnxruntime.InferenceSession(temporary, providers=["CPUExecutionProvider"])
        for one, logits in zip(images, expected, strict=True):
            (found,) = session.run(None, {"images": one.numpy()})
            torch.testing.assert_close(torch.from_numpy(found), logits, rtol=TOLERANCE, atol=TOLERANCE)
