"""All that this package takes from Ray beyond its public interfaces; why, in docs/decisions/0016.

Each of these may change with Ray's next minor version: ``pyproject.toml`` pins the tested one. Beyond what is imported
here, the tuner counts failures anew in ``Trial.run_metadata``, and the pruners call ``on_trial_result`` of Ray's
schedulers themselves.
"""

from __future__ import annotations

import contextlib
import functools
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray._private import ray_constants, services
from ray._private.authentication import authentication_token_setup, authentication_utils
from ray._private.authentication.http_token_authentication import get_auth_headers_if_auth_enabled
from ray._private.grpc_utils import init_grpc_channel
from ray.core.generated import gcs_pb2, gcs_service_pb2, gcs_service_pb2_grpc
from ray.tune.schedulers import AsyncHyperBandScheduler


@dataclass(frozen=True, slots=True)
class GcsAnswer:
    """The answer of the process that knows a cluster (GCS).

    ``metadata`` is JSON about it, ``nodes`` maps living nodes' ids to addresses; both texts are empty where it does not
    know yet.
    """

    metadata: bytes
    dashboard: str
    nodes: dict[str, str]


def ask_gcs(address: str, *, timeout: float) -> GcsAnswer:
    """Three questions to the GCS at ``address`` (host:port), each within ``timeout`` seconds.

    Raises grpc.RpcError, and ray.exceptions.AuthenticationError where this side's token cannot be read.
    """
    with init_grpc_channel(address, options=ray_constants.GLOBAL_GRPC_OPTIONS) as channel:
        values = gcs_service_pb2_grpc.InternalKVGcsServiceStub(channel)

        def value(namespace: bytes, key: bytes) -> bytes:
            request = gcs_service_pb2.InternalKVGetRequest(namespace=namespace, key=key)
            return bytes(values.InternalKVGet(request, timeout=timeout).value)

        metadata = value(ray_constants.KV_NAMESPACE_CLUSTER, b"CLUSTER_METADATA")
        dashboard = value(ray_constants.KV_NAMESPACE_DASHBOARD, ray_constants.DASHBOARD_ADDRESS.encode())
        nodes = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel).GetAllNodeInfo(
            gcs_service_pb2.GetAllNodeInfoRequest(), timeout=timeout
        )
    alive = [node for node in nodes.node_info_list if node.state == gcs_pb2.GcsNodeInfo.ALIVE]
    return GcsAnswer(metadata, dashboard.decode(), {node.node_id.hex(): node.node_manager_address for node in alive})


def clusters_here() -> list[str]:
    """Addresses (host:port) of the clusters that have a node on this machine."""
    services.find_gcs_addresses.cache_clear()
    return sorted(services.find_gcs_addresses())


def nodes_here() -> set[str]:
    """Ids of the nodes that run on this machine."""
    return set(services.find_node_ids())


def sends_token() -> bool:
    """Whether this process sends a token to clusters."""
    return bool(authentication_utils.is_token_auth_enabled())


def send_token() -> None:
    """Send this side's token from here on."""
    authentication_token_setup._enable_token_auth()


def has_token() -> bool:
    """Whether this side has a token, sent or not."""
    return bool(ray._raylet.AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True))


def forget_token() -> None:
    """Let Ray read the token anew, which it does once per process."""
    ray._raylet.AuthenticationTokenLoader.instance().reset_cache()


def token_headers() -> dict[str, str]:
    """HTTP headers that hold this side's token, if it sends one."""
    return dict(get_auth_headers_if_auth_enabled({}))


def keep_quiet(write: Callable[[dict[str, Any], bool], None]) -> None:
    """Hand what Ray would print to ``write``: the death of a worker is printed whatever its loggers are set to.

    Keep Ray from answering SIGTERM, by draining its node for up to 30 s and leaving.
    """
    ray._private.worker.print_to_stdstream = write
    ray._private.utils.set_sigterm_handler = lambda _handler: None


@contextlib.contextmanager
def only_what_is_used(*, dashboard: bool) -> Iterator[None]:
    """A Ray that is started in the block has no monitor of logs, which sends workers' output to a driver that wants
    none; without a dashboard no autoscaler either, whose status is all that it has to say on one machine."""
    parameters = ray._private.parameter
    whole = parameters.RayParams
    parameters.RayParams = functools.partial(whole, include_log_monitor=False, no_monitor=not dashboard)
    try:
        yield
    finally:
        parameters.RayParams = whole


_SAVING = ".saving_"


@contextlib.contextmanager
def moving_checkpoints(trainable: tune.Trainable) -> Iterator[str | None]:
    """A folder for a checkpoint that ``trainable`` saves in the block, which Ray then moves into its storage.

    Ray itself writes to the system's temporary folder and copies from there: each epoch twice the bytes. None, and as
    Ray does, where the storage is none of this machine's file systems.
    """
    storage = trainable._storage
    if storage is None or storage.storage_filesystem.type_name != "local":
        yield None
        return
    storage._check_validation_file()  # before anything is made there: a storage that the nodes do not share is reported
    place = Path(storage.trial_fs_path)
    place.mkdir(parents=True, exist_ok=True)
    for left in place.glob(f"{_SAVING}*"):  # by a worker that was killed: one at a time writes here
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_SAVING, dir=place, ignore_cleanup_errors=True) as folder:
        storage.persist_current_checkpoint = functools.partial(_moved_into, storage)
        try:
            yield folder
        finally:
            del storage.persist_current_checkpoint


def _moved_into(storage: Any, checkpoint: tune.Checkpoint) -> tune.Checkpoint:
    """As Ray's own ``persist_current_checkpoint`` does; each file appears whole."""
    place = Path(storage.checkpoint_fs_path)
    place.mkdir(parents=True, exist_ok=True)
    for file in Path(checkpoint.path).iterdir():
        file.replace(place / file.name)
    return tune.Checkpoint(path=storage.checkpoint_fs_path, filesystem=storage.storage_filesystem)


def put_in_bracket(scheduler: AsyncHyperBandScheduler, trial_id: str, number: int) -> None:
    """Move a trial that was just added into the bracket of this number, from 0, counted round."""
    scheduler._trial_info[trial_id] = scheduler._brackets[number % len(scheduler._brackets)]


def others_in_rung(scheduler: AsyncHyperBandScheduler, trial_id: str, epoch: int) -> int:
    """Number of other trials with a finite value in the rung that this trial is judged at after this epoch."""
    rungs = scheduler._trial_info[trial_id]._rungs  # highest first
    recorded: Mapping[str, float] = next((values for milestone, values in rungs if epoch >= milestone), {})
    return sum(math.isfinite(value) for other, value in recorded.items() if other != trial_id)
