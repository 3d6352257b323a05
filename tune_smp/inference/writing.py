"""Writing predictions beside predicting: label values or probabilities, file by file, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tune_smp.data.preprocessing import Preprocessing
from tune_smp.data.reading.image_reader import ImageInfo
from tune_smp.data.reading.images import LabelWriter
from tune_smp.inference.blending import Rows
from tune_smp.inference.outputs import Output, to_labels


class PredictionWriter:
    """Writes images in a thread of its own while the caller predicts the next strip, or the next image.

    One strip waits at most. What writing raises is raised to the caller at the next strip or image, or at the end of
    the context, and comes before what the caller meets then: it happened before.
    """

    def __init__(self, preprocessing: Preprocessing, output: Output) -> None:
        self._preprocessing = preprocessing
        self._output = output
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="write")
        self._last: Future[Any] = Future()
        self._last.set_result(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()
        if kind is None:
            self._last.result()

    def write(
        self, rows: Iterable[Rows], path: Path, *, info: ImageInfo, on_written: Callable[[], object] = lambda: None
    ) -> None:
        """Write all rows of one image, of every plane, as labels or as probabilities with a channel per class.

        Returns when the last strip is on its way; ``on_written`` is called, in the thread, when the file is there.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = ExitStack()
        writer = self._writer(path, info)
        try:
            self._last = self._thread.submit(_begin, opened, writer, self._last)
            for strip in rows:
                self._last.result()
                self._last = self._thread.submit(self._write, writer, strip)
        except BaseException as error:
            self._abandon(opened, error)
            raise
        self._last = self._thread.submit(_finish, opened, self._last, on_written)

    def _abandon(self, opened: ExitStack, error: BaseException) -> None:
        """Let the thread remove what is half written. Raises what writing raised, if it did."""
        last, self._last = self._last, Future()
        self._last.set_result(None)
        with suppress(type(error)):
            self._thread.submit(_close, opened, error).result()
        last.result()

    def _writer(self, path: Path, info: ImageInfo) -> LabelWriter:
        is_labels, class_map = self._output == "labels", self._preprocessing.class_map
        labels = class_map.decode(np.zeros((class_map.classes, 1, 1), np.uint8))
        channels = 1 if is_labels and class_map.mode == "multiclass" else class_map.classes
        return LabelWriter(
            path,
            shape=(info.planes, channels, info.height, info.width),
            dtype=labels.dtype if is_labels else np.dtype(np.float32),
            times=info.times,
            calibration=info.calibration,
        )

    def _write(self, writer: LabelWriter, strip: Rows) -> None:
        writer.write(self._pixels(strip), plane=strip.plane, y=strip.y)

    def _pixels(self, strip: Rows) -> NDArray[Any]:
        is_labels = self._output == "labels"
        return to_labels(strip.probabilities, self._preprocessing) if is_labels else strip.probabilities


def _begin(opened: ExitStack, writer: LabelWriter, image_before: Future[Any]) -> None:
    image_before.result()
    opened.enter_context(writer)


def _finish(opened: ExitStack, last: Future[Any], on_written: Callable[[], object]) -> None:
    """Close the file, which gets its name then; where its last strip could not be written, remove it."""
    with opened:
        last.result()
    on_written()


def _close(opened: ExitStack, error: BaseException) -> None:
    with opened:
        raise error
