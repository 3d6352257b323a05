"""Send a command to a cluster as a Ray Job, from a machine that need not be part of it, and follow its log."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shlex
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from ray.job_submission import JobStatus, JobSubmissionClient

from tune_smp.errors import InterruptedRunError, Problem, ResourceError
from tune_smp.tuning import ray_private
from tune_smp.tuning.gcs import AUTO, PATIENCE_S, ask_cluster, find_address, token_problem, use_own_token

# Of the job's program, not of its workers: lines as they are written, and time to end in order when the job is stopped
# (Ray's own is 3 s). No code travels with a job, and none is taken from the folder that it is started in.
JOB_ENVIRONMENT = {"PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1", "RAY_JOB_STOP_WAIT_TIME_S": "120"}
# Ray lets these win over the address that its client is given.
OVERRIDING = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
# Ray notes the end of a job a moment after the end of its log.
END_NOTED_WITHIN_S = 15.0
DASHBOARD_FORM = "http://host:8265"


@dataclass(frozen=True, slots=True)
class _Job:
    """A job on its way, and how a person can take it up again."""

    client: JobSubmissionClient
    id: str
    dashboard: str

    def ray_command(self, *words: str) -> str:
        """Return the command ``ray job ...`` for this very job."""
        mode = "RAY_AUTH_MODE=token " if ray_private.sends_token() else ""
        return mode + shlex.join(["ray", "job", *words, "--address", self.dashboard, self.id])


def submit_and_follow(command: Sequence[str], *, address: str, write: Callable[[str], None]) -> int:
    """Run ``command`` on the cluster, ``write`` its log line by line, and return its exit code.

    ``address`` is the dashboard's (http://host:8265), or the cluster's own (``auto``, host:6379). The command runs on
    the cluster's head, where ``--address auto`` means that cluster; it must exist there, as must its files. A program
    that a signal ended has code 128 plus the signal's number, as in a shell; where Ray knows no code, it is 1.

    Raises ResourceError where there is no such cluster, the token is missing or wrong, or the connection is lost;
    InterruptedRunError after Ctrl-C, while the job keeps running.
    """
    dashboard = find_dashboard(address)
    job = _submit(command, dashboard)
    write(f"sent to {dashboard} as {job.id}")
    try:
        asyncio.run(_follow(job, write))
        return _exit_code(job, write)
    except KeyboardInterrupt:
        raise InterruptedRunError(
            Problem("stopped following; the job runs on", f"{job.id} at {dashboard}", _ways_out(job))
        ) from None
    except (OSError, RuntimeError, aiohttp.ClientError) as error:
        raise ResourceError(
            Problem(f"the connection was lost ({error}); the job runs on", f"{job.id} at {dashboard}", _ways_out(job))
        ) from error


def _ways_out(job: _Job) -> str:
    return f"follow it: {job.ray_command('logs', '--follow')}; stop it: {job.ray_command('stop')}"


def find_dashboard(address: str) -> str:
    """The URL that commands are sent to. Raises what ``find_address`` and ``ask_cluster`` raise."""
    if address == AUTO:
        address = next((os.environ[name] for name in OVERRIDING if os.environ.get(name)), AUTO)
    if address.startswith(("http://", "https://")):
        return _checked(address.rstrip("/"))
    facts = ask_cluster(find_address(address))
    if facts.dashboard is None:
        raise ResourceError(
            Problem(f"the cluster at {facts.address} has no dashboard to send commands to", f"--address {address}")
        )
    host, _, port = facts.dashboard.rpartition(":")
    # On another machine the same words would mean whatever listens there.
    if host in ("127.0.0.1", "localhost") and not set(facts.nodes) & ray_private.nodes_here():
        raise ResourceError(
            Problem(
                f"the dashboard of the cluster at {facts.address} listens on its head alone ({facts.dashboard})",
                f"--address {address}",
                f"forward the port (ssh -L {port}:{facts.dashboard} HEAD), then --address http://127.0.0.1:{port}",
            )
        )
    return _checked(f"http://{facts.dashboard}")


def _checked(url: str) -> str:
    """``url``, once a Ray dashboard has answered there and taken this side's token where it asks for one."""
    status = _status(url)
    if status in (401, 403) and use_own_token():
        status = _status(url)
    if status in (401, 403):
        raise ResourceError(token_problem(url))
    if status != 200:
        raise ResourceError(
            Problem(
                f"what answers at {url} is no Ray dashboard (status {status})",
                f"--address {url}",
                f"the dashboard's address looks like {DASHBOARD_FORM}",
            )
        )
    return url


def _status(url: str) -> int:
    """HTTP's status of the dashboard's version page; 0 for an answer of something else."""
    request = urllib.request.Request(f"{url}/api/version", headers=ray_private.token_headers())  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:  # noqa: S310  http and https only, see above
            return 200 if "ray_version" in json.load(answer) else 0
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, ValueError) as error:
        if isinstance(error, json.JSONDecodeError):
            return 0
        raise ResourceError(
            Problem(
                f"no Ray dashboard answers at {url} ({getattr(error, 'reason', error)})",
                f"--address {url}",
                f"check host and port ({urlsplit(url).hostname}:8265 is usual), or forward the port first",
            )
        ) from error


def _submit(command: Sequence[str], dashboard: str) -> _Job:
    for module in ("dashboard_sdk", "job.sdk"):
        logging.getLogger(f"ray.dashboard.modules.{module}").setLevel(logging.CRITICAL)
    try:
        with _without(OVERRIDING):
            client = JobSubmissionClient(dashboard)
        # exec: what stops the job stops the program itself, and its exit code is the job's.
        job_id = client.submit_job(
            entrypoint=f"exec {shlex.join(command)}", runtime_env={"env_vars": dict(JOB_ENVIRONMENT)}
        )
    except (RuntimeError, OSError, ValueError) as error:
        raise ResourceError(
            Problem(
                f"the cluster did not take the command: {error}", f"--address {dashboard}", "see the cluster's logs"
            )
        ) from error
    return _Job(client, job_id, dashboard)


@contextlib.contextmanager
def _without(names: Sequence[str]) -> Iterator[None]:
    """The environment without some variables, for the length of the block."""
    taken = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(taken)


async def _follow(job: _Job, write: Callable[[str], None]) -> None:
    rest = ""
    async for chunk in job.client.tail_job_logs(job.id):
        *lines, rest = (rest + chunk).split("\n")
        for line in lines:
            write(line)
    if rest:
        write(rest)


def _exit_code(job: _Job, write: Callable[[str], None]) -> int:
    details = _ended(job)
    code: int | None = details.driver_exit_code
    if details.status == JobStatus.SUCCEEDED:
        return 0
    if code is None:
        write(f"{job.id}: {str(details.status).lower()}: {details.message}")
        return 1
    return 128 - code if code < 0 else code


def _ended(job: _Job) -> Any:
    """The job's details, once it has come to its end."""
    deadline = time.monotonic() + END_NOTED_WITHIN_S
    while True:
        details = job.client.get_job_info(job.id)
        if details.status.is_terminal():
            return details
        if time.monotonic() > deadline:
            raise RuntimeError("its log ended and the job did not")
        time.sleep(0.2)
