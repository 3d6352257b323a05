"""Several models as one: the weighted mean of their probabilities, each with its own normalisation and tiles."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import reduce
from typing import Self

import numpy as np

from tune_smp.choices.views import View
from tune_smp.data.channel_statistics import ChannelStatistics, image_statistics
from tune_smp.data.preprocessing import Preprocessing
from tune_smp.inference.blending import Rows
from tune_smp.inference.cuts import Failed, OpenImage, check_channels, of_each
from tune_smp.inference.predictor import Predictor, Strip
from tune_smp.inference.sources import PixelSource, PlaneBands


class EnsemblePredictor:
    """Predictors whose mean counts; all of them are in memory at once.

    They read the same bands of an image, side by side, so that it is decoded as often as for one of them.
    """

    def __init__(self, members: Sequence[Predictor], weights: Sequence[float], preprocessing: Preprocessing) -> None:
        """``weights`` add up to 1; of ``preprocessing`` the classes, their thresholds and the channels count."""
        self.preprocessing = preprocessing
        self._members = tuple(members)
        self._weights = tuple(weights)

    def with_views(self, views: Sequence[View]) -> Self:
        """The same models with other views."""
        return type(self)([member.with_views(views) for member in self._members], self._weights, self.preprocessing)

    def predict(
        self, reader: PixelSource, *, statistics: ChannelStatistics | None = None
    ) -> Generator[Rows, None, None]:
        """Probabilities of every plane from top to bottom, in strips of rows; see ``Predictor.predict``."""
        check_channels(reader, self.preprocessing)
        needed = any(member.preprocessing.normalization.needs_statistics for member in self._members)
        for plane in range(reader.info.planes):
            bands = PlaneBands(reader, plane)
            # Once for all members: of a large image it is a pass over the file.
            known = image_statistics(bands) if needed and statistics is None else statistics
            with ExitStack() as opened:
                strips = [
                    opened.enter_context(closing(member.predict_plane(bands, reader.info, plane, known)))
                    for member in self._members
                ]
                yield from averaged(strips, self._weights)

    def predict_images(self, images: Iterable[OpenImage]) -> Generator[Strip | Failed, None, None]:
        """The strips of all images, each opened when the one before is done; see ``Predictor.predict_images``."""

        def strips(number: int, reader: PixelSource) -> Generator[Strip, None, None]:
            with closing(self.predict(reader)) as predicted:
                for rows in predicted:
                    yield Strip(number, reader.info, rows)

        return of_each(images, strips)


def averaged(streams: Sequence[Iterator[Rows]], weights: Sequence[float]) -> Iterator[Rows]:
    """The weighted mean of the strips of one plane, which each stream cuts in its own way; one of each is held."""
    heads = [_next(stream) for stream in streams]
    while None not in heads:
        strips = [head for head in heads if head is not None]
        height = min(strip.probabilities.shape[1] for strip in strips)
        shares = [weight * strip.probabilities[:, :height] for weight, strip in zip(weights, strips, strict=True)]
        yield replace(strips[0], probabilities=reduce(np.add, shares))
        heads = [_below(strip, height) or _next(stream) for strip, stream in zip(strips, streams, strict=True)]
    if any(head is not None for head in heads):
        raise ValueError("the strips are of planes of different heights")


def _next(stream: Iterator[Rows]) -> Rows | None:
    """The next strip that holds rows."""
    return next((strip for strip in stream if strip.probabilities.shape[1]), None)


def _below(strip: Rows, height: int) -> Rows | None:
    rest = strip.probabilities[:, height:]
    return replace(strip, y=strip.y + height, probabilities=rest) if rest.shape[1] else None
