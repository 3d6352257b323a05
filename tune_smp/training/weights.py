"""Pretrained encoder weights: from the cache where they are, else from the Hugging Face hub, or a quick no."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import huggingface_hub
import segmentation_models_pytorch as smp
import timm
from huggingface_hub import constants
from safetensors import SafetensorError

from tune_smp.choices.encoders import Encoder
from tune_smp.errors import DataError, Problem, ResourceError

Built = TypeVar("Built")

PROBE_SECONDS = 5.0


def fetch_weights(encoder: Encoder, weights: str) -> None:
    """Put these weights into the cache, if they are not there. Raises ResourceError within seconds where it cannot."""

    def load() -> object:
        if encoder.through_timm:
            return timm.create_model(encoder.smp_name.removeprefix("tu-"), pretrained=True)
        return smp.encoders.get_encoder(encoder.smp_name, weights=weights)

    with_weights(load, encoder, weights)


def with_weights(build: Callable[[], Built], encoder: Encoder, weights: str) -> Built:
    """Run ``build``, which loads these weights through smp or timm.

    First without any network: what is cached needs none, and the hub's client would retry for 25 to 49 s before it said
    that there is none. Only then from the hub, if it answers. Raises ResourceError; DataError where what is cached is
    damaged.
    """
    try:
        with _cache_only():
            return build()
    except SafetensorError as error:
        fix = "remove the folder of these weights from the cache, and they are fetched again"
        problem = f"the cached weights {weights!r} of {encoder.name} are damaged: {error}"
        raise DataError(Problem(problem, constants.HF_HUB_CACHE, fix)) from error
    except OSError as error:  # of the client: LocalEntryNotFoundError, OfflineModeIsEnabled
        not_cached = error
    silence = _why_the_hub_is_silent()
    if silence:
        raise _unreachable(encoder, weights, silence) from not_cached
    try:
        return build()
    except Exception as error:  # timm, safetensors, and the client's network library raise their own kinds
        raise _unreachable(encoder, weights, f"{type(error).__name__}: {error}") from error


@contextlib.contextmanager
def _cache_only() -> Iterator[None]:
    # The environment variable HF_HUB_OFFLINE is read once, at import; the client asks this constant at every call.
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _why_the_hub_is_silent() -> str | None:
    """None where the hub answers one request, else what went wrong. Goes through proxies as the client does."""
    try:
        response = huggingface_hub.get_session().head(constants.ENDPOINT, timeout=PROBE_SECONDS)
    except Exception as error:  # noqa: BLE001 - whichever network library the client is built on
        return str(error) or type(error).__name__
    return f"it answers {response.status_code}" if response.status_code >= 500 else None


def _unreachable(encoder: Encoder, weights: str, reason: str) -> ResourceError:
    choice = f"{encoder.family},{encoder.name}"
    return ResourceError(
        Problem(
            f"the weights {weights!r} of {encoder.name} are in no cache ({constants.HF_HUB_CACHE}), and "
            f"{constants.ENDPOINT} did not give them: {reason}",
            f'--encoderBaseVariantWeights "{choice},{weights}"',
            f'where there is a network: tune-smp fetch-weights "{choice},{weights}", then copy the cache and name its '
            f'folder by HF_HOME; or train from random weights: "{choice},random"',
        )
    )
