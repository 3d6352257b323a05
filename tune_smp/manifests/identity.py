"""Who we are and what we need: the only words of the manifests that neither settings nor choices know."""

from __future__ import annotations

from tune_smp import __version__

ORGANIZATION = "tune-smp"
NAME = f"{ORGANIZATION}/train"
"""``organization/tool``, as WIPP and ICT registries name plugins."""

VERSION = __version__
TITLE = "Train a segmentation model"
DESCRIPTION = "Trains a segmentation-models-pytorch model on microscopy images and labels, and exports its best epoch"
AUTHOR = "tune-smp authors"  # ICT takes names of two words only
INSTITUTION = ""
REPOSITORY = "https://github.com/tune-smp/tune-smp"
WEBSITE = REPOSITORY
DOCUMENTATION = f"{REPOSITORY}/blob/main/docs/wipp.md"
CONTACT = f"{REPOSITORY}/issues"
CITATION = "P. Iakubovskii, Segmentation Models PyTorch, 2019, github.com/qubvel-org/segmentation_models.pytorch"

CONTAINER = f"tune-smp:{VERSION}"
"""The image as build-docker.sh names it; a registry's name goes before it."""

BASE_COMMAND = ("tune-smp", "train")

LEAST_MEMORY_MIB = 8192
"""Ray and a worker with torch: 3.5 GiB with a small encoder on a CPU, more with large ones."""

LEAST_CORES = 2

NEEDS_GPU = True
"""Kubernetes gives a GPU only to who asks for it, and a hundred epochs on a CPU are of no use to anybody."""
