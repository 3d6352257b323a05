"""The environment that Ray's processes are started with: the folders they import from, and what torch needs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ray.job_config import JobConfig

from tune_smp.importing import PACKAGE, is_installed, python_environment
from tune_smp.openmp import waiting

# Workers of a cluster that others started have its environment, not ours: torch on shared cores must not spin there,
# and what lies in the folder where the cluster was started is not to be imported.
WORKER_ENVIRONMENT = {**waiting({}), "PYTHONSAFEPATH": "1"}
# The umask of the program that started Ray, in octal: Ray's own files are private, those of a trial are results.
UMASK = "TUNE_SMP_UMASK"


class InstalledOnly(JobConfig):
    """Ray's job, without the folders that Ray lets workers import from: the driver's working folder, and its script's.

    ``folders`` take their place.
    """

    def __init__(self, folders: tuple[Path, ...] = ()) -> None:
        super().__init__()
        self._folders = [str(folder) for folder in folders]

    def _get_proto_job_config(self) -> Any:
        # Called by Ray when everything is gathered, to send it.
        self._py_driver_sys_path = list(self._folders)
        return super()._get_proto_job_config()


def own_package(folder: Path) -> tuple[Path, ...]:
    """Return where this machine's workers find this package if it is not installed: in a folder with nothing else,
    made in ``folder``."""
    if is_installed():
        return ()
    alone = folder / "package"
    alone.mkdir()
    (alone / "tune_smp").symlink_to(PACKAGE)
    return (alone,)


@contextlib.contextmanager
def clean_environment() -> Iterator[None]:
    """Let what is started in the block import nothing from the working folder, Ray's services included, and have the
    threads of torch sleep while they wait."""
    with _environment({**waiting(os.environ), **python_environment()}):
        yield


@contextlib.contextmanager
def private_files() -> Iterator[None]:
    """Keep what Ray writes meanwhile, its authentication token among it, for this user alone."""
    before = os.umask(0o077)
    try:
        with _environment({UMASK: f"{before:o}"}):
            yield
    finally:
        os.umask(before)


def write_as_the_user_does() -> None:
    """In a worker of a Ray of our own: files from now on are as open as the user's umask has them."""
    if UMASK in os.environ:
        os.umask(int(os.environ[UMASK], 8))


@contextlib.contextmanager
def _environment(new: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in new}
    os.environ.update(new)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
