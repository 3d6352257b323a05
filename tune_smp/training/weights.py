"""Pretrained encoder weights: from the cache where they are, else from the Hugging Face hub, or a quick no."""

from __future__ import annotations

import pickle
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import segmentation_models_pytorch as smp
import timm
from huggingface_hub import constants
from safetensors import SafetensorError

from tune_smp.choices.encoders import RANDOM, Encoder
from tune_smp.errors import DataError, Problem, ResourceError, listing
from tune_smp.training import hub
from tune_smp.training.hub import HubFiles, Refusal

Built = TypeVar("Built")

CONFIG, SAFE, PICKLED = "config.json", "model.safetensors", "pytorch_model.bin"


@dataclass(frozen=True, slots=True)
class WeightSet:
    """The pretrained weights of one encoder that go by this word."""

    encoder: Encoder
    weights: str

    def __str__(self) -> str:
        return f"{self.encoder.family},{self.encoder.name},{self.weights}"

    def files(self) -> HubFiles:
        """Name the files that smp or timm will ask the hub's client for, without building a model.

        Raises ResourceError where there is nothing on the hub.
        """
        if not self.encoder.through_timm:
            settings = smp.encoders.encoders[self.encoder.smp_name]["pretrained_settings"][self.weights]
            return HubFiles(settings["repo_id"], settings["revision"], ((SAFE,), (CONFIG,)))
        known = timm.models.get_pretrained_cfg(self.encoder.smp_name.removeprefix("tu-"))
        if known is None or not known.hf_hub_id:
            raise ResourceError(_not_had([self], Refusal("timm knows no repository that has them")))
        repository, _, revision = known.hf_hub_id.partition("@")
        # timm prefers a safetensors file, and reads the other kind without executing anything.
        return HubFiles(repository, revision or None, ((SAFE, PICKLED),))

    def is_cached(self) -> bool:
        """Whether they load without a network."""
        return self.files().are_cached()


Announce = Callable[[WeightSet, int | None], object]


def fetch_weights(wanted: Sequence[WeightSet], announce: Announce = lambda *_: None) -> None:
    """Put these weights into the cache, where they are not there yet.

    ``announce`` is called with each set, and its bytes where the hub says so, before it is fetched. Raises
    ResourceError with all that could not be had: what could is in the cache then. A hub that does not answer is not
    asked again.
    """
    refused: dict[Refusal, list[WeightSet]] = {}
    hopeless: Refusal | None = None
    for one in dict.fromkeys(wanted):
        files = one.files()
        if files.are_cached():
            continue
        refusal = hopeless or hub.fetch(files, partial(announce, one))
        if refusal is not None:
            refused.setdefault(refusal, []).append(one)
            hopeless = refusal if refusal.for_all else None
    if refused:
        raise ResourceError(_not_had(sets, refusal) for refusal, sets in refused.items())


def with_weights(build: Callable[[], Built], encoder: Encoder, weights: str) -> Built:
    """Run ``build``, which loads these weights through smp or timm, with the network shut: they are fetched before.

    Raises ResourceError where they cannot be had; DataError where what is cached is damaged.
    """
    wanted = WeightSet(encoder, weights)
    fetch_weights([wanted])
    try:
        with hub.cache_only():
            return build()
    except PermissionError as error:
        raise ResourceError(_not_had([wanted], Refusal(str(error), of_the_cache=True))) from error
    except (SafetensorError, OSError, EOFError, pickle.UnpicklingError) as error:
        raise _damaged(wanted, error) from error
    except RuntimeError as error:
        # torch says so of a file of another network, and of a file that is none of its own.
        if not any(word in str(error) for word in ("state_dict", "PytorchStreamReader", "weights_only")):
            raise
        raise _damaged(wanted, error) from error


def _damaged(wanted: WeightSet, error: Exception) -> DataError:
    folder = Path(constants.HF_HUB_CACHE) / f"models--{wanted.files().repository.replace('/', '--')}"
    first_line = str(error).partition("\n")[0]
    problem = f"the cached weights {wanted.weights!r} of {wanted.encoder.name} are damaged: {first_line}"
    return DataError(Problem(problem, str(folder), "remove the folder, and they are fetched again"))


def _not_had(sets: Sequence[WeightSet], refusal: Refusal) -> Problem:
    if refusal.of_the_cache:
        fix = "free some space or open the folder to this user; or name another one by HF_HOME"
        return Problem(f"the cache of weights cannot be used: {refusal.reason}", constants.HF_HUB_CACHE, fix)
    words = [f'"{one}"' for one in sets]
    count = "the weights" if len(sets) == 1 else f"{len(sets)} sets of weights"
    first = sets[0].encoder
    return Problem(
        f"{count} {listing(words)} are in no cache ({constants.HF_HUB_CACHE}), and {hub.endpoint()} did not give "
        f"them: {refusal.reason}",
        "--encoderBaseVariantWeights",
        f"where there is a network: tune-smp fetch-weights {_as_typed(sets)}, then copy the cache and name its folder "
        f'by HF_HOME; or train from random weights: "{first.family},{first.name},{RANDOM}"',
    )


def _as_typed(sets: Sequence[WeightSet]) -> str:
    return shlex.join(map(str, sets)) if len(sets) <= 3 else "with the same words"
