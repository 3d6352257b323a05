"""Connect to Ray, quietly, and say what it has."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray

from tune_smp.data.temporary import WAY_OUT, temporary_folder
from tune_smp.errors import Problem, ResourceError
from tune_smp.tuning import ray_private
from tune_smp.tuning.gcs import AUTO, ask_cluster, check_can_join, find_address, token_source
from tune_smp.tuning.own_token import token_in_reach
from tune_smp.tuning.worker_environment import (
    WORKER_ENVIRONMENT,
    InstalledOnly,
    clean_environment,
    own_package,
    private_files,
)

logger = logging.getLogger(__name__)

QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    # The default loggers import torch into the driver (835 MB instead of 215 MB) and halve the results per second.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Workers start side by side, seconds each; how many there may be, our searcher says. Ray's own limit is one.
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",
    # Ctrl-C is ours to hear: see stopping.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Ray's own record of the search, which nothing reads: ours is the study.
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    # A kill by Ray's memory monitor aborts every trial; a kill by the kernel is one dead worker, which is retried.
    "RAY_memory_monitor_refresh_ms": "0",
    # As nice as this program is, not 15 steps nicer: workers starve beside whatever else runs (decision 44).
    "RAY_worker_niceness": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    # Numbers of processes on the dashboard, measured every 5 s otherwise, and the dashboard's own, likewise.
    "REPORTER_UPDATE_INTERVAL_MS": "10000",
    "METRICS_RECORD_INTERVAL_S": "30",
}
# Sockets of the operating system have paths of at most 107 bytes, and Ray adds some 60 to its temporary folder.
LONGEST_TEMPORARY_FOLDER = 13
TEMPORARY_PREFIX = "tune-smp-"
# Where Ray's object store lies if it fits; else in the temporary folder. Containers have 64 MB there unless asked.
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  the system's name for it


@dataclass(frozen=True, slots=True)
class Dashboard:
    """The address of Ray's dashboard."""

    host: str = "127.0.0.1"
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of a cluster that is alive, and what it gives to Ray in all."""

    id: str
    address: str
    cpus: float
    gpus: float


@dataclass(frozen=True, slots=True)
class Resources:
    """The resources of Ray over all ``nodes``, and where it can be watched.

    ``token`` says where the token that the dashboard asks for is kept; ``notes`` is what the user should read.
    """

    cpus: int
    gpus: float
    dashboard_url: str | None
    nodes: tuple[Node, ...] = ()
    token: str = "~/.ray/auth_token"  # noqa: S105  the name of its file
    notes: tuple[str, ...] = ()


def usable_cpus() -> int:
    """Cores that this process may run on, in containers too."""
    return len(os.sched_getaffinity(0))


@contextlib.contextmanager
def connected_ray(
    address: str | None, *, device: str = "auto", dashboard: Dashboard | None = None
) -> Iterator[Resources]:
    """A Ray of our own for None, or the one that this process has; else a part in the cluster at ``address``, ``auto``
    or host:port, left with the block.

    The environment's RAY_ADDRESS counts for ``auto`` alone. With ``device`` ``cpu`` the GPUs of the cluster are left
    out of the account. Nothing of a joined cluster is changed or ended.

    Raises SettingsError for an address that is none; ResourceError, within seconds, where no cluster answers there,
    where token or versions do not match, where this machine is none of it, or where there is no GPU for ``gpu``.
    """
    if address is None and ray.is_initialized():
        _silence_ray()
        yield _resources(device, None)  # of a notebook or program that has a Ray already: used, and left as it is
        return
    with (
        local_ray(device=device, dashboard=dashboard) if address is None else _joined_ray(address, device) as resources
    ):
        yield resources


@contextlib.contextmanager
def local_ray(*, device: str = "auto", dashboard: Dashboard | None = None) -> Iterator[Resources]:
    """A Ray of our own on this machine, ended with the block.

    ``device`` is ``auto``, ``cpu`` (Ray sees no GPU) or ``gpu``. Raises ResourceError when ``gpu`` is asked for and
    there is none, or when Ray does not start.
    """
    _silence_ray()
    folder = _temporary_folder()
    try:
        _check_free_space(folder)
        with token_in_reach(folder):
            try:
                with (
                    private_files(),
                    _own_sigterm(),
                    clean_environment(),
                    ray_private.only_what_is_used(dashboard=dashboard is not None),
                ):
                    dashboard_url = _start(device, dashboard, folder)
                yield _resources(device, dashboard_url)
            finally:
                with _own_sigterm():
                    ray.shutdown()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(device: str, dashboard: Dashboard | None, folder: Path) -> str | None:
    options = {"dashboard_host": dashboard.host, "dashboard_port": dashboard.port} if dashboard else {}
    try:
        # address="local": anything else attaches to whatever cluster happens to run on this machine.
        context = ray.init(
            address="local",
            num_cpus=usable_cpus(),
            num_gpus=0 if device == "cpu" else None,
            include_dashboard=dashboard is not None,
            object_store_memory=_object_store_bytes(),
            job_config=InstalledOnly(own_package(folder)),
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
    return str(url) if (url := context.dashboard_url) else None


@contextlib.contextmanager
def _joined_ray(given: str, device: str) -> Iterator[Resources]:
    _silence_ray()
    # Sent as a Ray Job, this program has an environment for its workers already: ours is added to it.
    os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")
    # Ray blocks SIGINT in jobs, and an orderly end starts with it.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    facts = ask_cluster(find_address(given))
    if given == AUTO and facts.private:
        raise ResourceError(
            Problem(
                f"the Ray at {facts.address} was started by another program for itself, and ends with it",
                "--address auto",
                "leave --address away to have one of your own, or start a cluster (ray start --head)",
            )
        )
    check_can_join(facts)
    try:
        with _own_sigterm():
            dashboard_url = _join(facts.address)
        yield dataclasses.replace(_resources(device, dashboard_url), notes=_warnings(facts.address))
    finally:
        with _own_sigterm():
            ray.shutdown()


def _warnings(address: str) -> tuple[str, ...]:
    if ray_private.sends_token():
        return ()
    return (f"the cluster at {address} asks for no token: whoever reaches it can run any program on it",)


def _join(address: str) -> str | None:
    try:
        context = ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            job_config=InstalledOnly(),
            runtime_env={"env_vars": WORKER_ENVIRONMENT},
        )
    except (RuntimeError, OSError, ValueError, ConnectionError) as error:
        raise ResourceError(
            Problem(
                f"joining the cluster failed: {error}", f"--address {address}", "see --debug and the cluster's logs"
            )
        ) from error
    return str(url) if (url := context.dashboard_url) else None


def live_nodes(device: str) -> tuple[Node, ...]:
    """The nodes of the cluster that this program is connected to, as they are now."""
    return tuple(_node(entry, device) for entry in ray.nodes() if entry["Alive"])


def _resources(device: str, dashboard_url: str | None) -> Resources:
    nodes = live_nodes(device)
    gpus = sum(node.gpus for node in nodes)
    if device == "gpu" and gpus < 1:
        where = "this machine has" if len(nodes) == 1 else f"the {len(nodes)} nodes of the cluster have"
        raise ResourceError(Problem(f"{where} no GPU that can be used", "--device gpu", "pass --device cpu"))
    return Resources(
        cpus=int(sum(node.cpus for node in nodes)),
        gpus=gpus,
        dashboard_url=f"http://{dashboard_url}" if dashboard_url else None,
        nodes=nodes,
        token=token_source(),
    )


def _node(entry: dict[str, Any], device: str) -> Node:
    total = entry["Resources"]
    gpus = 0.0 if device == "cpu" else float(total.get("GPU", 0))
    return Node(entry["NodeID"], entry["NodeManagerAddress"], cpus=float(total.get("CPU", 0)), gpus=gpus)


def _object_store_bytes() -> int:
    """Little: pixels travel through memory-mapped files, only numbers through Ray. Ray takes no less than 75 MB."""
    return int(min(256e6, max(80e6, psutil.virtual_memory().available * 0.05)))


def _check_free_space(folder: Path) -> None:
    """Refuse to start where Ray's object store would find no free space: its workers would die, again and again."""
    needed = _object_store_bytes()
    places = [place for place in (SHARED_MEMORY, folder.parent) if place.is_dir()]
    free = {place: shutil.disk_usage(place).free for place in places}
    if max(free.values()) >= needed:
        return
    found = " and ".join(f"{bytes_ / 1e6:.0f} MB in {place}" for place, bytes_ in free.items())
    raise ResourceError(
        Problem(
            f"Ray needs {needed / 1e6:.0f} MB in shared memory or in a folder for temporary files; there are {found}",
            "this machine",
            "in a container: docker run --shm-size 2g; elsewhere free some space there, or name a folder by RAY_TMPDIR",
        )
    )


def _silence_ray() -> None:
    os.environ.update({name: value for name, value in QUIET.items() if name not in os.environ})
    for name in ("ray", "ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    ray_private.keep_quiet(_keep_for_the_log)


def _keep_for_the_log(data: dict[str, Any], ignore_prefix: bool) -> None:  # noqa: ARG001  Ray's signature
    logger.info("Ray: %s", " ".join(data["lines"]))


def _temporary_folder() -> Path:
    """A folder of our own, removed at the end: Ray's usual one grows for ever."""
    parent = Path(os.environ.get("RAY_TMPDIR") or temporary_folder())
    if len(str(parent)) > LONGEST_TEMPORARY_FOLDER:
        parent = Path("/tmp")  # noqa: S108  mkdtemp makes a private folder in it
    _remove_leftovers(parent)
    try:
        return Path(tempfile.mkdtemp(prefix=f"{TEMPORARY_PREFIX}{os.getpid()}-", dir=parent))
    except OSError as error:
        problem = f"Ray has no folder for its temporary files: {error.strerror}"
        longest = f"{WAY_OUT}, with a path of at most {LONGEST_TEMPORARY_FOLDER} characters"
        raise ResourceError(Problem(problem, str(parent), longest)) from error


def _remove_leftovers(parent: Path) -> None:
    """Folders of our own programs that were killed: their process, whose number is in the name, is no more."""
    for folder in parent.glob(f"{TEMPORARY_PREFIX}*-*"):
        number = folder.name.removeprefix(TEMPORARY_PREFIX).partition("-")[0]
        with contextlib.suppress(OSError):
            if number.isdigit() and not psutil.pid_exists(int(number)) and folder.stat().st_uid == os.getuid():
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep Python's answer to SIGTERM: below Python, Ray's own prints a dump of the stack once it has started, and once
    it has ended, the signal kills the program on the spot.
    """
    answer = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, answer)
