"""Faults and bad input, as a user meets them: what a command answers, with which exit code, and what it leaves behind.

What is refused is refused before Ray starts, so ``main`` runs right here. The numbers are those of the table of faults.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image

from tune_smp.choices.architectures import ARCHITECTURES
from tune_smp.cli import main
from tune_smp.data.pairing.collection import find_pairs
from tune_smp.data.split import Region, split_regions, write_split
from tune_smp.data.store.image_store import ImageStore, open_or_build
from tune_smp.data.synthetic import draw_nuclei
from tune_smp.results.folder import RunFolder, claimed, read_csv
from tune_smp.results.summary import write_settings
from tune_smp.settings.run import RunSettings
from tune_smp.training import checkpoint
from tune_smp.training.run import TrainingRun

Command = Callable[..., subprocess.CompletedProcess[str]]
Answer = Callable[..., tuple[int, str]]
Pixels = NDArray[Any]

TINY = ("--encoderBaseVariantWeights", "Test,tu-test_efficientnet,random", "--tileSize", "64", "--device", "cpu")
NAMED = "i{i:d+}.tif"  # pattern of most images and labels here
NOBODY = 65534


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of decoded images; tiny models train on one thread, two would wait for each other."""
    monkeypatch.setenv("TUNE_SMP_CACHE", str(tmp_path / "cache"))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path / "cache"
    torch.set_num_threads(before)


@pytest.fixture
def answer(capsys: pytest.CaptureFixture[str]) -> Answer:
    """Run a command; its exit code, and all that it printed. Never a traceback."""

    def run(*words: str | Path) -> tuple[int, str]:
        code = main([str(word) for word in words])
        printed = "".join(capsys.readouterr())
        assert "Traceback" not in printed
        return code, printed

    return run


def flags(data: Path, *extra: str, pattern: str = NAMED, mode: str = "binary") -> list[str]:
    """Flags of ``check`` for a folder with ``images/`` and ``labels/``."""
    patterns = [f"--imagesPattern={pattern}", f"--labelsPattern={pattern}"]
    return [f"--imagesDir={data}", f"--labelsDir={data}", *patterns, f"--segmentationMode={mode}", *extra]


def write(path: Path, pixels: Pixels, **layout: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, pixels, **layout)


def square(side: int = 40) -> NDArray[np.uint8]:
    """A label, 0 and 1: a square in the middle."""
    label = np.zeros((side, side), np.uint8)
    label[side // 4 : side // 2, side // 4 : side // 2] = 1
    return label


def noise(side: int = 40, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng([side, seed]).integers(0, 255, (side, side), np.uint8)


def write_pairs(data: Path, count: int, label: Pixels | None = None) -> None:
    """``count`` different images with labels; all labels are ``label`` if it is given."""
    for number in range(1, count + 1):
        write(data / "images" / f"i{number}.tif", noise(seed=number))
        write(data / "labels" / f"i{number}.tif", square() if label is None else label)


def stored(cache: Path) -> ImageStore:
    """The only store in the cache."""
    (index,) = cache.glob("*/index.json")
    return ImageStore.open(index.parent)


# 1: folders that are not there, closed or full

DROPPED = """
import os, sys
import tune_smp.settings.command_line, tune_smp.settings.folders, tune_smp.settings.run
from tune_smp.cli import main
if os.geteuid() == 0:  # to whom nothing is closed
    os.setgid({nobody})
    os.setuid({nobody})
code = main(sys.argv[1:])
sys.exit(code + 100 * ("torch" in sys.modules))
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach, unlike tmp_path."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    (folder / "closed").chmod(0o755)
    shutil.rmtree(folder)


def test_1_missing_closed_and_read_only_folders_are_told_before_torch_is_imported(open_folder: Path) -> None:
    (open_folder / "file").touch()
    for name, mode in (("closed", 0o000), ("read-only", 0o555)):
        (open_folder / name).mkdir(mode=mode)
    program = DROPPED.format(nobody=NOBODY)

    def refused(images: str, labels: str, output: str) -> str:
        folders = [f"--imagesDir={open_folder / images}", f"--labelsDir={open_folder / labels}"]
        words = [*flags(open_folder), *folders, f"--outputDir={open_folder / output}"]
        command = [sys.executable, "-c", program, "train", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2, done
        return done.stderr

    closed = refused("closed", "missing", "read-only")
    assert f"--imagesDir: this user may not read the folder\nwhere:   {open_folder / 'closed'}\nfix: " in closed
    assert f"--labelsDir: no such folder\nwhere:   {open_folder / 'missing'}\nfix: " in closed
    assert f"--outputDir: this user may not write there\nwhere:   {open_folder / 'read-only'}\nfix: " in closed
    files = refused("file", "file/below", "file")
    assert files.count(": a file, not a folder\n") == 2
    assert "--labelsDir: not a directory" in files


def prepared(settings: RunSettings) -> tuple[ImageStore, tuple[Region, ...]]:
    """What ``train`` makes of the data before it trains."""
    collection = find_pairs(
        settings.images_folder,
        settings.labels_folder,
        images_pattern=settings.images_pattern,
        labels_pattern=settings.labels_pattern,
    )
    store = open_or_build(collection, mode=settings.segmentation_mode, cache_dir=settings.cache_dir)
    names = [pair.name for pair in store.pairs]
    fraction, seed = settings.train_fraction, settings.seed
    return store, split_regions(store.sizes, names=names, train_fraction=fraction, seed=seed)


def tiny_run(data: Path, **changes: Any) -> RunSettings:
    """Settings of one epoch of a tiny network."""
    words = dict(word.removeprefix("--").split("=", 1) for word in flags(data))
    tiny = {"modelName": "Linknet", TINY[0][2:]: TINY[1], "tileSize": 64, "device": "cpu", "batchSize": 2}
    return RunSettings.from_flags({**words, "outputDir": data / "out", "maxEpochs": 1, **tiny, **changes})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that trained to its end and died before it exported: that is left to ``resume``."""
    data = tmp_path_factory.mktemp("trained")
    write_pairs(data, 4)
    settings = tiny_run(data, cacheDir=data / "cache", stepsPerEpoch=1)
    store, regions = prepared(settings)
    run = TrainingRun(settings, store, regions)
    run.run_epoch()
    with claimed(settings.output_dir) as folder:
        write_settings(folder, "train", settings.to_json())
        write_split(folder.split, regions, store.collection)
        checkpoint.save(run.state_dict(), folder.checkpoint)
    return folder.path


@pytest.fixture
def output(trained: Path, tmp_path: Path) -> RunFolder:
    """A copy of that folder, to be worked on."""
    shutil.copytree(trained, tmp_path / "out")
    return RunFolder(tmp_path / "out")


@contextlib.contextmanager
def full_disk(left: int) -> Iterator[None]:
    """No file can grow beyond ``left`` bytes; what the system says then differs from a full disk in its words only."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (left, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_1_when_the_disk_fills_at_the_export_the_last_good_model_survives(answer: Answer, output: RunFolder) -> None:
    assert answer("resume", output.path)[0] == 0
    output.summary.unlink()  # as if it had died just before it said that it was done
    before = {path: path.read_bytes() for path in output.model.iterdir()}
    with full_disk(20_000):
        code, printed = answer("resume", output.path)
    assert code == 5
    assert str(output.model) in printed
    assert "free some space, then" in printed
    assert {path: path.read_bytes() for path in output.model.iterdir()} == before
    assert not list(output.path.glob(".*.tmp")) + list(output.path.glob(".*.old"))
    assert answer("resume", output.path)[0] == 0


def test_1_when_the_disk_fills_at_the_decoding_nothing_is_left(answer: Answer, tmp_path: Path, cache: Path) -> None:
    write_pairs(tmp_path, 2)
    with full_disk(1000):
        code, printed = answer("train", *flags(tmp_path), "--outputDir", tmp_path / "out", *TINY)
    assert code == 5
    assert str(cache) in printed
    assert not list(cache.glob("*/*.bin"))
    assert not RunFolder(tmp_path / "out").is_started()


# 2 and 3: names that do not match, and partners that are missing


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("img_{r:d+}.tif", ("none of 3 file names matches", "r9.tif", 'try --imagesPattern "r{r:d+}.tif"')),
        ("r{r:d}.tif", ("2 images are left out", "r10.tif, r11.tif", 'use --imagesPattern "r{r:d+}.tif"')),
    ],
)
def test_2_patterns_that_find_too_little(pattern: str, words: Sequence[str], answer: Answer, tmp_path: Path) -> None:
    for kind, number in itertools.product(("images", "labels"), (9, 10, 11)):
        write(tmp_path / kind / f"r{number}.tif", square())
    code, printed = answer("train", *flags(tmp_path, pattern=pattern), "--outputDir", tmp_path / "out")
    assert code == 3
    assert all(word in printed for word in words)


def test_2_files_that_are_left_out_are_counted_and_told(answer: Answer, tmp_path: Path) -> None:
    write_pairs(tmp_path, 2)
    write(tmp_path / "images" / "overview.tif", noise())
    code, printed = answer("check", *flags(tmp_path))
    assert code == 0
    assert f'1 files do not match --imagesPattern "{NAMED}": overview.tif' in printed


def test_3_partners_that_are_missing_or_too_many(answer: Answer, tmp_path: Path) -> None:
    write_pairs(tmp_path, 2)
    for number in range(20, 32):
        write(tmp_path / "images" / f"i{number}.tif", noise())
    write(tmp_path / "labels" / "i50.tif", square())
    write(tmp_path / "labels" / "i02.tif", square())
    code, printed = answer("train", *flags(tmp_path), "--outputDir", tmp_path / "out")
    assert code == 3
    assert "12 of 14 images have no label" in printed
    assert "i20.tif" in printed
    assert "i29.tif and 2 more" in printed
    assert "1 of 4 labels have no image" in printed
    assert "i02.tif and i2.tif" in printed
    assert printed.count("--allowUnpaired") == 3
    write_pairs(tmp_path, 3)
    code, printed = answer("check", *flags(tmp_path), "--allowUnpaired")
    assert code == 0
    assert printed.count("note: left out: ") == 3
    assert "2 images, 1 channel" in printed


# 4: files that are not what they should be


def test_4_bad_files_are_all_named_at_once_and_can_be_skipped(answer: Answer, tmp_path: Path) -> None:
    write_pairs(tmp_path, 8)
    images, labels = tmp_path / "images", tmp_path / "labels"
    write(labels / "i1.tif", square(20))
    (images / "i2.tif").write_bytes((images / "i3.tif").read_bytes()[:900])
    (labels / "i3.tif").write_bytes(b"")
    (images / "i4.tif").write_text("no image")
    Image.fromarray(noise()).save(images / "i5.tif", format="PNG")
    for junk in (".DS_Store", "._i1.tif", "Thumbs.db", "i1.tif~"):
        (images / junk).write_text("junk")
    code, printed = answer("train", *flags(tmp_path), "--outputDir", tmp_path / "out")
    assert code == 3
    assert "4 of 16 files cannot be read" in printed
    assert all(f"i{number}.tif (" in printed for number in range(1, 6))
    assert "labels/i3.tif (" in printed, "images and labels of one name are told apart"
    assert "image 40×40, label 20×20" in printed
    assert "--skipCorrupt" in printed
    assert not any(junk in printed for junk in (".DS_Store", "._i1", "Thumbs", "i1.tif~"))
    code, printed = answer("check", *flags(tmp_path), "--skipCorrupt")
    assert code == 0
    assert "note: 5 of 8 pairs are left out (--skipCorrupt): " in printed
    assert all(f"i{number}.tif (" in printed for number in range(1, 6))
    assert "3 images, 1 channel" in printed


# 5: pixels of every kind


def colours(channels: int) -> NDArray[np.uint8]:
    return np.stack([noise() // (number + 1) for number in range(channels)], axis=-1)


READ_RIGHT: dict[str, tuple[Pixels, dict[str, Any]]] = {
    "float64": (noise() / 7.0, {}),
    "float64 beyond float32": (noise() * 1e300, {}),
    "negative": (noise().astype(np.float32) - 1000, {}),
    "int32": (noise().astype(np.int32) * -70_000, {}),
    "bool": (noise() > 128, {}),
    "constant": (np.full((40, 40), 7, np.uint16), {}),
    "16 bit": (noise().astype(np.uint16) * 257, {}),
    "RGB": (colours(3), {"photometric": "rgb"}),
    "RGBA": (colours(4), {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
    "Z": (np.stack([noise(), noise() // 2]), {"metadata": {"axes": "ZYX"}, "imagej": True}),
    "T": (np.stack([noise(), noise() // 2]), {"metadata": {"axes": "TYX"}, "imagej": True}),
    "C": (np.stack([noise(), noise() // 2]), {"metadata": {"axes": "CYX"}, "imagej": True}),
}


@pytest.mark.parametrize("kind", READ_RIGHT)
def test_5_pixels_are_read_right_or_named(kind: str, answer: Answer, tmp_path: Path, cache: Path) -> None:
    pixels, layout = READ_RIGHT[kind]
    for number in (1, 2):  # the second is another picture: equal ones stay on one side of the split
        rows = np.roll(pixels, number - 1, axis=-3 if kind.startswith("RGB") else -2)
        write(tmp_path / "images" / f"i{number}.tif", rows, **layout)
        write(tmp_path / "labels" / f"i{number}.tif", square())
    code, printed = answer("check", *flags(tmp_path))
    if kind == "float64 beyond float32":
        assert code == 3
        assert "i1.tif (64-bit floats must fit into 32 bits" in printed
        return
    assert code == 0, printed
    store = stored(cache)
    planes = pixels if kind in ("Z", "T") else [pixels]
    expected = [plane[None] if plane.ndim == 2 else plane for plane in planes]
    if kind.startswith("RGB"):
        expected = [np.moveaxis(pixels[..., :3], -1, 0)]
    assert len(store) == 2 * len(expected)
    for number, image in enumerate(expected):
        np.testing.assert_allclose(store.image(number), image, rtol=1e-6)
    assert ("hold one value only" in printed) == (kind == "constant")
    assert ("alpha" in printed) == (kind == "RGBA")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_5_pixels_that_are_no_numbers_are_named(value: float, answer: Answer, tmp_path: Path) -> None:
    write_pairs(tmp_path, 2)
    pixels = noise().astype(np.float32)
    pixels[3, 4:7] = value
    write(tmp_path / "images" / "i2.tif", pixels)
    code, printed = answer("train", *flags(tmp_path), "--outputDir", tmp_path / "out")
    assert code == 3
    assert "i2.tif (3 NaN or infinite pixels)" in printed


def test_5_png_of_16_bits_keeps_them(answer: Answer, tmp_path: Path, cache: Path) -> None:
    pixels = noise().astype(np.uint16) * 257
    write_pairs(tmp_path, 2)
    for number in (1, 2):
        Image.fromarray(np.roll(pixels, number - 1, axis=0)).save(tmp_path / "images" / f"i{number}.png")
        (tmp_path / "images" / f"i{number}.tif").unlink()
    code, _ = answer("check", *flags(tmp_path), "--imagesPattern", "i{i:d}.png")
    assert code == 0
    np.testing.assert_array_equal(stored(cache).image(0)[0], pixels)


def test_5_extreme_images_train_without_a_division_by_zero(tmp_path: Path) -> None:
    write_pairs(tmp_path, 4)
    extremes = (np.full((40, 40), -7.0), np.zeros((40, 40)), noise() * 1e30, noise() * -1e-30)
    for number, pixels in enumerate(extremes, start=1):
        write(tmp_path / "images" / f"i{number}.tif", pixels.astype(np.float32))
    for normalization in ("percentile", "zscore", "minmax"):
        settings = tiny_run(tmp_path, normalization=normalization, stepsPerEpoch=2)
        report = TrainingRun(settings, *prepared(settings)).run_epoch()
        assert np.isfinite([report["train_loss"], report["val_loss"]]).all()


# 6: labels of every kind


def test_6_a_side_without_foreground_is_told_for_training_and_refused_for_validation(
    answer: Answer, tmp_path: Path
) -> None:
    write_pairs(tmp_path, 2, label=np.zeros((40, 40), np.uint8))
    write(tmp_path / "labels" / "i1.tif", square())
    told = {answer("check", *flags(tmp_path), f"--seed={seed}", "--trainFraction=0.5") for seed in range(6)}
    codes = sorted(code for code, _ in told)
    assert codes == [0, 3]
    (_, warned), (_, refused) = sorted(told)
    assert "note: the labels of all training images are background only" in warned
    assert "the labels of all validation images are background only" in refused
    write(tmp_path / "labels" / "i1.tif", square() * 0)
    assert answer("train", *flags(tmp_path), "--outputDir", tmp_path / "out")[0] == 3


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (square() * 255, "the foreground has the value 255 in the labels, and in predictions"),
        (np.arange(1600, dtype=np.uint16).reshape(40, 40) // 100, "16 distinct values (instance numbers?)"),
        (np.linspace(0, 1, 1600, dtype=np.float32).reshape(40, 40), "(a probability map?): everything above 0 is"),
    ],
    ids=["255", "instances", "float"],
)
def test_6_binary_takes_everything_above_zero_and_says_so(
    label: Pixels, words: str, answer: Answer, tmp_path: Path, cache: Path
) -> None:
    write_pairs(tmp_path, 2, label)
    code, printed = answer("check", *flags(tmp_path))
    assert code == 0
    assert words in printed
    np.testing.assert_array_equal(stored(cache).mask(0)[0], label > 0)


def test_6_a_class_that_one_side_lacks_is_told(answer: Answer, tmp_path: Path) -> None:
    write_pairs(tmp_path, 2)
    write(tmp_path / "labels" / "i1.tif", square() + square() * (noise() > 100))
    told = {answer("check", *flags(tmp_path, mode="multiclass"), f"--seed={seed}")[1] for seed in range(6)}
    assert {
        side for side in ("training", "validation") for text in told if f"class 2 in none of the {side}" in text
    } == {
        "training",
        "validation",
    }


# 7 and 10: odd sizes, few images, small batches


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_7_10_one_image_smaller_than_a_tile_in_batches_of_one(architecture: str, tmp_path: Path) -> None:
    image, label = draw_nuclei((37, 59), seed=2)
    write(tmp_path / "images" / "i1.tif", image)
    write(tmp_path / "labels" / "i1.tif", label)
    tile = max(64, ARCHITECTURES[architecture].min_tile_size)
    changes = {"modelName": architecture, "tileSize": tile, "batchSize": 1, "stepsPerEpoch": 1}
    settings = tiny_run(tmp_path, **changes)
    store, regions = prepared(settings)
    assert [region.subset for region in regions] == ["train", "validation"], "split in space"
    report = TrainingRun(settings, store, regions).run_epoch()
    assert np.isfinite([report["train_loss"], report["val_loss"], report["val_iou"]]).all()


def test_7_10_one_huge_image_whose_tiles_do_not_divide_into_batches(tmp_path: Path) -> None:
    label = np.zeros((700, 4099), np.uint8)
    label[::3, ::7] = 1
    write(tmp_path / "images" / "i1.tif", label * 200)
    write(tmp_path / "labels" / "i1.tif", label)
    settings = tiny_run(tmp_path, tileSize=256, batchSize=4, stepsPerEpoch=1)
    store, regions = prepared(settings)
    run = TrainingRun(settings, store, regions)
    assert (regions[1].x1 - regions[1].x0) * 3 < 4099 < regions[1].x1 * 1.001
    assert np.isfinite(run.run_epoch()["val_loss"])


# 8, 9 and 22: what is refused before a look at the data


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ("--modelName=Unett", "did you mean 'Unet'?"),
        ("--modelName=PAN --encoderBaseVariantWeights=VGG,vgg16,imagenet", "vgg16 goes with Unet"),
        ("--encoderBaseVariantWeights=Test,tu-test_efficientnet,imagenet", "one of: random"),
        ("--encoderBaseVariantWeights=ResNet,resnet43,imagenet", "did you mean"),
        ("--lossName=SoftCrossEntropyLoss", "for binary, one of: JaccardLoss"),
        ("--optimizerName=Adams", "did you mean 'Adam"),
    ],
)
def test_8_unknown_and_unbuildable_choices(chosen: str, words: str, answer: Answer, tmp_path: Path) -> None:
    write_pairs(tmp_path, 2)
    code, printed = answer("train", *flags(tmp_path), "--outputDir", tmp_path / "out", *chosen.split())
    assert code == 2
    assert words in printed
    assert not (tmp_path / "out").exists()


def test_9_wrong_values_are_told_all_at_once(answer: Answer, tmp_path: Path) -> None:
    wrong = {
        "batchSize": "0",
        "patience": "-1",
        "minDelta": "nan",
        "trainFraction": "1",
        "maxEpochs": "0",
        "colour": "1",
    }
    words = [f"--{flag}={value}" for flag, value in wrong.items()]
    code, printed = answer("train", *flags(tmp_path), "--outputDir", tmp_path / "out", *words)
    assert code == 2
    assert printed.count("problem: ") == len(wrong)
    for flag, value in wrong.items():
        assert f"--{flag} is not a flag" in printed if flag == "colour" else f"got {value}" in printed


DIES_WITH_THE_LOCK = """
import os, sys
from pathlib import Path
from tune_smp.results.folder import claimed
lock = claimed(Path(sys.argv[1]))
lock.__enter__()
os._exit(9)
"""


def test_22_the_second_program_is_refused_and_a_dead_one_is_forgotten(answer: Answer, tmp_path: Path) -> None:
    write_pairs(tmp_path, 2)
    out = tmp_path / "out"
    words = ("train", *flags(tmp_path, pattern="no{i:d}.tif"), "--outputDir", out)
    with claimed(out):
        code, printed = answer(*words)
        assert code == 5
        assert "another tune-smp is at work in this folder (process " in printed
    died = subprocess.run([sys.executable, "-c", DIES_WITH_THE_LOCK, str(out)], check=False)
    assert died.returncode == 9
    assert (out / ".tune-smp.owner").exists()
    assert answer(*words)[0] == 3, "it went on to look at the data"


# 21 and 27: models from elsewhere


class Malicious:
    """Pickled code: to read it is to run it."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Callable[..., int], tuple[str]]:
        return os.system, (f"touch '{self.victim}'",)


Damage = Callable[[RunFolder, Path], object]


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def half_a_model(run: RunFolder, _: Path) -> None:
    run.checkpoint.unlink()
    half(run.model / "model.safetensors")


def no_weights(run: RunFolder, _: Path) -> None:
    run.checkpoint.unlink()
    (run.model / "model.safetensors").unlink()


def no_model(run: RunFolder, _: Path) -> None:
    run.checkpoint.unlink()
    shutil.rmtree(run.model)


def newer_format(run: RunFolder, _: Path) -> None:
    torch.save({"kind": checkpoint.KIND, "format": 99, "state": {}}, run.checkpoint)


BAD_MODELS: dict[str, tuple[Damage, str]] = {
    "whole module": (lambda run, _: torch.save(torch.nn.Conv2d(1, 1, 3), run.checkpoint), "nothing in it was executed"),
    "malicious": (lambda run, victim: torch.save(Malicious(victim), run.checkpoint), "nothing in it was executed"),
    "malicious, bare": (
        lambda run, victim: run.checkpoint.write_bytes(pickle.dumps(Malicious(victim), protocol=2)),
        "nothing in it was executed",
    ),
    "newer format": (newer_format, "(format 99, this program reads format 1)"),
    "half a checkpoint": (lambda run, _: half(run.checkpoint), "damaged"),
    "half a model": (half_a_model, "the weights are damaged"),
    "no weights": (no_weights, "model.safetensors is missing"),
    "no model": (no_model, "there is no model here"),
}


@pytest.mark.parametrize("kind", BAD_MODELS)
def test_21_bad_models_are_refused_and_nothing_is_executed(
    kind: str, answer: Answer, output: RunFolder, tmp_path: Path
) -> None:
    damage, words = BAD_MODELS[kind]
    answer("resume", output.path)
    damage(output, tmp_path / "victim")
    write_pairs(tmp_path, 2)
    new = ("--outputDir", tmp_path / "new", "--pretrainedModel", output.path)
    code, printed = answer("train", *flags(tmp_path), *new)
    assert code == 3
    assert words in printed
    assert str(output.path) in printed
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ("--modelName=FPN", "this run needs FPN with"),
        ("--imagesPattern=rgb{i:d}.tif", "3 channels in"),
        ("--segmentationMode=multiclass", "2 classes out"),
    ],
)
def test_21_another_model_is_refused_naming_both(
    changes: str, words: str, answer: Answer, output: RunFolder, tmp_path: Path
) -> None:
    write_pairs(tmp_path, 2)
    for number in (1, 2):
        write(tmp_path / "images" / f"rgb{number}.tif", colours(3) // number, photometric="rgb")
    new = ("--outputDir", tmp_path / "new", "--pretrainedModel", output.path)
    code, printed = answer("train", *flags(tmp_path), *new, changes)
    assert code == 3
    assert "the earlier model is Linknet with tu-test_efficientnet, 1 channels in, 1 classes out" in printed
    assert words in printed


def test_27_an_exported_model_moves(answer: Answer, output: RunFolder, tmp_path: Path) -> None:
    """That it needs neither network nor this package is tested with a real run."""
    import segmentation_models_pytorch as smp

    assert answer("resume", output.path)[0] == 0
    moved = shutil.move(output.model, tmp_path / "-moved; $(here) 'x'")
    state = checkpoint.load(output.checkpoint)
    images = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits = smp.from_pretrained(moved).eval()(images)
        expected = smp.Linknet("tu-test_efficientnet", encoder_weights=None, in_channels=1)
        expected.load_state_dict(state["best_model"] or state["model"])
        torch.testing.assert_close(logits, expected.eval()(images))


# 24: names

ODD_NAMES = (
    *("with space", "quote\"and'quote", "semi;colon", "$(touch pwned)", "`touch pwned`", "-rf", "--help"),
    *("line\nbreak", "<script>alert(1)<", "µm·été·细胞", "%s{}[red]", "\x1b[31m", "a" * 251),
)


def test_24_loops_of_links_are_named(answer: Answer, tmp_path: Path) -> None:
    write_pairs(tmp_path, 2)
    for kind in ("images", "labels"):
        (tmp_path / kind / "i3.tif").symlink_to("i3.tif")
    code, printed = answer("train", *flags(tmp_path), "--outputDir", tmp_path / "out")
    assert code == 3
    for kind in ("images", "labels"):
        assert f"{kind}/i3.tif (the file cannot be opened (Too many levels of symbolic links))" in printed
    assert answer("check", *flags(tmp_path), "--skipCorrupt")[0] == 0
    (tmp_path / "loop").symlink_to("loop")
    code, printed = answer("train", *flags(tmp_path / "loop"), "--outputDir", tmp_path / "out")
    assert code == 2
    assert "too many levels of symbolic links" in printed


def test_24_a_command_to_copy_is_quoted(answer: Answer, output: RunFolder, tmp_path: Path) -> None:
    write_pairs(tmp_path, 2)
    odd = output.path.rename(tmp_path / "-o; $(touch pwned) 'x'")
    code, printed = answer("train", *flags(tmp_path), "--outputDir", odd)
    assert code == 2
    assert f"tune-smp resume {shlex.quote(str(odd))}" in printed
    code, printed = answer("resume", odd)
    assert code == 0
    assert f"--model {shlex.quote(str(odd))} " in printed


def test_7_24_odd_names_and_odd_sizes_all_the_way(tune_smp: Command, answer: Answer, tmp_path: Path) -> None:
    data, out = tmp_path / "-d; $(touch pwned) <b> 'é\n", tmp_path / '-o; `touch pwned` "x"'
    for number, name in enumerate(ODD_NAMES):
        image, label = draw_nuclei((33 + number, 57), seed=number)
        write(data / "images" / f"{name}.tif", image)
        write(data / "labels" / f"{name}.tif", label)
    words = flags(data, "--maxEpochs=1", "--stepsPerEpoch=1", "--batchSize=4", "--dashboard=false", pattern=".*")
    done = tune_smp("train", *words, f"--outputDir={out}", *TINY)
    assert done.returncode == 0, done.stderr
    assert {row["image"] for row in read_csv(out / "split.csv")} == {f"{name}.tif" for name in ODD_NAMES}
    masks = tmp_path / "-masks"
    predict = ("predict", "--model", out, "--imagesDir", data, "--imagesPattern", ".*", "--outputDir", masks)
    code, printed = answer(*predict, "--device", "cpu")
    assert code == 3
    assert f"1 predictions would have file names of more than 255 bytes\nwhere:   {ODD_NAMES[-1]}.tif" in printed
    (data / "images" / f"{ODD_NAMES[-1]}.tif").unlink()
    code, printed = answer(*predict, "--device", "cpu")
    assert code == 0
    assert {path.name for path in masks.iterdir()} == {f"{name}.ome.tif" for name in ODD_NAMES[:-1]}
    assert tifffile.imread(masks / "-rf.ome.tif").shape == (38, 57)
    assert "\x1b" not in done.stdout + printed
    assert not list(tmp_path.rglob("pwned")) + list(Path.cwd().glob("pwned"))
