"""Label values: every pixel is encoded right and decoded back to its own value; odd labels are told or refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from tune_smp.data.label_values import DISTINCT_LIMIT, ValueCounter, label_values
from tune_smp.data.labels import IGNORE, ClassMap, Mode, learn_class_map
from tune_smp.errors import DataError

INTEGERS = ("uint8", "int8", "uint16", "int16", "int32", "uint32", "float32")


def label_of(*values: float, dtype: str = "uint8") -> NDArray[Any]:
    return np.array(values, dtype).reshape(1, 1, -1)


def learned(mode: Mode, *labels: NDArray[Any], ignore_value: int | None = None) -> ClassMap:
    summaries = [label_values(f"{index}.tif", [label]) for index, label in enumerate(labels)]
    return learn_class_map(mode, summaries, ignore_value=ignore_value)


@given(
    hnp.arrays(st.sampled_from(INTEGERS), (1, 5, 7), elements=st.integers(0, 20)),
    st.none() | st.integers(0, 20),
)
@settings(max_examples=60, deadline=None)
def test_multiclass_encodes_to_ranks_and_decodes_back(label: NDArray[Any], ignore_value: int | None) -> None:
    values = sorted(set(label.ravel().tolist()) - {ignore_value})
    if len(values) < 2:
        with pytest.raises(DataError, match="at least two classes"):
            learned("multiclass", label, ignore_value=ignore_value)
        return
    class_map = learned("multiclass", label, ignore_value=ignore_value)
    mask = class_map.encode(label)
    assert mask.dtype == np.uint8
    assert class_map.classes == len(values)
    for pixel, number in zip(label.ravel().tolist(), mask.ravel().tolist(), strict=True):
        assert number == (IGNORE if pixel == ignore_value else values.index(pixel))
    kept = mask != IGNORE
    assert (class_map.decode(np.where(kept, mask, np.uint8(0)))[kept] == label[kept]).all()


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "float32"])
def test_negative_values_are_classes_too(dtype: str) -> None:
    label = label_of(-3, -1, 0, 7, dtype=dtype)
    class_map = learned("multiclass", label)
    assert class_map.values == (-3, -1, 0, 7)
    assert class_map.encode(label).ravel().tolist() == [0, 1, 2, 3]
    assert class_map.decode(class_map.encode(label)).tolist() == label.tolist()


def test_large_values_far_apart_are_classes() -> None:
    label = label_of(0, 70_000, 2_000_000_000, dtype="int32")
    class_map = learned("multiclass", label)
    assert class_map.encode(label).ravel().tolist() == [0, 1, 2]
    assert class_map.decode(class_map.encode(label)).tolist() == label.tolist()


def test_predictions_take_the_smallest_type_that_can_be_written() -> None:
    label = label_of(-1, 70_000, dtype="int32")
    class_map = learned("multiclass", label)
    decoded = class_map.decode(class_map.encode(label))
    assert decoded.tolist() == label.tolist()
    assert decoded.dtype == np.int32, "int64 cannot be written to OME-TIFF"


@pytest.mark.parametrize("dtype", INTEGERS)
def test_a_value_of_no_class_is_an_error_not_a_class(dtype: str) -> None:
    class_map = learned("multiclass", label_of(1, 3, 5, dtype=dtype))
    for value in (0, 2, 4, 6):
        with pytest.raises(ValueError, match=f"the value {value}"):
            class_map.encode(label_of(1, value, dtype=dtype))


def test_classes_are_learned_from_all_labels_together() -> None:
    class_map = learned("multiclass", label_of(0, 4), label_of(0, 9), label_of(2, 9, dtype="float32"))
    assert class_map.values == (0, 2, 4, 9)
    assert class_map.names == ("0", "2", "4", "9")
    assert all(isinstance(value, int) for value in class_map.values)


def test_encoding_in_pieces_is_encoding_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    label = np.random.default_rng(0).integers(0, 5, (1, 37, 23)).astype(np.uint8)
    class_map = learned("multiclass", label)
    whole = class_map.encode(label)
    monkeypatch.setattr("tune_smp.data.labels.PIECE", 100)
    assert (class_map.encode(label) == whole).all()
    assert distinct_values(label).tolist() == [0, 1, 2, 3, 4]
    assert distinct_values(label.astype(np.int32)).tolist() == [0, 1, 2, 3, 4]


def test_labels_without_a_background_are_refused() -> None:
    with pytest.raises(DataError, match=r"no label has a background.*smallest value is 1\n.*0\.tif\n.*multiclass"):
        learned("binary", label_of(1, 2))
    assert any("no label holds 0" in note for note in learned("multiclass", label_of(1, 2)).notes)


@pytest.mark.parametrize(
    ("label", "foreground", "told"),
    [
        (label_of(0, 1), 1, ()),
        (label_of(0, 255), 255, ("the foreground has the value 255",)),
        (label_of(0, 1, 2, 3, dtype="uint16"), 1, ("4 distinct values (instance numbers?)",)),
        (label_of(0, 0.5, dtype="float32"), 0.5, ("the foreground has the value 0.5",)),
        (label_of(0, 0.25, 0.5, dtype="float32"), 1, ("3 distinct values (a probability map?)",)),
        (label_of(-1, 0, 1, dtype="int8"), 1, ("negative values, down to -1: they count as background",)),
        (label_of(0, 0), 1, ()),
    ],
)
def test_binary_takes_everything_above_zero_and_says_so(
    label: NDArray[Any], foreground: float, told: tuple[str, ...]
) -> None:
    class_map = learned("binary", label)
    assert class_map.classes == 1
    assert class_map.values == (0, foreground)
    assert (class_map.encode(label) == (label > 0)).all()
    assert class_map.decode(np.array([[[0, 1]]], np.uint8)).ravel().tolist() == [0, foreground]
    assert len(class_map.notes) == len(told)
    assert all(part in note for part, note in zip(told, class_map.notes, strict=True))


def test_decoded_labels_are_as_small_as_their_values_allow() -> None:
    assert learned("binary", label_of(0, 255)).decode(np.ones((1, 2, 2), np.uint8)).dtype == np.uint8
    assert learned("binary", label_of(0, 0.5, dtype="float32")).decode(np.ones((1, 2, 2), np.uint8)).dtype == np.float32
    assert (
        learned("multiclass", label_of(0, 300, dtype="int32")).decode(np.ones((1, 2, 2), np.uint8)).dtype == np.uint16
    )


def test_ignored_pixels_are_ignored_in_every_mode() -> None:
    assert learned("binary", label_of(0, 1, 9), ignore_value=9).encode(label_of(0, 1, 9)).tolist() == [[[0, 1, IGNORE]]]
    two = np.concatenate([label_of(0, 1, 9), label_of(9, 0, 1)])
    assert learned("multilabel", two, ignore_value=9).encode(two).tolist() == [[[0, 1, IGNORE]], [[IGNORE, 0, 1]]]
    (note,) = learned("binary", label_of(0, 1), ignore_value=9).notes
    assert note == "--ignoreValue 9 occurs in no label"


def test_multilabel_has_a_mask_per_channel() -> None:
    label = np.stack([np.eye(3), np.ones((3, 3))]).astype(np.uint8) * 255
    class_map = learned("multilabel", label)
    assert (class_map.classes, class_map.values, class_map.names) == (2, (255, 255), ("0", "1"))
    mask = class_map.encode(label)
    assert mask.shape == (2, 3, 3)
    assert (class_map.decode(mask) == label).all()


def test_classes_are_named_by_the_values_of_the_class_variable() -> None:
    summaries = [label_values("a", [np.zeros((2, 1, 1), np.uint8)])]
    assert learn_class_map("multilabel", summaries, class_names=("nucleus", "edge")).names == ("nucleus", "edge")
    assert learn_class_map("multilabel", summaries, class_names=("nucleus",)).names == ("0", "1")


@pytest.mark.parametrize(
    ("mode", "labels", "message"),
    [
        ("multiclass", [label_of(0, 0.5, dtype="float32")], r"whole numbers, 1 hold 0\.5"),
        ("multiclass", [np.arange(256, dtype=np.uint16).reshape(1, 16, 16)], r"256 distinct .*at most 255 classes"),
        ("multiclass", [np.arange(5000, dtype=np.int32).reshape(1, 50, 100)], "--segmentationMode binary"),
        ("multiclass", [label_of(4, 4)], "only the value 4"),
        ("multiclass", [np.zeros((3, 2, 2), np.uint8)], "multiclass labels need one channel, 1 have 3"),
        ("binary", [np.zeros((3, 2, 2), np.uint8)], "binary labels need one channel, 1 have 3"),
        ("binary", [label_of(0, np.nan, dtype="float32")], r"NaN.*\n.*0\.tif"),
        ("binary", [label_of(0, np.inf, dtype="float32")], "infinite"),
        ("multilabel", [np.zeros((2, 2, 2), np.uint8), np.zeros((3, 2, 2), np.uint8)], r"2: 0\.tif; 3: 1\.tif"),
    ],
)
def test_labels_that_do_not_fit_the_mode_are_refused_by_name(
    mode: Mode, labels: list[NDArray[Any]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        learned(mode, *labels)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(DataError) as caught:
        learned("multiclass", np.zeros((3, 2, 2), np.uint8), label_of(0, np.nan, dtype="float32"))
    assert len(caught.value.problems) == 3


def test_255_classes_fit() -> None:
    label = np.arange(255, dtype=np.uint8).reshape(1, 15, 17)
    class_map = learned("multiclass", label)
    assert class_map.encode(label).max() == 254


def distinct_values(label: NDArray[Any], limit: int = DISTINCT_LIMIT) -> NDArray[Any]:
    counter = ValueCounter(limit)
    counter.add(label)
    return counter.result()[0].astype(label.dtype)


@given(hnp.arrays(st.sampled_from(INTEGERS), (1, 9, 4), elements=st.integers(0, 100)))
@settings(max_examples=60, deadline=None)
def test_distinct_values_are_numpys(label: NDArray[Any]) -> None:
    found = distinct_values(label)
    assert found.dtype == label.dtype
    assert found.tolist() == np.unique(label).tolist()
    bounded = distinct_values(label, limit=3)
    assert len(bounded) == min(4, len(found))
    assert (bounded[0], bounded[-1]) == (found[0], found[-1])


def test_instance_numbers_without_end_stay_bounded() -> None:
    rng = np.random.default_rng(0)
    chunks = [rng.integers(1, 10**9, (1, 100, 1000)).astype(np.int32) for _ in range(3)]
    chunks[1][0, 0, 0] = -7
    summary = label_values("a", chunks)
    assert summary.truncated
    assert len(summary.values) == DISTINCT_LIMIT + 1
    assert (summary.values[0], summary.values[-1]) == (-7, max(chunk.max() for chunk in chunks))
    (more, negative) = learn_class_map("binary", [summary]).notes
    assert "more than" in more
    assert "down to -7" in negative


@given(st.sampled_from(["binary", "multiclass", "multilabel"]), st.none() | st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_json_and_back(mode: Mode, ignore_value: int | None) -> None:
    class_map = ClassMap(mode, (0, 2.5, 7), ignore_value, ("a", "b", "c"), ("not kept",))
    assert ClassMap.from_json(json.loads(json.dumps(class_map.to_json()))) == class_map


def test_another_number_of_channels_is_an_error() -> None:
    with pytest.raises(ValueError, match="needs 1 channels, this has 2"):
        learned("binary", label_of(0, 1)).encode(np.zeros((2, 3, 3), np.uint8))
