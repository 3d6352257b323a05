"""OME-TIFF in every layout: what is read, and what the store holds, is what was written, plane by plane."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tune_smp.data.pairing.collection import find_pairs
from tune_smp.data.reading.formats import open_image
from tune_smp.data.reading.images import OmeReader
from tune_smp.data.reading.tiff import TiffReader
from tune_smp.data.store.build import StoreRequest, build_store
from tune_smp.data.store.image_store import ImageStore
from tune_smp.errors import DataError

NAMESPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
HEIGHT, WIDTH = 32, 48
Place = tuple[int, int, int]  # z, c, t


@dataclass(frozen=True)
class Layout:
    """How the planes of one image lie in its files."""

    order: str = "XYZCT"
    sizes: Place = (1, 1, 1)  # Z, C, T
    tile: int = 0  # px, 0: strips
    apart: str = ""  # the axis whose every value is in a file of its own
    seed: int = 0  # of the order of the pages, 0: that of the planes
    sub_ifds: bool = False
    runs: bool = False  # one TiffData per run of pages, else one per plane
    fate: str = "present"  # of the files, after they are written: present, renamed, alone


layouts = st.builds(
    Layout,
    order=st.permutations("ZCT").map(lambda axes: "XY" + "".join(axes)),
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)),
    tile=st.sampled_from([0, 16, 1024]),
    apart=st.sampled_from(["", "Z", "C", "T"]),
    seed=st.integers(0, 9),
    sub_ifds=st.booleans(),
    runs=st.booleans(),
    fate=st.sampled_from(["present", "renamed", "alone"]),
)


def plane(place: Place) -> NDArray[np.uint8]:
    """Pixels that no other plane has."""
    return np.random.default_rng([1, *place]).integers(0, 250, (HEIGHT, WIDTH), dtype=np.uint8)


def places(layout: Layout) -> list[Place]:
    """Every plane, in the dimension order."""
    slowest_first = layout.order[:1:-1]
    ranges = [range(layout.sizes["ZCT".index(axis)]) for axis in slowest_first]
    found = (dict(zip(slowest_first, at, strict=True)) for at in itertools.product(*ranges))
    return [(at["Z"], at["C"], at["T"]) for at in found]


def files_of(layout: Layout) -> list[list[Place]]:
    """The planes of each file, in the order of its pages."""
    every = places(layout)
    if layout.apart:
        axis = "ZCT".index(layout.apart)
        files = [[place for place in every if place[axis] == value] for value in range(layout.sizes[axis])]
    else:
        files = [every]
    if layout.seed:
        generator = np.random.default_rng(layout.seed)
        files = [[planes[number] for number in generator.permutation(len(planes))] for planes in files]
    return files


def tiff_data(layout: Layout, pages: Sequence[Place], file: str) -> list[str]:
    """A TiffData element per plane, or per run of pages that follow each other in the dimension order."""
    every = places(layout)
    runs: list[list[int]] = []  # [first page, number of pages]
    for page, place in enumerate(pages):
        if layout.runs and page and every.index(place) == every.index(pages[page - 1]) + 1:
            runs[-1][1] += 1
        else:
            runs.append([page, 1])
    return [
        f'<TiffData FirstZ="{pages[page][0]}" FirstC="{pages[page][1]}" FirstT="{pages[page][2]}" IFD="{page}" '
        f'PlaneCount="{count}">{file}</TiffData>'
        for page, count in runs
    ]


def write(folder: Path, layout: Layout) -> list[tuple[Path, list[Place]]]:
    """The files of one image, and which planes lie in each."""
    folder.mkdir()
    files = files_of(layout)
    ids = [f"urn:uuid:{uuid.UUID(int=number + 1)}" for number in range(len(files))]
    named = [f'<UUID FileName="s{i}.ome.tif">{ids[i]}</UUID>' if layout.apart else "" for i in range(len(files))]
    elements = "".join(
        element for pages, name in zip(files, named, strict=True) for element in tiff_data(layout, pages, name)
    )
    depth, channels, times = layout.sizes
    channel = "".join(f'<Channel ID="Channel:0:{c}" SamplesPerPixel="1"/>' for c in range(channels))
    written = []
    for number, pages in enumerate(files):
        text = (
            f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{NAMESPACE}" UUID="{ids[number]}"><Image ID="Image:0">'
            f'<Pixels ID="Pixels:0" DimensionOrder="{layout.order}" Type="uint8" SizeX="{WIDTH}" SizeY="{HEIGHT}" '
            f'SizeZ="{depth}" SizeC="{channels}" SizeT="{times}">{channel}{elements}</Pixels></Image></OME>'
        )
        path = folder / f"s{number}.ome.tif"
        options: dict[str, Any] = {"metadata": None, "photometric": "minisblack"}
        if layout.tile:
            options["tile"] = (layout.tile, layout.tile)
        with tifffile.TiffWriter(path) as writer:
            for page, place in enumerate(pages):
                extra = {"description": text} if page == 0 else {}
                writer.write(plane(place), subifds=int(layout.sub_ifds), **options, **extra)
                if layout.sub_ifds:
                    writer.write(plane(place)[::2, ::2], subfiletype=1, **options)
        written.append((path, pages))
    return written


def after(written: list[tuple[Path, list[Place]]], fate: str) -> list[tuple[Path, list[Place]]]:
    """What became of the files."""
    if fate == "renamed":
        return [(path.rename(path.with_name(f"day2_{path.name}")), pages) for path, pages in written]
    if fate == "alone":
        for path, _ in written[1:]:
            path.unlink()
        return written[:1]
    return written


def expected(pages: Sequence[Place]) -> list[NDArray[np.uint8]]:
    """The planes (C, H, W) that a file of these pages holds: T slowest, then Z."""
    channels = sorted({c for _, c, _ in pages})
    at = sorted({(t, z) for z, _, t in pages})
    return [np.stack([plane((z, c, t)) for c in channels]) for t, z in at]


@settings(max_examples=60, deadline=None)
@given(layouts)
@example(Layout(sizes=(1, 2, 1), tile=1024, seed=1))
@example(Layout(sizes=(1, 1, 1), tile=1024))
@example(Layout(sizes=(1, 1, 1), tile=1024, sub_ifds=True))
@example(Layout(sizes=(3, 2, 2), order="XYTZC", apart="Z", fate="alone", seed=3))
def test_a_file_is_read_as_the_planes_that_lie_in_it(layout: Layout) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        for path, pages in after(write(folder / "set", layout), layout.fate):
            planes = expected(pages)
            with open_image(path) as reader:
                by_bfio = layout.tile == 1024 and layout.sizes == (1, 1, 1)
                assert isinstance(reader, OmeReader if by_bfio and layout.order == "XYZCT" else TiffReader)
                assert reader.info.planes == len(planes)
                assert reader.info.times == len({t for _, _, t in pages})
                for number, pixels in enumerate(planes):
                    assert np.array_equal(reader.read(number), pixels)
                    assert np.array_equal(reader.read(number, slice(3, 20), slice(5, 9)), pixels[:, 3:20, 5:9])
    finally:
        shutil.rmtree(folder)


@settings(max_examples=8, deadline=None)
@given(layouts)
@example(Layout(sizes=(3, 2, 2), order="XYTCZ", apart="Z", fate="renamed", seed=2))
def test_the_store_holds_each_plane_with_its_label(layout: Layout) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        written = after(write(folder / "images", layout), layout.fate)
        planes = {path.name: expected(pages) for path, pages in written}
        (folder / "labels").mkdir()
        for name, images in planes.items():
            labels = np.stack([image[0] > 100 for image in images]).astype(np.uint8)
            tifffile.imwrite(folder / "labels" / name.replace(".ome", ""), labels, photometric="minisblack")
        prefix = "day2_" if layout.fate == "renamed" else ""
        collection = find_pairs(
            folder / "images",
            folder / "labels",
            images_pattern=f"{prefix}s{{i:d+}}.ome.tif",
            labels_pattern=f"{prefix}s{{i:d+}}.tif",
        )
        (folder / "store").mkdir()
        build_store(folder / "store", StoreRequest(collection, "binary"))
        store = ImageStore.open(folder / "store")
        found = [(pair.images[0].name, pair.plane or 0) for pair in store.pairs]
        assert sorted(found) == sorted(
            (name, number) for name, images in planes.items() for number in range(len(images))
        )
        for index, (name, number) in enumerate(found):
            assert np.array_equal(store.image(index), planes[name][number])
            assert np.array_equal(store.mask(index)[0], planes[name][number][0] > 100)
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("fate", ["present", "renamed", "alone"])
def test_a_single_plane_of_a_set_is_read_by_whoever_reads_it(tmp_path: Path, fate: str) -> None:
    layout = Layout(sizes=(3, 1, 1), apart="Z", tile=1024, fate=fate)
    for path, pages in after(write(tmp_path / "set", layout), fate):
        with open_image(path) as reader:
            assert reader.info.planes == 1
            assert np.array_equal(reader.read(0)[0], plane(pages[0]))


def test_without_identifiers_a_file_is_known_by_its_name(tmp_path: Path) -> None:
    written = write(tmp_path / "set", Layout(sizes=(2, 1, 1), apart="Z"))
    for path, pages in written:
        text = tifffile.tiffcomment(path)
        assert isinstance(text, str)
        start = text.index(' UUID="')
        tifffile.tiffcomment(path, (text[:start] + text[text.index('"', start + 7) + 1 :]).encode())
        with open_image(path) as reader:
            assert reader.info.planes == 1
            assert np.array_equal(reader.read(0)[0], plane(pages[0]))
    renamed = written[0][0].rename(tmp_path / "set" / "other.ome.tif")
    with open_image(renamed) as reader:
        assert np.array_equal(reader.read(0)[0], plane(written[0][1][0]))
        assert any("describes other files" in note for note in reader.info.notes)


def test_planes_that_the_file_should_hold_are_missed(tmp_path: Path) -> None:
    ((path, _),) = write(tmp_path / "set", Layout(sizes=(2, 1, 1)))
    text = tifffile.tiffcomment(path)
    assert isinstance(text, str)
    tifffile.tiffcomment(path, text.replace('SizeZ="2"', 'SizeZ="3"').encode())
    with pytest.raises(DataError, match=r"promises 3 planes, 2 of them are in the file"):
        open_image(path)


def test_planes_of_no_grid_are_read_one_by_one(tmp_path: Path) -> None:
    ((path, _),) = write(tmp_path / "set", Layout(sizes=(2, 2, 1)))
    text = tifffile.tiffcomment(path)
    assert isinstance(text, str)
    last = text.rindex("<TiffData")
    other = text[last:].replace("></TiffData>", '><UUID FileName="b.ome.tif">urn:uuid:b</UUID></TiffData>')
    tifffile.tiffcomment(path, (text[:last] + other).encode())
    with open_image(path) as reader:
        assert (reader.info.planes, reader.info.channels) == (3, 1)
        assert any("no whole Z, C and T" in note for note in reader.info.notes)
        found = [reader.read(number)[0] for number in range(3)]
    assert all(
        np.array_equal(*pixels) for pixels in zip(found, map(plane, [(0, 0, 0), (0, 1, 0), (1, 0, 0)]), strict=True)
    )


def test_the_image_of_the_labels_size_is_read(tmp_path: Path) -> None:
    image, label = plane((0, 0, 0)), (plane((0, 0, 1)) > 100).astype(np.uint8)
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    with tifffile.TiffWriter(tmp_path / "images" / "a.tif") as writer:
        writer.write(image[::4, ::4].copy(), metadata=None)
        writer.write(image, metadata=None)
        writer.write(image[:20, :25].copy(), metadata=None)
    tifffile.imwrite(tmp_path / "labels" / "a.tif", label)
    collection = find_pairs(tmp_path / "images", tmp_path / "labels", images_pattern=".*", labels_pattern=".*")
    (tmp_path / "store").mkdir()
    build_store(tmp_path / "store", StoreRequest(collection, "binary"))
    store = ImageStore.open(tmp_path / "store")
    assert np.array_equal(store.image(0)[0], image)
    expected_note = (
        "the file holds several images, of which number 2 is read (1 of 1 images, a.tif: 8×12, 32×48, 20×25 px)"
    )
    assert expected_note in store.notes


def test_layouts_are_different() -> None:
    """The generator itself: the order of pages is shuffled, and a set of files has several."""
    base = Layout(sizes=(3, 2, 1))
    assert files_of(replace(base, seed=1)) != files_of(base)
    assert len(files_of(replace(base, apart="Z"))) == 3
