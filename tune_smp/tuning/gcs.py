"""Ask a cluster about itself before joining it: is it there, does it take our token, which versions and nodes it has.

Ray's own way of joining waits half a minute or more and then says only that it failed. The process that knows a
cluster (GCS, usually port 6379) answers the same questions in milliseconds when asked directly.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc  # type: ignore[import-untyped]  # grpcio has no types
import ray
from ray.exceptions import AuthenticationError

from tune_smp.errors import Problem, ResourceError, SettingsError, listing
from tune_smp.tuning import ray_private

# Of each question to a cluster, in seconds; a cluster that is there answers within milliseconds.
PATIENCE_S = 5.0
AUTO = "auto"
USUAL_FORM = "host:6379"

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """The facts that a cluster reports about itself.

    ``address`` is host:port of its GCS; ``dashboard`` host:port as seen from its head, None where there is none;
    ``nodes`` maps the ids of its nodes that are alive to their addresses. A cluster that is ``private`` was started by
    a program for itself and ends with it.
    """

    address: str
    ray_version: str
    python_version: str
    dashboard: str | None
    nodes: dict[str, str]
    private: bool


def find_address(given: str) -> str:
    """``host:port`` of the cluster that ``--address`` means: RAY_ADDRESS or the one on this machine for ``auto``.

    Raises SettingsError for a form that is none, ResourceError where ``auto`` finds no cluster or several.
    """
    address = given if given != AUTO else os.environ.get("RAY_ADDRESS") or _only_one_here()
    if "://" in address:
        raise SettingsError(_not_a_member_address(address))
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise SettingsError(
            Problem(f"an address of a cluster is auto or {USUAL_FORM}, not {address!r}", "--address", "name the port")
        )
    return address


def _not_a_member_address(address: str) -> Problem:
    if address.startswith("http"):
        return Problem(
            f"{address} is a dashboard: commands can be sent there, but no search can be run through it",
            "--address",
            f"add --submit, or name the cluster itself ({USUAL_FORM}) on one of its machines",
        )
    return Problem(
        f"{address} is not supported: the search must run on a machine of the cluster",
        "--address",
        f"pass auto or {USUAL_FORM} on a machine of the cluster, or --submit with the dashboard's http:// address",
    )


def _only_one_here() -> str:
    found = ray_private.clusters_here()
    if len(found) != 1:
        raise ResourceError(
            Problem(
                f"several Ray clusters run on this machine: {listing(found)}"
                if found
                else "no Ray runs on this machine",
                "--address auto",
                f"name one: --address {found[0]}" if found else "start one (ray start --head), or leave --address away",
            )
        )
    return found[0]


def ask_cluster(address: str) -> ClusterFacts:
    """Ask the cluster at ``address`` (host:port) about itself.

    Where the cluster asks for a token and the environment does not say that there is one (RAY_AUTH_MODE), this side's
    token is used from here on, if it has one.

    Raises ResourceError where nothing answers, no Ray answers, or the token is missing or wrong.
    """
    try:
        return _ask(address)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNAUTHENTICATED or not use_own_token():
            raise _as_ours(address, error) from error
    try:
        return _ask(address)
    except grpc.RpcError as error:
        raise _as_ours(address, error) from error


def use_own_token() -> bool:
    """Send this side's token from here on; False where it is sent already, forbidden or not there."""
    if "RAY_AUTH_MODE" in os.environ or not _with_readable_token(ray_private.has_token):
        return False
    ray_private.send_token()
    return True


def _ask(address: str) -> ClusterFacts:
    answer = _with_readable_token(lambda: ray_private.ask_gcs(address, timeout=PATIENCE_S))
    if not answer.metadata:
        raise ResourceError(
            Problem(f"the cluster at {address} is still starting", f"--address {address}", "try again in some seconds")
        )
    about = json.loads(answer.metadata)
    return ClusterFacts(
        address=address,
        ray_version=about["ray_version"],
        python_version=about["python_version"],
        dashboard=answer.dashboard or None,
        nodes=answer.nodes,
        private=about["ray_init_cluster"],
    )


def _with_readable_token(ask: Callable[[], Answer]) -> Answer:
    """A token file that is named and cannot be read is an error of this side, wherever Ray notices it."""
    try:
        return ask()
    except AuthenticationError as error:
        raise ResourceError(
            Problem("the token of this side cannot be read", token_source(), "name a file that holds the token")
        ) from error


def _as_ours(address: str, error: Any) -> ResourceError:
    if error.code() is grpc.StatusCode.UNAUTHENTICATED:
        return ResourceError(token_problem(address))
    if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        return ResourceError(
            Problem(
                f"no Ray cluster answers at {address} ({_reason(error)})",
                f"--address {address}",
                f"check host and port ({USUAL_FORM} is usual), and that the cluster runs: ray start --head",
            )
        )
    return ResourceError(
        Problem(
            f"what answers at {address} is no Ray cluster ({error.code().name.lower()})",
            f"--address {address}",
            f"check host and port ({USUAL_FORM} is usual)",
        )
    )


def _reason(error: Any) -> str:
    details = error.details() or ""
    if "http1.x" in details:
        return "something that speaks HTTP does; for a dashboard, write http:// before it and add --submit"
    return "it does not answer in time" if "Deadline" in details else details.rpartition(": ")[2]


def token_problem(address: str) -> Problem:
    """Both sides of a token that is missing or wrong; the token itself is never shown."""
    if not ray_private.sends_token():
        forbidden = "RAY_AUTH_MODE" in os.environ
        side = f"RAY_AUTH_MODE={os.environ['RAY_AUTH_MODE']} forbids one" if forbidden else "this side has none"
        return Problem(
            f"the cluster at {address} asks for a token, and {side}",
            "~/.ray/auth_token, RAY_AUTH_TOKEN_PATH, RAY_AUTH_TOKEN",
            "unset RAY_AUTH_MODE" if forbidden else "put the cluster's token into ~/.ray/auth_token (mode 0600)",
        )
    return Problem(
        f"the cluster at {address} does not take the token of this side",
        token_source(),
        "get the cluster's token: ray get-auth-token on its head",
    )


def token_source() -> str:
    """Name the place that Ray takes this side's token from, in its order."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "RAY_AUTH_TOKEN (environment)"
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    return f"{path} (RAY_AUTH_TOKEN_PATH)" if path else "~/.ray/auth_token"


def check_can_join(facts: ClusterFacts) -> None:
    """Raise ResourceError, with both sides named, where this process cannot be part of that cluster."""
    own = {"Ray": ray.__version__, "Python": platform.python_version()}
    theirs = {"Ray": facts.ray_version, "Python": facts.python_version}
    problems = [
        Problem(
            f"the versions of {name} differ: {own[name]} here, {theirs[name]} in the cluster at {facts.address}",
            "--address",
            f"install {name} {theirs[name]} here, or use the same image on both sides",
        )
        for name in own
        if own[name] != theirs[name]
    ]
    if not problems and not set(facts.nodes) & ray_private.nodes_here():
        problems = [
            Problem(
                f"this machine is none of the cluster at {facts.address}, which has {listing(_addresses(facts))}",
                "--address",
                "run the command on one of them, join this machine (ray start --address), or add --submit",
            )
        ]
    if problems:
        raise ResourceError(problems)


def _addresses(facts: ClusterFacts) -> list[str]:
    return sorted(set(facts.nodes.values())) or ["no nodes"]
