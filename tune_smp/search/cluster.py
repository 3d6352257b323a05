"""Connect to Ray, quietly, and say what it has."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray

from tune_smp.errors import Problem, ResourceError

logger = logging.getLogger(__name__)

QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    # The default loggers import torch into the driver (835 MB instead of 215 MB) and halve the results per second.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # A kill by Ray's memory monitor aborts every trial; a kill by the kernel is one dead worker, which is retried.
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
}
# Sockets of the operating system have paths of at most 107 bytes, and Ray adds some 60 to its temporary folder.
LONGEST_TEMPORARY_FOLDER = 30
TEMPORARY_PREFIX = "tune-smp-"


@dataclass(frozen=True, slots=True)
class Dashboard:
    """Where Ray's dashboard listens."""

    host: str = "127.0.0.1"
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Resources:
    """What Ray has, and where it can be watched."""

    cpus: int
    gpus: float
    dashboard_url: str | None


def usable_cpus() -> int:
    """Cores that this process may run on, in containers too."""
    return len(os.sched_getaffinity(0))


@contextlib.contextmanager
def local_ray(*, device: str = "auto", dashboard: Dashboard | None = None) -> Iterator[Resources]:
    """A Ray of our own on this machine, ended with the block.

    ``device`` is ``auto``, ``cpu`` (Ray sees no GPU) or ``gpu``. Raises ResourceError when ``gpu`` is asked for and
    there is none, or when Ray does not start.
    """
    os.environ.update({name: value for name, value in QUIET.items() if name not in os.environ})
    _silence_ray()
    folder = _temporary_folder()
    try:
        with _private_files():
            context = _start(device, dashboard, folder)
        yield _resources(device, context.dashboard_url)
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _start(device: str, dashboard: Dashboard | None, folder: Path) -> ray._private.worker.RayContext:
    options = {"dashboard_host": dashboard.host, "dashboard_port": dashboard.port} if dashboard else {}
    try:
        # address="local": anything else attaches to whatever cluster happens to run on this machine.
        return ray.init(
            address="local",
            num_cpus=usable_cpus(),
            num_gpus=0 if device == "cpu" else None,
            include_dashboard=dashboard is not None,
            object_store_memory=_object_store_bytes(),
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            # Ray opens its folder to everyone; the one around it stays closed.
            _temp_dir=str(folder / "ray"),
            **options,
        )
    except (RuntimeError, OSError, ValueError, ConnectionError) as error:
        raise ResourceError(
            Problem(f"Ray did not start: {error}", "this machine", "see --debug; --dashboard false starts less of it")
        ) from error


def _resources(device: str, dashboard_url: str | None) -> Resources:
    total = ray.cluster_resources()
    gpus = float(total.get("GPU", 0))
    if device == "gpu" and gpus < 1:
        raise ResourceError(Problem("this machine has no GPU that can be used", "--device gpu", "pass --device cpu"))
    url = f"http://{dashboard_url}" if dashboard_url else None
    return Resources(cpus=int(total["CPU"]), gpus=gpus, dashboard_url=url)


def _object_store_bytes() -> int:
    """Little: pixels travel through memory-mapped files, only numbers through Ray. Ray takes no less than 75 MB."""
    return int(min(256e6, max(80e6, psutil.virtual_memory().available * 0.05)))


def _silence_ray() -> None:
    for name in ("ray", "ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # Ray prints the death of a worker on the terminal whatever its loggers are told; ours keeps it for logs/.
    ray._private.worker.print_to_stdstream = _keep_for_the_log


def _keep_for_the_log(data: dict[str, Any], ignore_prefix: bool) -> None:  # noqa: ARG001  Ray's signature
    logger.info("Ray: %s", " ".join(data["lines"]))


def _temporary_folder() -> Path:
    """A folder of our own, removed at the end: Ray's usual one grows for ever."""
    parent = Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir()))
    if len(str(parent)) > LONGEST_TEMPORARY_FOLDER:
        parent = Path("/tmp")  # noqa: S108  mkdtemp makes a private folder in it
    _remove_leftovers(parent)
    return Path(tempfile.mkdtemp(prefix=f"{TEMPORARY_PREFIX}{os.getpid()}-", dir=parent))


def _remove_leftovers(parent: Path) -> None:
    """Folders of our own programs that were killed: their process, whose number is in the name, is no more."""
    for folder in parent.glob(f"{TEMPORARY_PREFIX}*-*"):
        number = folder.name.removeprefix(TEMPORARY_PREFIX).partition("-")[0]
        with contextlib.suppress(OSError):
            if number.isdigit() and not psutil.pid_exists(int(number)) and folder.stat().st_uid == os.getuid():
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _private_files() -> Iterator[None]:
    """What Ray writes meanwhile, its authentication token among it, is for this user alone."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)
