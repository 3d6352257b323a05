"""What is shipped for clusters is whole, closed to strangers, and runs commands that exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

KUBERAY = ("kuberay-cluster.yaml", "kuberay-job.yaml")
# Of every node, however it is started. The first refuses who has no token; without the second, one trial that needs too
# much memory ends a search.
EVERYWHERE = {"RAY_AUTH_MODE": "token", "RAY_memory_monitor_refresh_ms": "0", "RAY_JOB_STOP_WAIT_TIME_S": "120"}


@pytest.fixture(scope="module")
def deploy(repository: Path) -> Path:
    return repository / "deploy"


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text("utf-8")))


def document(path: Path) -> dict[str, Any]:
    (only,) = documents(path)
    return only


def strings(value: object) -> Iterator[str]:
    """Every string in a document, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from (*strings(key), *strings(inner))
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)


def test_the_readme_names_every_file_and_no_other(deploy: Path) -> None:
    named = set(re.findall(r"[\w-]+\.yaml", (deploy / "README.md").read_text("utf-8")))
    assert named == {path.name for path in deploy.glob("*.yaml")}


def test_no_file_holds_a_token(deploy: Path) -> None:
    for path in deploy.glob("*"):
        assert not re.search(r"\b[0-9a-f]{32,}\b", path.read_text("utf-8")), path.name
    assert "auth_token" in (deploy / ".gitignore").read_text("utf-8").split()


# Ray's launcher


def test_rays_launcher_takes_its_file(deploy: Path) -> None:
    config = prepare_config(document(deploy / "ray-cluster.yaml"))
    validate_config(config)
    assert config["available_node_types"][config["head_node_type"]]["max_workers"] == 2


def test_the_launchers_nodes_are_closed_and_the_head_runs_no_trial(deploy: Path) -> None:
    config = document(deploy / "ray-cluster.yaml")
    options = config["docker"]["run_options"]
    assert {f"--env={name}={value}" for name, value in EVERYWHERE.items()} <= set(options)
    assert config["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}
    (_, head), (_, worker) = config["head_start_ray_commands"], config["worker_start_ray_commands"]
    assert {"--dashboard-host=127.0.0.1", "--num-cpus=0", "--head"} <= set(shlex.split(head))
    assert shlex.split(worker) == ["ray", "start", "--address=$RAY_HEAD_IP:6379"]


# Docker compose


def test_compose_publishes_the_dashboard_to_this_machine_alone(deploy: Path) -> None:
    services = document(deploy / "docker-compose.yaml")["services"]
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published == ["127.0.0.1:8265:8265"]
    assert not any("network_mode" in service for service in services.values())


def test_compose_runs_one_image_with_the_token_as_a_secret_and_a_shared_folder(deploy: Path) -> None:
    config = document(deploy / "docker-compose.yaml")
    services = config["services"]
    assert set(services) == {"head", "worker", "worker-gpu"}
    assert {service["image"] for service in services.values()} == {"${TUNE_SMP_IMAGE:-tune-smp:latest}"}
    for service in services.values():
        assert service["secrets"] == list(config["secrets"]) == ["auth_token"]
        assert EVERYWHERE.items() <= service["environment"].items()
        assert service["environment"]["RAY_AUTH_TOKEN_PATH"] == "/run/secrets/auth_token"  # noqa: S105  its path
        assert [volume.rpartition(":")[2] for volume in service["volumes"]] == ["/shared"]
        assert service["shm_size"] == "2gb"
        assert service["entrypoint"][:2] == ["ray", "start"]
        assert service["entrypoint"][-1] == "--block"
    for name in ("worker", "worker-gpu"):
        assert services[name]["depends_on"] == {"head": {"condition": "service_healthy"}}
        assert "--address=head:6379" in services[name]["entrypoint"]


# KubeRay


def ray_cluster(manifest: dict[str, Any]) -> dict[str, Any]:
    cluster: dict[str, Any] = manifest["spec"].get("rayClusterSpec", manifest["spec"])
    return cluster


def pods(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = ray_cluster(manifest)
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


@pytest.mark.parametrize(("name", "kind"), [*zip(KUBERAY, ("RayCluster", "RayJob"), strict=True)])
def test_kuberay_manifests_are_of_their_kind_and_of_the_tested_ray(deploy: Path, name: str, kind: str) -> None:
    manifest = document(deploy / name)
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", kind)
    pinned = (deploy.parent / "constraints.txt").read_text("utf-8")
    assert f"ray=={ray_cluster(manifest)['rayVersion']}\n" in pinned
    assert [pod["containers"][0]["name"] for pod in pods(manifest)] == ["ray-head", "ray-worker"]


@pytest.mark.parametrize("name", KUBERAY)
def test_kuberay_pods_run_one_image_with_the_token_of_the_secret(deploy: Path, name: str) -> None:
    manifest = document(deploy / name)
    secret = document(deploy / "kuberay-token.yaml")
    assert ray_cluster(manifest)["authOptions"] == {"mode": "token", "secretName": secret["metadata"]["name"]}
    containers = [container for pod in pods(manifest) for container in pod["containers"]]
    assert {container["image"] for container in containers} == {"tune-smp:latest"}
    for container in containers:
        environment = {entry["name"]: entry for entry in container["env"]}
        assert {name: environment[name]["value"] for name in EVERYWHERE} == EVERYWHERE
        reference = environment["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]
        assert reference == {"name": secret["metadata"]["name"], "key": next(iter(secret["stringData"]))}


@pytest.mark.parametrize("name", KUBERAY)
def test_kuberay_pods_share_a_folder_and_have_memory_to_share(deploy: Path, name: str) -> None:
    claim = document(deploy / "kuberay-storage.yaml")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for pod in pods(document(deploy / name)):
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        mounted = {mount["mountPath"]: volumes[mount["name"]] for mount in pod["containers"][0]["volumeMounts"]}
        assert mounted["/shared"]["persistentVolumeClaim"] == {"claimName": claim["metadata"]["name"]}
        assert mounted["/dev/shm"]["emptyDir"]["medium"] == "Memory"  # noqa: S108  the mount of every container


def test_kuberay_trials_run_on_gpus_and_one_node_is_always_there(deploy: Path) -> None:
    for name in KUBERAY:
        cluster = ray_cluster(document(deploy / name))
        assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        (workers,) = cluster["workerGroupSpecs"]
        assert workers["minReplicas"] >= 1
        (container,) = workers["template"]["spec"]["containers"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_both_kuberay_manifests_describe_the_same_cluster(deploy: Path) -> None:
    cluster, job = (ray_cluster(document(deploy / name)) for name in KUBERAY)
    assert cluster == job


def test_the_token_that_is_shipped_is_none(deploy: Path) -> None:
    """With an empty token Ray refuses to start; a word to be replaced would be a token that everybody knows."""
    assert document(deploy / "kuberay-token.yaml")["stringData"] == {"auth_token": ""}


def test_the_job_runs_a_search_with_flags_and_a_space_that_exist(deploy: Path) -> None:
    words = shlex.split(document(deploy / "kuberay-job.yaml")["spec"]["entrypoint"])
    assert words[:2] == ["tune-smp", "search"]
    shown = subprocess.run(
        [sys.executable, "-m", "tune_smp", "search", "--help"], capture_output=True, text=True, check=True
    ).stdout
    flags = [word for word in words if word.startswith("--")]
    assert [flag for flag in flags if not re.search(rf"{flag}\b", shown)] == []
    space = words[words.index("--searchSpace") + 1]
    assert (deploy.parent / "search_spaces" / f"{space}.yaml").is_file()
    assert words[words.index("--address") + 1] == "auto"


def test_paths_of_the_job_are_in_the_shared_folder(deploy: Path) -> None:
    words = shlex.split(document(deploy / "kuberay-job.yaml")["spec"]["entrypoint"])
    paths = [words[words.index(flag) + 1] for flag in ("--imagesDir", "--labelsDir", "--outputDir")]
    assert all(path.startswith("/shared/") for path in paths)


def test_nothing_offers_a_cluster_to_the_outside(deploy: Path) -> None:
    words = {word for path in deploy.glob("*.yaml") for value in documents(path) for word in strings(value)}
    assert not words & {"LoadBalancer", "NodePort", "Ingress", "hostPort", "hostNetwork", "privileged"}
