"""Groups never straddle, the fraction is honoured, the order of files does not matter, what is written is read."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tune_smp.data.pairing.pairs import Collection, Pair
from tune_smp.data.split import Region, pair_keys, read_split, split_groups, split_regions, write_split
from tune_smp.errors import DataError, ResourceError, SettingsError

ODD_NAMES = (
    "a b,c.tif",
    'quote".tif',
    "line\nbreak.tif",
    "carriage\rreturn.tif",
    "[1].tif",
    "-rf.tif",
    "é;$(x)<script>.tif",
)
fractions = st.floats(0.01, 0.99)
file_names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12)


def collection_of(*names: str) -> Collection:
    return Collection(tuple(Pair(name, (Path("i") / name,), (Path("l") / name,), {"r": len(name)}) for name in names))


def training(regions: Sequence[Region]) -> set[int]:
    return {region.pair for region in regions if region.subset == "train"}


def regions_of(groups: Sequence[Hashable], fraction: float = 0.7, seed: int = 0) -> tuple[Region, ...]:
    names = [f"{index:04d}" for index in range(len(groups))]
    return split_regions([(8, 8)] * len(groups), groups, names=names, train_fraction=fraction, seed=seed)


@given(st.lists(st.integers(0, 6), min_size=2, max_size=40).filter(lambda groups: len(set(groups)) > 1), fractions)
@settings(max_examples=60, deadline=None)
def test_groups_never_straddle_and_every_pair_is_somewhere_whole(groups: list[int], fraction: float) -> None:
    regions = regions_of(groups, fraction)
    assert [region.pair for region in regions] == list(range(len(groups)))
    assert all((region.y0, region.y1, region.x0, region.x1) == (0, 8, 0, 8) for region in regions)
    train = training(regions)
    assert 0 < len(train) < len(groups)
    assert not {groups[index] for index in train} & {groups[index] for index in set(range(len(groups))) - train}


@given(st.lists(st.integers(0, 5), min_size=2, max_size=12).filter(lambda groups: len(set(groups)) > 1), fractions)
@settings(max_examples=60, deadline=None)
def test_no_other_choice_of_groups_comes_nearer_to_the_fraction(groups: list[int], fraction: float) -> None:
    sizes = [groups.count(group) for group in sorted(set(groups))]
    possible = (sum(chosen) for count in range(1, len(sizes)) for chosen in itertools.combinations(sizes, count))
    best = min(abs(size - fraction * len(groups)) for size in possible)
    assert abs(len(training(regions_of(groups, fraction))) - fraction * len(groups)) == pytest.approx(best)


@given(st.permutations(range(12)), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_the_order_of_the_pairs_does_not_matter(order: list[int], seed: int) -> None:
    names = [f"image{index}" for index in range(12)]
    groups = [index // 2 for index in range(12)]
    straight = split_regions([(4, 4)] * 12, groups, names=names, train_fraction=0.6, seed=seed)
    shuffled = split_regions(
        [(4, 4)] * 12,
        [groups[i] for i in order],
        names=[names[i] for i in order],
        train_fraction=0.6,
        seed=seed,
    )
    assert {names[i] for i in training(straight)} == {names[order[i]] for i in training(shuffled)}


def test_another_seed_draws_others_and_every_pair_gets_its_turn() -> None:
    draws = [training(regions_of(range(10), 0.5, seed)) for seed in range(20)]
    assert draws[3] == training(regions_of(range(10), 0.5, 3))
    assert len({frozenset(draw) for draw in draws}) > 10
    assert set.union(*draws) == set(range(10))
    assert set.intersection(*draws) == set()


def test_without_groups_every_pair_goes_its_own_way() -> None:
    regions = split_regions([(8, 8)] * 10, names=list("abcdefghij"), train_fraction=0.7, seed=1)
    assert len(training(regions)) == 7


@given(st.integers(1, 300), st.integers(1, 300), fractions)
@settings(max_examples=60, deadline=None)
def test_a_single_image_is_cut_along_its_longer_axis(height: int, width: int, fraction: float) -> None:
    if max(height, width) == 1:
        with pytest.raises(DataError, match="one pixel"):
            split_regions([(1, 1)], names=["a"], train_fraction=fraction, seed=0)
        return
    regions = split_regions([(height, width)], names=["a"], train_fraction=fraction, seed=0)
    covered = np.zeros((height, width), int)
    for region in regions:
        covered[region.y0 : region.y1, region.x0 : region.x1] += 1
    assert (covered == 1).all()
    assert [region.subset for region in regions] == ["train", "validation"]
    first = regions[0]
    assert (first.x1 if width > height else first.y1) == pytest.approx(max(height, width) * fraction, abs=1)


def test_planes_of_one_stack_are_cut_at_the_same_place() -> None:
    regions = split_regions([(100, 40)] * 3, ["stack"] * 3, names=["s[0]", "s[1]", "s[2]"], train_fraction=0.75, seed=0)
    assert {region.y1 for region in regions if region.subset == "train"} == {75}
    assert [region.pair for region in regions] == [0, 0, 1, 1, 2, 2]


def test_pairs_that_share_a_file_stay_together() -> None:
    stack, label, other = Path("stack.tif"), Path("label.tif"), Path("other.tif")
    pairs = (
        Pair("stack.tif[0]", (stack,), (label,)),
        Pair("stack.tif[1]", (stack,), (label,), plane=1),
        Pair("same_label.tif", (Path("b.tif"),), (label,)),
        Pair("other.tif", (other,), (other,)),
    )
    groups = split_groups(Collection(pairs))
    assert groups[0] == groups[1] == groups[2] != groups[3]


def test_group_by_a_variable() -> None:
    collection = collection_of("aa", "bb", "ccc")
    assert split_groups(collection, "r") == (2, 2, 3)
    with pytest.raises(SettingsError, match=r"variables: r"):
        split_groups(collection, "plate")
    with pytest.raises(DataError, match="all 2 images have r=2"):
        split_groups(collection_of("aa", "bb"), "r")


@given(st.lists(file_names, min_size=2, max_size=8, unique=True))
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    path = tmp_path_factory.mktemp("split") / "split.csv"
    collection = collection_of(*names)
    regions = split_regions([(9, 7)] * len(names), names=names, train_fraction=0.5, seed=0)
    write_split(path, regions, collection, split_groups(collection))
    assert read_split(path, pair_keys(collection)) == regions


def test_odd_names_channels_classes_and_planes_survive(tmp_path: Path) -> None:
    pairs = (
        *collection_of(*ODD_NAMES).pairs,
        Pair("a.tif", (Path("a, 1.tif"), Path('a"2.tif')), (Path("x.tif"), Path("y.tif"))),
        Pair("s[1]", (Path("s.tif"),), (Path("s.tif"),), plane=1),
        Pair("s[0]", (Path("s.tif"),), (Path("s.tif"),)),
    )
    collection = Collection(pairs)
    regions = split_regions([(9, 7)] * len(pairs), names=[pair.name for pair in pairs], train_fraction=0.5, seed=3)
    write_split(tmp_path / "split.csv", regions, collection)
    assert read_split(tmp_path / "split.csv", pair_keys(collection)) == regions
    with (tmp_path / "split.csv").open(newline="") as file:
        header = next(csv.reader(file))
    assert header == ["image", "label", "subset", "group", "y0", "y1", "x0", "x1", "plane"]
    assert [path.name for path in tmp_path.iterdir()] == ["split.csv"]


def test_a_split_survives_a_move_and_another_order(tmp_path: Path) -> None:
    names = ["a.tif", "b.tif", "c.tif", "d.tif"]
    collection = collection_of(*names)
    regions = split_regions([(9, 7)] * 4, names=names, train_fraction=0.5, seed=3)
    write_split(tmp_path / "split.csv", regions, collection)
    moved = Collection(
        tuple(Pair(name, (Path("/elsewhere") / name,), (Path("/labels") / name,)) for name in reversed(names))
    )
    again = read_split(tmp_path / "split.csv", pair_keys(moved))
    assert {names[i] for i in training(regions)} == {moved.pairs[i].name for i in training(again)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lacks 2 of 2"),
        ("image,label\na.tif,a.tif\n", "does not fit"),
        ("image,label,subset,group,y0,y1,x0,x1,plane\na.tif,a.tif,train,,0,9,0,7,0\n", "lacks 1 of 2"),
        ("image,label,subset,group,y0,y1,x0,x1,plane\na.tif,a.tif,test,,0,9,0,7,0\n", "neither train nor validation"),
        ("image,label,subset,group,y0,y1,x0,x1,plane\nz.tif,a.tif,train,,0,9,0,7,0\n", "not in the collection"),
        ("image,label,subset,group,y0,y1,x0,x1,plane\na.tif,a.tif,train,,x,9,0,7,0\n", "does not fit"),
    ],
)
def test_a_split_of_something_else_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "split.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_split(tmp_path / "split.csv", pair_keys(collection_of("a.tif", "b.tif")))


def test_a_missing_file_and_a_missing_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.csv"):
        read_split(tmp_path / "nowhere.csv", pair_keys(collection_of("a.tif")))
    with pytest.raises(ResourceError, match=r"split\.csv"):
        write_split(tmp_path / "nowhere" / "split.csv", [], collection_of("a.tif"))
