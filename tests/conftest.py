"""What all tests share: where the repository is, where the real collections may be, a stand-in for the hub."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import settings

from tune_smp.openmp import POLICY, SPINS, waiting

# Tests run beside each other, on nets whose operations take microseconds: there even a few spins before the threads
# sleep cost more than the work (docs/decisions/0010-waiting-threads.md).
if POLICY not in os.environ:
    os.environ.setdefault(SPINS, "0")
# As the program itself does, here before any test loads torch.
os.environ.update(waiting(os.environ))
# pytest-xdist tells its processes how wide the terminal is, and the program would fold its tables to that.
os.environ.pop("COLUMNS", None)

# How long an example takes says what else the cores are doing: no property is about time.
settings.register_profile("shared cores", deadline=None)
settings.load_profile("shared cores")

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take minutes first, so that two processes end at about the same time."""
    items.sort(key=lambda item: "end_to_end" not in item.path.parts)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of this repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of small real collections beside the repository; absent in a lone clone."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real collections (../shared/data) are not beside this clone")
    return folder


@pytest.fixture
def slow_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU without matrix units, whatever this one has: what ``auto`` computes agrees to the sixth digit."""
    monkeypatch.setattr("tune_smp.training.precision.cpu_is_faster_in_bfloat16", lambda: False)


COMMIT = "c0ffee" + "0" * 34  # the newest of every repository


@dataclass
class LocalHub:
    """A stand-in for the Hugging Face hub on 127.0.0.1: what its client asks for, and what was asked.

    As on the hub, large files lie on another host: ``localhost`` here. ``answers`` says how a method fares: a status,
    "silent" for a connection that is taken and never answered, "login page" for what a captive network gives.
    """

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    answers: dict[str, int | str] = field(default_factory=dict)
    seconds: float = 0.0  # that a large file takes
    port: int = 0
    closing: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def asked(self, method: str) -> list[str]:
        """The files that were asked for with this method; the client has questions of its own besides."""
        return [path for how, path, _ in self.requests if how == method and not path.startswith("/api/")]

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        first_byte = request.headers["range"] == "bytes=0-0"
        method = "first byte" if first_byte else request.command
        self.requests.append((method, request.path, request.headers["authorization"]))
        fate = self.answers.get(request.command)
        if fate == "silent":
            self.closing.wait()
            request.close_connection = True
        elif fate == "login page":
            send(request, 200, b"<html>", {"ETag": '"1"'})
        elif isinstance(fate, int):
            send(request, fate, b"", {"Retry-After": "77"} if fate == 429 else {})
        elif request.path.startswith("/large/"):
            time.sleep(0 if first_byte else self.seconds)
            digest = request.path.split("/")[2].partition("?")[0]
            content = next(c for files in self.repositories.values() for c in files.values() if sha(c) == digest)
            send(request, 206 if first_byte else 200, content[:1] if first_byte else content, {"ETag": f'"{digest}"'})
        else:
            self.resolve(request)

    def resolve(self, request: BaseHTTPRequestHandler) -> None:
        repository, _, rest = request.path.removeprefix("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        commit = COMMIT if revision == "main" else revision
        if repository not in self.repositories:
            send(request, 404, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        elif name not in self.repositories[repository]:
            send(request, 404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        else:
            content = self.repositories[repository][name]
            headers = {"X-Repo-Commit": commit, "ETag": f'"{sha(content)}"'}
            if name.endswith(".json"):
                send(request, 200, content, headers)
            else:
                linked = {"X-Linked-Etag": f'"{sha(content)}"', "X-Linked-Size": str(len(content))}
                place = f"http://localhost:{self.port}/large/{sha(content)}?Signature=signed-by-the-hub"
                send(request, 302, b"", {**headers, **linked, "Location": place})


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def send(request: BaseHTTPRequestHandler, status: int, content: bytes, headers: dict[str, str]) -> None:
    request.send_response(status)
    for name, value in {**headers, "Content-Length": str(len(content))}.items():
        request.send_header(name, value)
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(content)


@pytest.fixture
def local_hub() -> Iterator[LocalHub]:
    """A hub of the test's own, empty and well."""
    hub = LocalHub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            hub.answer(self)

        def do_HEAD(self) -> None:
            hub.answer(self)

        def log_message(self, *_: object) -> None:
            """Nothing: what was asked is kept."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield hub
    hub.closing.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for the hub's client in this process, and no hub: nothing listens on port 9."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "")
    use_hub("http://127.0.0.1:9", monkeypatch)
    return tmp_path / "hub"


def use_hub(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture
def hub(local_hub: LocalHub, hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> LocalHub:
    """``local_hub``, which the client in this process asks, with an empty cache."""
    use_hub(local_hub.url, monkeypatch)
    return local_hub
