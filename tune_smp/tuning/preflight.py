"""Before the first trial: does a trial fit on a node, and do all nodes see the same files and run the same versions?

What is wrong is reported at once for all nodes, within seconds; later it would show as a trial that waits for ever, or
as one that fails on one node and not on another.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import shutil
import sys
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tune_smp.errors import Problem, ResourceError, listing
from tune_smp.tuning.cluster import Node

# What must be the same everywhere: the name of the distribution, and what it is called.
VERSIONED = {"ray": "Ray", "torch": "torch", "tune-smp": "tune-smp"}
HIDDEN_PREFIX = ".tune-smp-"
DRIVER_FILE = "driver"


def check_resources(nodes: Sequence[Node], *, cpus: float, gpus: float) -> tuple[Node, ...]:
    """The nodes that can hold a trial of so many ``cpus`` and ``gpus`` (fractions allowed).

    Ray would let a trial that fits nowhere wait for ever. Raises ResourceError where there is none.
    """
    able = tuple(node for node in nodes if node.cpus >= cpus and node.gpus >= gpus)
    if able:
        return able
    asked = [f"{name} {value:g}" for name, value in (("--gpusPerTrial", gpus), ("--cpusPerTrial", cpus)) if value]
    names = _names(nodes)
    has = [f"{names[node.id]} has {node.gpus:g} GPUs and {node.cpus:g} CPUs" for node in nodes]
    raise ResourceError(
        Problem(
            f"no node can hold a trial with {' and '.join(asked)}",
            listing(has) or "the cluster has no nodes",
            "ask for less, or add a node that has as much",
        )
    )


@dataclass(frozen=True, slots=True)
class _Finding:
    """A difference on one node: the ``rule`` is the same text for all nodes that break it."""

    rule: str
    node: str
    there: str
    fix: str


def check_nodes(nodes: Sequence[Node], *, readable: Sequence[Path], storage: Path, timeout_s: float = 20.0) -> None:
    """See on every node that it runs this side's versions, has the ``readable`` folders, and shares ``storage``.

    Each node reports for itself, all at once, within ``timeout_s``. Raises ResourceError with all that differs on all
    nodes, both sides named.
    """
    with _hidden_folder(storage) as hidden:
        own = _report([str(folder) for folder in readable], None, "")
        reports = _ask_nodes(nodes, [str(folder) for folder in readable], hidden, timeout_s=timeout_s)
        names = _names(nodes)
        findings = [
            finding
            for node in nodes
            for finding in _compare(own, reports[node.id], names[node.id], storage=storage, arrived=hidden / node.id)
        ]
    if findings:
        raise ResourceError(_as_problems(findings))


@contextlib.contextmanager
def _hidden_folder(storage: Path) -> Iterator[Path]:
    """A folder of our own in ``storage`` with the driver's file in it, removed at the end."""
    # Named at random: no file system has kept in mind that it is not there.
    hidden = storage / f"{HIDDEN_PREFIX}{uuid.uuid4().hex}"
    try:
        hidden.mkdir(parents=True)
        (hidden / DRIVER_FILE).write_text(hidden.name, "utf-8")
    except OSError as error:
        raise ResourceError(
            Problem(f"the storage cannot be written from here: {error.strerror}", str(storage), "pass --storagePath")
        ) from error
    try:
        yield hidden
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def _ask_nodes(
    nodes: Sequence[Node], readable: Sequence[str], hidden: Path, *, timeout_s: float
) -> Mapping[str, dict[str, Any]]:
    """Each node's report, by node id; an ``error`` in it where there is none."""
    pending = {_ask_node(node, readable, hidden): node for node in nodes}
    answered, silent = ray.wait(list(pending), num_returns=len(pending), timeout=timeout_s) if pending else ([], [])
    reports = {pending[reference].id: _answer(reference) for reference in answered}
    for reference in silent:
        ray.cancel(reference, force=True)
        reports[pending[reference].id] = {"error": f"gave no answer within {timeout_s:g} s"}
    return reports


def _ask_node(node: Node, readable: Sequence[str], hidden: Path) -> Any:
    # By value: a node may have another tune-smp, or none, and must be able to say so.
    this_module = sys.modules[__name__]
    ray.cloudpickle.register_pickle_by_value(this_module)
    try:
        return (
            ray.remote(_report)
            .options(num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False))
            .remote(list(readable), str(hidden), node.id)
        )
    finally:
        ray.cloudpickle.unregister_pickle_by_value(this_module)


def _answer(reference: Any) -> dict[str, Any]:
    try:
        report: dict[str, Any] = ray.get(reference)
    except RayError as error:
        return {"error": f"failed: {str(error).strip().splitlines()[-1]}"}
    return report


def _report(readable: list[str], hidden: str | None, own_name: str) -> dict[str, Any]:
    """Report what this very node has. Runs on every node, so it uses nothing but Python's own library.

    Folders are given by the number of their entries, or by the text of the error. ``hidden`` is the driver's folder in
    the storage: its file is read, and one with ``own_name`` is written beside it.
    """
    versions = {"Python": platform.python_version()}
    for distribution, name in VERSIONED.items():
        try:
            versions[name] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "none"
    folders: dict[str, int | str] = {}
    for folder in readable:
        try:
            folders[folder] = len(os.listdir(folder))  # noqa: PTH208  names are all that is wanted
        except OSError as error:
            folders[folder] = str(error.strerror)
    storage = ""
    if hidden is not None:
        try:
            text = (Path(hidden) / DRIVER_FILE).read_text("utf-8")
            (Path(hidden) / own_name).write_text(text, "utf-8")
        except OSError as error:
            storage = str(error.strerror)
    return {"versions": versions, "folders": folders, "storage": storage}


def _compare(
    own: dict[str, Any], theirs: dict[str, Any], node: str, *, storage: Path, arrived: Path
) -> Iterator[_Finding]:
    if "error" in theirs:
        yield _Finding("a node does not answer", node, theirs["error"], "see its logs (ray logs), or remove it")
        return
    for name, version in own["versions"].items():
        if theirs["versions"][name] != version:
            rule = f"the versions of {name} differ: {version} here"
            yield _Finding(rule, node, f"has {theirs['versions'][name]}", "use the same image on every node")
    for folder, entries in own["folders"].items():
        if theirs["folders"][folder] != entries:
            rule = f"{folder} is not the same everywhere: {_described(entries)} here"
            there = f"has {_described(theirs['folders'][folder])}"
            yield _Finding(rule, node, there, "use a folder that all nodes share, under the same path")
    if theirs["storage"] or not arrived.exists():
        there = f"cannot use it ({theirs['storage']})" if theirs["storage"] else "writes somewhere else"
        rule = f"the storage {storage} is not shared: the file written here must be read on every node, and the reverse"
        yield _Finding(rule, node, there, "pass --storagePath with a folder that all nodes share, under the same path")


def _described(entries: int | str) -> str:
    return f"{entries} entries" if isinstance(entries, int) else f"none ({entries})"


def _as_problems(findings: Sequence[_Finding]) -> Iterator[Problem]:
    by_rule: dict[tuple[str, str], list[str]] = defaultdict(list)
    for finding in findings:
        by_rule[finding.rule, finding.fix].append(f"{finding.node} {finding.there}")
    for (rule, fix), nodes in by_rule.items():
        yield Problem(rule, listing(nodes), fix)


def _names(nodes: Sequence[Node]) -> dict[str, str]:
    """``node 10.0.0.7`` by node id, with the id's beginning where nodes share an address."""
    addresses = [node.address for node in nodes]
    return {
        node.id: f"node {node.address}" + (f" ({node.id[:8]})" if addresses.count(node.address) > 1 else "")
        for node in nodes
    }
