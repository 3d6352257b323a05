"""Labels that cannot mean what they are taken for: reported with numbers and the way out, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from tune_smp.data.findings import inspect_split
from tune_smp.data.labels import Mode
from tune_smp.data.pairing.collection import find_pairs
from tune_smp.data.split import split_groups, split_regions
from tune_smp.data.store.image_store import ImageStore, open_or_build
from tune_smp.errors import DataError

COUNT = 6
Save = Callable[[Path, NDArray[Any]], object]


def scene(seed: int, side: int = 64, discs: int = 6, radius: int = 9) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """A noisy picture with discs, and the discs' numbers (0: none)."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    objects = np.zeros((side, side), np.int32)
    for number in range(1, discs + 1):
        centre = random.integers(0, side, 2)
        objects[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2] = number
    picture = 40 + 120 * (objects > 0) + random.normal(0, 12, (side, side))
    return picture.clip(0, 255).astype(np.uint8), objects


def classes(seed: int) -> NDArray[np.uint8]:
    """0 background, 1 one disc, 2 the others."""
    return np.minimum(scene(seed)[1], 2).astype(np.uint8)


def tiff(path: Path, pixels: NDArray[Any]) -> None:
    tifffile.imwrite(path.with_suffix(".tif"), pixels)


def png(path: Path, pixels: NDArray[Any]) -> None:
    Image.fromarray(pixels).save(path.with_suffix(".png"))


def write(folder: Path, label: Callable[[int], NDArray[Any]], save: Save = tiff, **of_scene: int) -> None:
    for name in ("images", "labels"):
        (folder / name).mkdir(exist_ok=True)
    for number in range(COUNT):
        tiff(folder / "images" / f"{number:02d}", scene(number, **of_scene)[0])
        save(folder / "labels" / f"{number:02d}", label(number))


def built(folder: Path, mode: Mode, **options: Any) -> ImageStore:
    collection = find_pairs(folder / "images", folder / "labels", images_pattern=".*", labels_pattern=".*")
    return open_or_build(collection, mode=mode, cache_dir=folder / "cache", **options)


def share(store: ImageStore) -> float:
    """Of foreground among all pixels."""
    return sum(map(store.foreground_pixels, range(len(store)))) / sum(h * w for h, w in store.sizes)


def true_share() -> float:
    return float(np.mean([scene(seed)[1] > 0 for seed in range(COUNT)]))


def notes_of(store: ImageStore, *words: str) -> list[str]:
    return [note for note in store.notes if all(word in note for word in words)]


# Interpolation and lossy compression


def enlarged(seed: int) -> NDArray[Any]:
    label = Image.fromarray(classes(seed) * np.uint8(127))
    return np.asarray(label.resize((50, 50), Image.Resampling.BILINEAR).resize((64, 64), Image.Resampling.BILINEAR))


def jpeg(path: Path, pixels: NDArray[Any]) -> None:
    Image.fromarray(pixels).save(path.with_suffix(".jpg"), quality=90)


def jpeg_in_tiff(path: Path, pixels: NDArray[Any]) -> None:
    tifffile.imwrite(path.with_suffix(".tif"), pixels, compression="jpeg", compressionargs={"level": 85})


def test_interpolated_classes_are_refused(tmp_path: Path) -> None:
    write(tmp_path, enlarged, png)
    with pytest.raises(
        DataError, match=r"hold \d{3} distinct values, but 3 of them \(0, 127, 254\) hold 8\d\.\d% .*inter"
    ):
        built(tmp_path, "multiclass")


@pytest.mark.parametrize("save", [jpeg, jpeg_in_tiff])
def test_classes_from_jpeg_are_refused(tmp_path: Path, save: Save) -> None:
    write(tmp_path, lambda seed: classes(seed) * np.uint8(100), save)
    with pytest.raises(DataError, match=r"3 of them \(0, 100, 200\).*lossy compression \(JPEG\)"):
        built(tmp_path, "multiclass")


@pytest.mark.parametrize("save", [jpeg, jpeg_in_tiff])
def test_a_mask_from_jpeg_is_cut_at_half(tmp_path: Path, save: Save) -> None:
    write(tmp_path, lambda seed: ((scene(seed)[1] > 0) * 255).astype(np.uint8), save)
    store = built(tmp_path, "binary")
    assert share(store) == pytest.approx(true_share(), abs=0.004)
    assert store.class_map.threshold == 127.5
    assert store.class_map.values == (0, 255)
    assert notes_of(store, "above 127.5 is foreground", "0, 255")
    assert notes_of(store, f"{COUNT} labels are compressed with loss (JPEG)")
    assert type(store.class_map).from_json(store.class_map.to_json()) == store.class_map


def test_an_interpolated_mask_is_cut_at_half(tmp_path: Path) -> None:
    def soft(seed: int) -> NDArray[Any]:
        mask = Image.fromarray(((scene(seed)[1] > 0) * 255).astype(np.uint8))
        return np.asarray(mask.resize((40, 40), Image.Resampling.BILINEAR).resize((64, 64), Image.Resampling.BICUBIC))

    write(tmp_path, soft, png)
    assert share(built(tmp_path, "binary")) == pytest.approx(true_share(), abs=0.02)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_instance_numbers_stay_above_zero(tmp_path: Path, dtype: Any) -> None:
    write(tmp_path, lambda seed: (scene(seed)[1] * 30).astype(dtype))
    store = built(tmp_path, "binary")
    assert share(store) == pytest.approx(true_share(), abs=1e-9)
    assert store.class_map.threshold == 0


# Numbered objects


def test_numbered_objects_given_as_classes_are_reported(tmp_path: Path) -> None:
    write(tmp_path, lambda seed: scene(seed, 96, 12 + seed, 6)[1].astype(np.uint16), side=96)
    store = built(tmp_path, "multiclass")
    assert notes_of(store, "labels seem to number objects: 12 to 17 values per label", "--segmentationMode binary")


@pytest.mark.parametrize("kinds", [2, 8])
def test_classes_are_no_numbered_objects(tmp_path: Path, kinds: int) -> None:
    """Several discs of a kind, and organs that every image has once."""

    def label(seed: int) -> NDArray[Any]:
        if kinds == 2:
            objects = scene(seed, 96, 14, 6)[1]
            return np.where(objects > 0, objects % 2 + 1, 0).astype(np.uint8)
        blocks = np.kron(np.arange(9).reshape(3, 3), np.ones((32, 32)))
        return np.roll(blocks, seed, 0).astype(np.uint8)

    write(tmp_path, label, side=96)
    assert not notes_of(built(tmp_path, "multiclass"), "number objects")


# Voids, backgrounds


def bordered(value: int, dtype: Any, most: int = 2) -> Callable[[int], NDArray[Any]]:
    def label(seed: int) -> NDArray[Any]:
        pixels = np.minimum(scene(seed)[1], most).astype(dtype)
        pixels[:4] = value
        return pixels

    return label


@pytest.mark.parametrize(("value", "dtype"), [(255, np.uint8), (-1, np.int16), (65535, np.uint16)])
def test_an_undeclared_void_is_reported(tmp_path: Path, value: int, dtype: Any) -> None:
    write(tmp_path, bordered(value, dtype))
    assert notes_of(built(tmp_path, "multiclass"), f"--ignoreValue {value} leaves it out", "6.2%")
    assert not notes_of(built(tmp_path, "multiclass", ignore_value=value), "looks like a void")


def test_a_void_beside_a_mask_is_reported(tmp_path: Path) -> None:
    write(tmp_path, bordered(255, np.uint8, most=1))
    assert notes_of(built(tmp_path, "binary"), "--ignoreValue 255 leaves it out")


@pytest.mark.parametrize(("value", "dtype"), [(255, np.uint8), (-1, np.int16)])
def test_background_and_a_void_are_refused(tmp_path: Path, value: int, dtype: Any) -> None:
    write(tmp_path, bordered(value, dtype, most=0))
    with pytest.raises(DataError, match=rf"background only: all hold 0, and {value} at their edges"):
        built(tmp_path, "multiclass")


def test_two_classes_of_0_and_255_are_no_void(tmp_path: Path) -> None:
    write(tmp_path, lambda seed: ((scene(seed)[1] > 0) * 255).astype(np.uint8))
    store = built(tmp_path, "multiclass")
    assert store.class_map.values == (0, 255)
    assert not store.notes


def test_labels_of_one_value_each_are_reported(tmp_path: Path) -> None:
    write(tmp_path, lambda seed: np.full((64, 64), seed % 2, np.uint8))
    assert notes_of(built(tmp_path, "multiclass"), "every label is a single value")


# Wrong labels


def test_shifted_labels_are_reported(tmp_path: Path) -> None:
    write(tmp_path, lambda seed: np.roll((scene(seed)[1] > 0).astype(np.uint8), (10, -6), (0, 1)))
    assert notes_of(built(tmp_path, "binary"), "moved by 10 px up and 6 px to the right")


def test_labels_of_other_images_are_reported(tmp_path: Path) -> None:
    write(tmp_path, lambda seed: (scene((seed + 1) % COUNT)[1] > 0).astype(np.uint8))
    assert notes_of(
        built(tmp_path, "binary"), "fit the label of another image better", "00.tif with the label of 05.tif"
    )


def test_labels_in_their_places_are_not_reported(tmp_path: Path) -> None:
    write(tmp_path, lambda seed: (scene(seed)[1] > 0).astype(np.uint8))
    assert built(tmp_path, "binary").notes == ()


@pytest.mark.parametrize("mode", ["binary", "multiclass"])
def test_exchanged_folders_are_refused(tmp_path: Path, mode: Mode) -> None:
    write(tmp_path, lambda seed: (scene(seed)[1] > 0).astype(np.uint8))
    collection = find_pairs(tmp_path / "labels", tmp_path / "images", images_pattern=".*", labels_pattern=".*")
    with pytest.raises(DataError, match=r"look like photographs.*\n.*\n.*exchanged"):
        open_or_build(collection, mode=mode, cache_dir=tmp_path / "cache")


# Forms of labels


COLORS = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8)
NAMED = {"background": 0x000000, "red": 0xFF0000, "green": 0x00FF00}


def test_painted_labels_are_refused_with_a_mapping_to_paste(tmp_path: Path) -> None:
    write(tmp_path, lambda seed: COLORS[classes(seed)], png)
    mapping = "background=#000000,class1=#00ff00,class2=#ff0000"
    with pytest.raises(DataError, match=rf'painted in 3 colours.*\n.*\n.*--labelColors "{mapping}"'):
        built(tmp_path, "multiclass")


@pytest.mark.parametrize("alpha", [False, True])
def test_painted_labels_are_read_by_their_colors(tmp_path: Path, alpha: bool) -> None:
    opaque = np.full((64, 64, 1), 255, np.uint8)

    def label(seed: int) -> NDArray[Any]:
        painted = COLORS[classes(seed)]
        return np.concatenate([painted, opaque], axis=2) if alpha else painted

    write(tmp_path, label, png)
    store = built(tmp_path, "multiclass", label_colors=NAMED)
    assert store.class_map.names == ("background", "red", "green")
    assert all((store.mask(index)[0] == classes(index)).all() for index in range(COUNT))
    other_order = {name: NAMED[name] for name in ("green", "red", "background")}
    store = built(tmp_path, "multiclass", label_colors=other_order)
    assert all((store.mask(index)[0] == 2 - classes(index)).all() for index in range(COUNT))
    assert type(store.class_map).from_json(store.class_map.to_json()) == store.class_map


def test_painted_labels_may_be_binary_and_have_a_void(tmp_path: Path) -> None:
    write(tmp_path, lambda seed: COLORS[classes(seed)], png)
    store = built(tmp_path, "binary", label_colors=NAMED)
    assert (store.mask(0)[0] == (classes(0) > 0)).all()
    ignoring = {"background": 0, "ignore": 0xFF0000, "cell": 0x00FF00}
    store = built(tmp_path, "binary", label_colors=ignoring)
    assert (store.mask(0)[0] == np.array([0, 255, 1])[classes(0)]).all()


def test_colors_that_are_not_listed_are_named(tmp_path: Path) -> None:
    write(tmp_path, lambda seed: COLORS[classes(seed)], png)
    pixels = sum(int((classes(seed) == 2).sum()) for seed in range(COUNT))
    with pytest.raises(DataError, match=rf"1 colours of 6 labels are not in --labelColors: #00ff00 \({pixels} px\)"):
        built(tmp_path, "multiclass", label_colors={"background": 0, "red": 0xFF0000})


def palette(order: list[int]) -> Save:
    def save(path: Path, pixels: NDArray[Any]) -> None:
        image = Image.fromarray(np.argsort(order)[pixels].astype(np.uint8)).convert("P")
        image.putpalette(COLORS[order].reshape(-1).tolist())
        image.save(path.with_suffix(".png"))

    return save


def test_palettes_that_differ_are_refused_or_read_by_their_colors(tmp_path: Path) -> None:
    straight, turned = palette([0, 1, 2]), palette([0, 2, 1])
    write(tmp_path, classes, lambda path, pixels: (turned if int(path.name) % 2 else straight)(path, pixels))
    with pytest.raises(
        DataError, match=r"palettes.*differ.*\n.*00\.png: 1 is #ff0000; 01\.png: 1 is #00ff00\n.*labelCol"
    ):
        built(tmp_path, "multiclass")
    store = built(tmp_path, "multiclass", label_colors=NAMED)
    assert all((store.mask(index)[0] == classes(index)).all() for index in range(COUNT))
    assert not notes_of(store, "palette"), "that indices are values does not hold here"


def test_equal_palettes_are_indices(tmp_path: Path) -> None:
    write(tmp_path, classes, palette([0, 2, 1]))
    store = built(tmp_path, "multiclass")
    assert (store.mask(0)[0] == np.array([0, 2, 1])[classes(0)]).all()
    assert notes_of(store, "its indices are read as values, not its colours (6 of 6 labels)")


def test_greys_in_three_channels_are_one(tmp_path: Path) -> None:
    write(tmp_path, lambda seed: np.repeat(classes(seed)[:, :, None], 3, axis=2), png)
    store = built(tmp_path, "multiclass")
    assert all((store.mask(index)[0] == classes(index)).all() for index in range(COUNT))
    assert notes_of(store, "6 labels have three equal channels, read as one")


def test_masks_in_the_alpha_channel_are_named(tmp_path: Path) -> None:
    def label(seed: int) -> NDArray[Any]:
        red = np.zeros((64, 64, 4), np.uint8)
        red[..., 0], red[..., 3] = 255, (scene(seed)[1] > 0) * 200
        return red

    write(tmp_path, label, png)
    with pytest.raises(DataError, match=r"lies in their alpha channel.*\n.*00\.png \(2 values of alpha\)"):
        built(tmp_path, "binary")


def test_a_mix_of_photometric_interpretations_is_refused_with_both_lists(tmp_path: Path) -> None:
    def save(path: Path, pixels: NDArray[Any]) -> None:
        is_white = int(path.name) % 2
        stored = np.where((pixels > 0) != is_white, 255, 0).astype(np.uint8)
        tifffile.imwrite(path.with_suffix(".tif"), stored, photometric="miniswhite" if is_white else "minisblack")

    write(tmp_path, lambda seed: scene(seed)[1], save)
    lists = r"MinIsWhite: 01\.tif, 03\.tif, 05\.tif; MinIsBlack: 00\.tif, 02\.tif, 04\.tif"
    with pytest.raises(DataError, match=rf"3 labels are stored as MinIsWhite and 3 as MinIsBlack.*\n.*{lists}"):
        built(tmp_path, "binary")


def test_labels_that_are_all_min_is_white_are_counted(tmp_path: Path) -> None:
    def save(path: Path, pixels: NDArray[Any]) -> None:
        tifffile.imwrite(path.with_suffix(".tif"), ((pixels > 0) * 255).astype(np.uint8), photometric="miniswhite")

    write(tmp_path, lambda seed: scene(seed)[1], save)
    store = built(tmp_path, "binary")
    assert notes_of(store, "MinIsWhite", "6 of 6 labels")
    assert share(store) == pytest.approx(true_share())


# The same picture twice


def twins(folder: Path, other: Callable[[NDArray[Any]], NDArray[Any]]) -> ImageStore:
    """The last picture is that of image 0, saved without loss in another format."""
    write(folder, lambda seed: (scene(seed)[1] > 0).astype(np.uint8))
    (folder / "images" / "05.tif").unlink()
    png(folder / "images" / "05", scene(0)[0])
    tiff(folder / "labels" / "05", other((scene(0)[1] > 0).astype(np.uint8)))
    return built(folder, "binary")


def test_the_same_picture_stays_on_one_side(tmp_path: Path) -> None:
    store = twins(tmp_path, lambda label: label)
    assert notes_of(store, "2 images are one picture under several names: 00.tif = 05.png")
    assert not notes_of(store, "contradict")
    groups = split_groups(store.collection)
    assert groups[0] == groups[5]
    for seed in range(20):
        regions = split_regions(
            store.sizes, groups, names=[pair.name for pair in store.pairs], train_fraction=0.6, seed=seed
        )
        subsets = {region.pair: region.subset for region in regions}
        assert subsets[0] == subsets[5]
    inspect_split(store, regions)


def test_the_same_picture_with_different_labels_is_a_contradiction(tmp_path: Path) -> None:
    store = twins(tmp_path, lambda label: 1 - label)
    assert notes_of(store, "contradict each other", "00.tif = 05.png")


def test_blank_images_are_no_twins(tmp_path: Path) -> None:
    write(tmp_path, lambda seed: (scene(seed)[1] > 0).astype(np.uint8))
    for number in (2, 3):
        tiff(tmp_path / "images" / f"{number:02d}", np.zeros((64, 64), np.uint8))
    assert not notes_of(built(tmp_path, "binary"), "under several names")
