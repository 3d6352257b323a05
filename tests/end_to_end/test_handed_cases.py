"""Files that people really have, from generators beside this clone, read from the command line.

The right pixels with the right labels, or a word about it. Their kinds are rebuilt and tested in tests/data.
"""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tune_smp.cli import main
from tune_smp.data.store.image_store import ImageStore

Undisturbed = tuple[Path, subprocess.CompletedProcess[str]]
ANY = ".*"


class Case:
    """The files of one generator, and what the command line says of them."""

    def __init__(self, folder: Path, names: Mapping[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.names = names
        self._capsys = capsys

    def scene(self, number: int, *args: int, **more: int) -> tuple[Any, Any]:
        """The picture of a file, and the numbers of its objects."""
        picture, objects = self.names["scene"](number, *args, **more)
        return picture, objects

    def check(self, mode: str, pattern: str = ANY, labels_pattern: str = "", **folders: str) -> tuple[int, str]:
        """Exit code of ``check`` and all that it printed."""
        return self.run(
            "check",
            *(f"--imagesDir={self.folder / folders.get('images', 'images')}", f"--segmentationMode={mode}"),
            *(f"--labelsDir={self.folder / folders.get('labels', 'labels')}", f"--imagesPattern={pattern}"),
            f"--labelsPattern={labels_pattern or pattern}",
            *([f"--labelColors={folders['colors']}"] if "colors" in folders else []),
        )

    def run(self, *words: str) -> tuple[int, str]:
        self._capsys.readouterr()
        code = main(list(words))
        said = self._capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return code, said.out + said.err

    @property
    def store(self) -> ImageStore:
        (index,) = (self.folder / "cache").glob("*/index.json")
        return ImageStore.open(index.parent)


MakeCase = Callable[..., Case]


@pytest.fixture
def make_case(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> MakeCase:
    """Run the generator of this name; skips where it is not there."""
    monkeypatch.setenv("TUNE_SMP_CACHE", str(tmp_path / "case" / "cache"))

    def make(name: str) -> Case:
        script = repository.parent / "shared" / "cases" / f"{name}.py"
        if not script.is_file():
            pytest.skip("the generators (../shared/cases) are not beside this clone")
        monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path / "case")])
        return Case(tmp_path / "case", runpy.run_path(str(script)), capsys)

    return make


def test_interpolated_classes_are_refused_with_their_numbers(make_case: MakeCase) -> None:
    code, said = make_case("antialiased_multiclass").check("multiclass")
    assert code == 3
    assert "234 distinct values" in said
    assert "interpolat" in said
    assert "0, 127, 254" in said


def test_numbered_objects_are_reported(make_case: MakeCase) -> None:
    code, said = make_case("instance_multiclass").check("multiclass")
    assert code == 0
    assert "labels seem to number objects: 12 to 17 values per label, 100% of them one patch each" in said
    assert "--segmentationMode binary" in said


def test_jpeg_labels_are_refused_or_cut_at_half(make_case: MakeCase) -> None:
    case = make_case("jpeg_labels")
    code, said = case.check("multiclass")
    assert code == 3
    assert "JPEG" in said
    foreground = np.mean([case.scene(number)[1] > 0 for number in range(6)])
    for labels in ("labels", "labels_tiff"):
        code, said = case.check("binary", labels=labels)
        assert code == 0
        assert "JPEG" in said
        assert f"foreground {foreground:.1%}" in said.replace(" %", "%")


def test_a_mixture_of_min_is_white_and_black_is_refused_with_both(make_case: MakeCase) -> None:
    code, said = make_case("miniswhite_mix").check("binary")
    assert code == 3
    assert "MinIsWhite: 01.tif, 03.tif, 05.tif; MinIsBlack: 00.tif, 02.tif, 04.tif" in said


@pytest.mark.parametrize("pattern", [ANY, "Zürich_{i:d+}.tif"])
def test_normal_forms_of_unicode_compare_equal(make_case: MakeCase, pattern: str) -> None:
    case = make_case("nfc_nfd")
    code, said = case.check("binary", pattern)
    assert code == 0
    assert "4 images" in said
    for number in range(4):
        picture, objects = case.scene(number)
        assert (case.store.image(number)[0] == picture).all()
        assert (case.store.mask(number)[0] == (objects > 0)).all()


def test_channels_stand_where_the_ome_xml_says(make_case: MakeCase) -> None:
    case = make_case("ome_ifd_order")
    assert case.check("binary", "{i:d+}.ome.tif", "{i:d+}.tif")[0] == 0
    for number in range(4):
        picture, _ = case.scene(number)
        assert (case.store.image(number) == np.stack([picture, 255 - picture])).all()


@pytest.mark.parametrize(("name", "prefix"), [("ome_multifile_z", ""), ("ome_multifile_renamed", "plate1_")])
def test_a_file_of_a_set_is_its_own_plane(make_case: MakeCase, name: str, prefix: str) -> None:
    case = make_case(name)
    code, said = case.check("binary", f"{prefix}z{{z:d+}}.ome.tif", f"{prefix}z{{z:d+}}.tif")
    assert code == 0, said
    assert len(case.store) == 4
    for number in range(4):
        picture, objects = case.scene(number)
        assert (case.store.image(number)[0] == picture).all()
        assert (case.store.mask(number)[0] == (objects > 0)).all()


def test_palettes_that_differ_are_refused_or_read_by_colour(make_case: MakeCase) -> None:
    case = make_case("palette_order")
    code, said = case.check("multiclass")
    assert code == 3
    assert "00.png: 1 is #ff0000; 01.png: 1 is #00ff00" in said
    code, said = case.check("multiclass", colors="black=#000000,red=#ff0000,green=#00ff00")
    assert code == 0
    for number in range(6):
        truth = np.load(case.folder / f"truth_{number:02d}.npy")
        assert (case.store.mask(number)[0] == truth).all()


def test_sub_folders_are_named_or_in_the_pattern(make_case: MakeCase) -> None:
    case = make_case("subfolders")
    code, said = case.check("binary")
    assert code == 3
    assert "4 sub-folders" in said
    assert "W0" in said
    code, said = case.check("binary", "W{w:d+}/field.tif")
    assert code == 0, said
    for number in range(4):
        assert (case.store.image(number)[0] == case.scene(number)[0]).all()


def test_axes_without_names_are_reported(make_case: MakeCase) -> None:
    case = make_case("unnamed_axes")
    _, said = case.check("binary")
    assert (
        "pages without axis names are read as planes; channels need an axis C (4 of 4 images, 00.tif: 2 pages" in said
    )
    code, said = case.check("binary", images="images_last")
    assert code == 3
    assert "64" in said
    assert "axes" in said
    assert "export" not in said


def test_a_void_that_nobody_declared_is_reported(make_case: MakeCase) -> None:
    case = make_case("void_undeclared")
    for labels, void in (("labels", 255), ("labels_minus1", -1)):
        code, said = case.check("multiclass", labels=labels)
        assert code == 0
        assert f"--ignoreValue {void}" in said
    assert case.check("multiclass", labels="labels_empty")[0] == 3


def test_a_plate_is_named_or_its_fields_are_images(make_case: MakeCase) -> None:
    case = make_case("zarr_plate")
    code, said = case.check("binary")
    assert code == 3
    assert "plate" in said
    assert "A/1/0" in said
    assert "copy" not in said
    code, said = case.check("binary", "{i:d+}.ome.zarr/{row:c}/{column:d}/{field:d}", "{i:d+}.tif")
    assert code == 0, said
    assert (case.store.image(0)[0] == case.scene(0, 96, 80)[0]).all()


def test_masks_have_the_pixel_size_and_the_times_of_their_images(make_case: MakeCase, undisturbed: Undisturbed) -> None:
    case = make_case("calibration")
    masks = case.folder / "masks"
    words = (f"--model={undisturbed[0]}", f"--imagesDir={case.folder / 'images'}", f"--outputDir={masks}")
    code, said = case.run("predict", *words, "--device=cpu")
    assert code == 0, said
    described = {path.name: tifffile.TiffFile(path).ome_metadata or "" for path in masks.iterdir()}
    for name in ("ome.ome.tif", "ij.ome.tif"):
        assert 'PhysicalSizeX="0.325"' in described[name]
        assert 'PhysicalSizeXUnit="µm"' in described[name]
    assert 'SizeT="3"' in described["series.ome.tif"]
    assert 'SizeZ="1"' in described["series.ome.tif"]


@pytest.mark.slow
def test_a_clone_in_the_working_folder_is_not_imported(make_case: MakeCase, monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case("cwd_shadows_packages")
    monkeypatch.chdir(case.folder)
    program = Path(sys.executable).with_name("tune-smp")
    words = ("train", "--imagesDir=images", "--labelsDir=labels", "--imagesPattern=.*", "--labelsPattern=.*")
    more = ("--segmentationMode=binary", "--encoderBaseVariantWeights=MobileNet,timm-mobilenetv3_small_100,random")
    short = ("--tileSize=64", "--maxEpochs=1", "--batchSize=4", "--outputDir=out", "--dashboard=false")
    done = subprocess.run([program, *words, *more, *short], capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (case.folder / "out" / "model" / "model.safetensors").is_file()
