"""Pairing without any file: stacks are complete or said to be broken, planes pair with planes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tune_smp.data.pairing.pairs import FoundFile, Pair, expand_planes, pair_by_names, stack
from tune_smp.errors import DataError

keys = st.tuples(st.integers(0, 3), st.sampled_from(["a", "b", 1, 2]))


@given(st.lists(keys, max_size=14))
@settings(max_examples=60, deadline=None)
def test_every_file_of_a_stack_is_accounted_for_once(found: list[tuple[int, int | str]]) -> None:
    files = [FoundFile(Path(f"{number}"), {"r": r, "c": c}) for number, (r, c) in enumerate(found)]
    stacks = stack(files, ["r"], "c")
    values = set(dict.fromkeys(c for _, c in found))
    assert set(stacks.inner_values) == values
    by_row = {r: Counter(c for row, c in found if row == r) for r, _ in found}
    for r, counts in by_row.items():
        if max(counts.values()) > 1:
            assert (r,) in stacks.doubled
        elif set(counts) != values:
            assert (r,) in stacks.incomplete
        else:
            assert [file.variables["c"] for file in stacks.complete[(r,)]] == list(stacks.inner_values)
    assert len(stacks.complete) + len(stacks.doubled) + len(stacks.incomplete) == len(by_row)


def test_numbers_come_before_texts_and_ten_after_nine() -> None:
    files = [FoundFile(Path(str(c)), {"c": c}) for c in ("b", 10, "a", 9, 1.5)]
    assert stack(files, [], "c").inner_values == (1.5, 9, 10, "a", "b")


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from([".tif", ".ome.tif", ".png"])), unique=True))
@settings(max_examples=60, deadline=None)
def test_names_pair_equal_stems_and_report_the_rest(parts: list[tuple[str, str]]) -> None:
    images = [FoundFile(Path("i") / (stem + suffix)) for stem, suffix in parts]
    labels = [FoundFile(Path("l") / f"{stem}.png") for stem in "abc"]
    collection, findings = pair_by_names(images, labels)
    for pair in collection.pairs:
        assert pair.images[0].name.split(".")[0] == pair.labels[0].name.split(".")[0]
    for stem in "abc":
        suffixes = [suffix for s, suffix in parts if s == stem]
        paired = [pair for pair in collection.pairs if pair.images[0].name.startswith(stem)]
        assert len(paired) == (".png" in suffixes or len(suffixes) == 1)
    assert bool(findings) == (len(collection.pairs) != len(images) or len(collection.pairs) != len(labels))


class TestPlanes:
    STACK, FLAT, LABEL = Path("stack.tif"), Path("flat.tif"), Path("label.tif")

    def test_a_pair_per_plane(self) -> None:
        pairs = (
            Pair("stack.tif", (self.STACK,), (self.LABEL,), {"i": 1}),
            Pair("flat.tif", (self.FLAT,), (self.FLAT,)),
        )
        planes = {self.STACK: 3, self.LABEL: 3, self.FLAT: 1}
        expanded = expand_planes(pairs, planes)
        assert [pair.name for pair in expanded] == ["stack.tif[0]", "stack.tif[1]", "stack.tif[2]", "flat.tif"]
        assert [pair.plane for pair in expanded] == [0, 1, 2, 0]
        assert expanded[2].variables == {"i": 1}

    def test_one_plane_serves_all(self) -> None:
        pair = Pair("stack.tif", (self.STACK, self.FLAT), (self.LABEL,))
        assert len(expand_planes([pair], {self.STACK: 5, self.FLAT: 1, self.LABEL: 1})) == 5

    def test_unequal_stacks_are_named_all_at_once(self) -> None:
        pair = Pair("stack.tif", (self.STACK,), (self.LABEL,))
        with pytest.raises(DataError, match=r"stack\.tif: 5, label\.tif: 4") as caught:
            expand_planes([pair, pair], {self.STACK: 5, self.LABEL: 4})
        assert len(caught.value.problems) == 2
