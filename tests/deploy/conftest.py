"""The conditions of a container, without a container engine: own mounts, own processes, a user that nobody knows."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tune_smp.data.synthetic import write_nuclei

USER = 12345
DATA, OUT = Path("/mnt/data"), Path("/mnt/out")

# What docker run does before it starts the program: processes and mounts of its own, folders of the
# user mounted, /dev/shm and /tmp as asked for, everything else read-only, then a user without any right. The program is
# process 1. Folders above Python may be closed to others, as /root is: they are covered, and Python shows through.
ENTER = r"""
set -eu
data=$1 out=$2 shm=$3 tmp=$4 python=$5 closed=$6 repository=$7
shift 7
mount -t tmpfs tmpfs /mnt
mkdir /mnt/data /mnt/out /mnt/python /mnt/repository
mount --bind "$repository" /mnt/repository
mount --bind "$data" /mnt/data
mount --bind "$out" /mnt/out
if [ -n "$closed" ]; then
  mount --bind "$python" /mnt/python
  mount -t tmpfs -o mode=755 tmpfs "$closed"
  mkdir -p "$python"
  mount --bind /mnt/python "$python"
fi
mount -t tmpfs -o "mode=1777,size=$shm" tmpfs /dev/shm
if [ -n "$tmp" ]; then mount -t tmpfs -o "mode=1777,size=$tmp" tmpfs /tmp; fi
if [ ! -e "$repository" ]; then  # this clone lies in /tmp
  mkdir -p "$repository"
  mount --bind /mnt/repository "$repository"
  mount -o remount,bind,ro "$repository"
fi
mount -o remount,bind,ro /mnt/data
mount -o remount,bind,ro /
cd /
exec setpriv --reuid=12345 --regid=0 --clear-groups --bounding-set=-all --no-new-privs "$@"
"""


@dataclass(frozen=True)
class Container:
    """Starts tune-smp as ``docker run --user 12345:0 --read-only`` would; images in /mnt/data, results to /mnt/out."""

    repository: Path
    data: Path
    out: Path

    def start(self, *words: str, shm: str = "64m", tmp: str = "1g", home: str | None = None) -> subprocess.Popen[str]:
        """``shm`` and ``tmp`` are the sizes of /dev/shm and /tmp; without ``tmp`` there is no /tmp to write to."""
        base = Path(sys.base_prefix)
        closed = next((str(path) for path in reversed(base.parents) if not path.stat().st_mode & 0o001), "")
        environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "PYTHONPATH": str(self.repository),
            "HF_HUB_OFFLINE": "1",
            "COLUMNS": "200",
            **({} if home is None else {"HOME": home}),
        }
        return subprocess.Popen(
            [
                *("unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"),
                *("sh", "-c", ENTER, "enter", str(self.data), str(self.out), shm, tmp, str(base), closed),
                *(str(self.repository), *words),
            ],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str, timeout: float = 240, **options: str | None) -> subprocess.CompletedProcess[str]:
        """Start, and wait for the end."""
        process = self.start(*words, **options)  # type: ignore[arg-type]
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            raise
        return subprocess.CompletedProcess(words, process.returncode, out, err)


@pytest.fixture(scope="session")
def nuclei(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six small synthetic images with labels, that everybody may read."""
    folder = tmp_path_factory.mktemp("nuclei")
    folder.chmod(0o755)
    write_nuclei(folder, count=6, size=[(96, 96)], seed=3)
    return folder


@pytest.fixture
def container(tmp_path: Path, nuclei: Path, repository: Path) -> Container:
    """A container with an output folder that any user may write to."""
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("setpriv") is None:
        pytest.skip("needs root, unshare and setpriv: mounts and users of its own")
    can_mount = subprocess.run(["unshare", "--mount", "--pid", "--fork", "--mount-proc", "true"], check=False)
    if can_mount.returncode:
        pytest.skip("this machine allows no mounts of its own")
    out = tmp_path / "out"
    out.mkdir()
    out.chmod(0o777)
    return Container(repository, nuclei, out)


@pytest.fixture(scope="session")
def train_words() -> Callable[..., list[str]]:
    """The flags of a tiny real training, in the container."""

    def words(*extra: str) -> list[str]:
        return [
            *("--imagesDir=/mnt/data", "--labelsDir=/mnt/data", "--imagesPattern=.*", "--labelsPattern=.*"),
            *("--segmentationMode=binary", "--outputDir=/mnt/out/run", "--encoderBaseVariantWeights"),
            *("Test,tu-test_efficientnet,random", "--tileSize=64", "--batchSize=4", "--device=cpu"),
            *("--maxEpochs=1", "--stepsPerEpoch=2", *extra),
        ]

    return words
