"""Pairs come from variables or names, never from order; no file is lost without a word; no pattern hangs or crashes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import filepattern
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tune_smp.data.pairing.collection import find_images, find_pairs
from tune_smp.data.pairing.pairs import Collection
from tune_smp.errors import DataError, SettingsError


def folder_of(folder: Path, names: Sequence[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def paired(
    tmp_path: Path,
    images: Sequence[str],
    labels: Sequence[str],
    *,
    patterns: tuple[str, str] = (".*", ".*"),
    allow_unpaired: bool = False,
) -> Collection:
    return find_pairs(
        folder_of(tmp_path / "i", images),
        folder_of(tmp_path / "l", labels),
        images_pattern=patterns[0],
        labels_pattern=patterns[1],
        allow_unpaired=allow_unpaired,
    )


def names_of(collection: Collection) -> list[tuple[str, str]]:
    return [
        ("+".join(path.name for path in pair.images), "+".join(path.name for path in pair.labels))
        for pair in collection.pairs
    ]


def problems_of(tmp_path: Path, images: Sequence[str], labels: Sequence[str], patterns: tuple[str, str]) -> list[str]:
    with pytest.raises(DataError) as caught:
        paired(tmp_path, images, labels, patterns=patterns)
    return [str(problem) for problem in caught.value.problems]


class TestPairing:
    def test_by_the_variables_that_both_patterns_share(self, tmp_path: Path) -> None:
        collection = paired(
            tmp_path,
            ["r1_z1_c0.ome.tif", "r1_z1_c1.ome.tif", "r2_z1_c0.ome.tif", "r2_z1_c1.ome.tif"],
            ["z1.ome.tif"],
            patterns=("r{r:d+}_z{z:d+}_c{c}.ome.tif", "z{z:d+}.ome.tif"),
        )
        assert names_of(collection) == [
            ("r1_z1_c0.ome.tif+r1_z1_c1.ome.tif", "z1.ome.tif"),
            ("r2_z1_c0.ome.tif+r2_z1_c1.ome.tif", "z1.ome.tif"),
        ]
        assert (collection.channel_variable, collection.channel_values) == ("c", (0, 1))
        assert collection.pairs[1].variables == {"r": 2, "z": 1}

    def test_channels_are_stacked_by_value_not_by_name(self, tmp_path: Path) -> None:
        images = [f"i_{c}.tif" for c in (10, 9, 1)]
        collection = paired(tmp_path, images, ["l.tif"], patterns=("i_{c}.tif", "l.tif"))
        assert names_of(collection) == [("i_1.tif+i_9.tif+i_10.tif", "l.tif")]
        assert collection.channel_values == (1, 9, 10)

    def test_a_c_that_both_patterns_have_is_no_channel(self, tmp_path: Path) -> None:
        names = ["a_c1.tif", "a_c2.tif"]
        collection = paired(tmp_path, names, names, patterns=("a_c{c:d}.tif", "a_c{c:d}.tif"))
        assert names_of(collection) == [(name, name) for name in names]
        assert collection.channel_variable is None

    def test_a_variable_of_the_labels_alone_enumerates_classes(self, tmp_path: Path) -> None:
        labels = ["1_nucleus.tif", "1_edge.tif", "2_nucleus.tif", "2_edge.tif"]
        collection = paired(tmp_path, ["1.tif", "2.tif"], labels, patterns=("{i:d+}.tif", "{i:d+}_{k:c+}.tif"))
        assert names_of(collection) == [("1.tif", "1_edge.tif+1_nucleus.tif"), ("2.tif", "2_edge.tif+2_nucleus.tif")]
        assert (collection.class_variable, collection.class_values) == ("k", ("edge", "nucleus"))

    def test_numbers_match_whatever_their_zeros(self, tmp_path: Path) -> None:
        collection = paired(
            tmp_path, ["i_007.tif", "i_010.tif"], ["7.tif", "10.tif"], patterns=("i_{r:ddd}.tif", "{r:d+}.tif")
        )
        assert names_of(collection) == [("i_007.tif", "7.tif"), ("i_010.tif", "10.tif")]

    def test_by_equal_names_then_by_equal_stems(self, tmp_path: Path) -> None:
        collection = paired(
            tmp_path,
            ["a.tif", "b.ome.tif", "c.tif", "c.png", "d.tiff"],
            ["a.tif", "a.txt", "b.png", "c.tif", "c.ome.tiff", "d.PNG"],
            patterns=(".*", ".*[fgG]"),
        )
        assert names_of(collection) == [
            ("a.tif", "a.tif"),
            ("b.ome.tif", "b.png"),
            ("c.png", "c.ome.tiff"),
            ("c.tif", "c.tif"),
            ("d.tiff", "d.PNG"),
        ]
        assert collection.notes == ('1 files do not match --labelsPattern ".*[fgG]": a.txt',)

    @given(st.lists(st.integers(0, 10**6), min_size=1, max_size=12, unique=True), st.randoms())
    @settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_pairs_agree_in_their_numbers(
        self, tmp_path_factory: pytest.TempPathFactory, numbers: list[int], random: object
    ) -> None:
        root = tmp_path_factory.mktemp("pairs")
        images = [f"image_{number}.tif" for number in numbers]
        labels = [f"{number:08d}_mask.png" for number in reversed(numbers)]
        collection = paired(root, images, labels, patterns=("image_{n:d+}.tif", "{n:d+}_mask.png"))
        assert len(collection.pairs) == len(numbers)
        assert all(int(image[6:-4]) == int(label[:8]) for image, label in names_of(collection))

    def test_names_that_only_sorting_would_pair_are_refused(self, tmp_path: Path) -> None:
        images, labels = ["img_1.tif", "img_2.tif"], ["mask_1.tif", "mask_2.tif"]
        problems = problems_of(tmp_path, images, labels, (".*", ".*"))
        assert "2 of 2 images have no label" in problems[0]
        assert "2 of 2 labels have no image" in problems[1]
        assert "only their order would pair them (img_1.tif with mask_1.tif)" in problems[2]
        assert '--imagesPattern "img_{r:d+}.tif" --labelsPattern "mask_{r:d+}.tif"' in problems[2]

    def test_folder_conventions_of_wipp(self, tmp_path: Path) -> None:
        folder_of(tmp_path / "images", ["a.tif"])
        folder_of(tmp_path / "labels", ["a.tif"])
        collection = find_pairs(tmp_path, tmp_path, images_pattern=".*", labels_pattern=".*")
        assert collection.pairs[0].images == (tmp_path / "images" / "a.tif",)
        assert collection.pairs[0].labels == (tmp_path / "labels" / "a.tif",)

    def test_images_and_labels_in_one_folder(self, tmp_path: Path) -> None:
        folder_of(tmp_path, ["a_1.tif", "a_1_mask.tif", "a_2.tif", "a_2_mask.tif", "notes.txt"])
        collection = find_pairs(tmp_path, tmp_path, images_pattern="a_{i:d}.tif", labels_pattern="a_{i:d}_mask.tif")
        assert names_of(collection) == [("a_1.tif", "a_1_mask.tif"), ("a_2.tif", "a_2_mask.tif")]
        assert all(note.endswith(": notes.txt") for note in collection.notes)


class TestUnpaired:
    IMAGES = ("i_1.tif", "i_01.tif", "i_2.tif", "i_3.tif", "i_4.tif")
    LABELS = ("l_1.tif", "l_3.tif", "l_4.tif", "l_04.tif", "l_5.tif")
    PATTERNS = ("i_{r:d+}.tif", "l_{r:d+}.tif")

    def test_all_kinds_are_told_at_once(self, tmp_path: Path) -> None:
        lonely_image, lonely_label, two_images, two_labels = problems_of(
            tmp_path, self.IMAGES, self.LABELS, self.PATTERNS
        )
        assert "1 of 5 images have no label" in lonely_image
        assert 'i_2.tif  (imagesPattern "i_{r:d+}.tif", labelsPattern "l_{r:d+}.tif")' in lonely_image
        assert "or pass --allowUnpaired" in lonely_image
        assert "1 of 5 labels have no image" in lonely_label
        assert "l_5.tif" in lonely_label
        assert "i_01.tif and i_1.tif" in two_images
        assert "l_04.tif and l_4.tif" in two_labels

    def test_allowed_they_are_left_out_and_told(self, tmp_path: Path) -> None:
        collection = paired(tmp_path, self.IMAGES, self.LABELS, patterns=self.PATTERNS, allow_unpaired=True)
        assert names_of(collection) == [("i_3.tif", "l_3.tif")]
        assert [note.split(":")[0] for note in collection.notes] == ["left out"] * 4

    def test_ten_are_listed_and_the_rest_counted(self, tmp_path: Path) -> None:
        images = [f"i_{number:02d}.tif" for number in range(13)]
        (problem,) = problems_of(tmp_path, images, ["l_0.tif"], self.PATTERNS)
        assert "12 of 13 images" in problem
        assert "i_10.tif and 2 more" in problem

    def test_missing_channels_and_classes(self, tmp_path: Path) -> None:
        images = ["1_c0.tif", "1_c1.tif", "2_c0.tif", "3_c0.tif", "3_c1.tif"]
        labels = ["1_ka.tif", "1_kb.tif", "2_ka.tif", "2_kb.tif", "3_kb.tif"]
        patterns = ("{i:d}_c{c:d}.tif", "{i:d}_k{k:c}.tif")
        channel, label_class = problems_of(tmp_path, images, labels, patterns)
        assert "1 images have not every value of c (0, 1)" in channel
        assert "2_c0.tif" in channel
        assert "1 labels have not every value of k (a, b)" in label_class
        assert "3_kb.tif" in label_class
        collection = paired(tmp_path, images, labels, patterns=patterns, allow_unpaired=True)
        assert names_of(collection) == [("1_c0.tif+1_c1.tif", "1_ka.tif+1_kb.tif")]

    def test_two_stems_for_one_label(self, tmp_path: Path) -> None:
        (problem,) = problems_of(tmp_path, ["a.tif", "a.png"], ["a.jpg"], (".*", ".*"))
        assert "a.png and a.tif and a.jpg" in problem

    @pytest.mark.parametrize(
        ("patterns", "message"),
        [
            (("{i:d}.tif", "{k:d}.tif"), "share no variable"),
            (("{i:d}.tif", "{i:d}.{a:c}{b:c+}"), "at most one variable"),
        ],
    )
    def test_patterns_that_cannot_be_matched(self, tmp_path: Path, patterns: tuple[str, str], message: str) -> None:
        (problem,) = problems_of(tmp_path, ["1.tif", "2.tif"], ["1.tif", "2.tif"], patterns)
        assert message in problem

    def test_the_same_file_is_not_its_own_label(self, tmp_path: Path) -> None:
        folder_of(tmp_path, ["a.tif", "b.tif"])
        with pytest.raises(DataError, match=r"2 files are images and labels at once"):
            find_pairs(tmp_path, tmp_path, images_pattern=".*", labels_pattern=".*")

    def test_nothing_left_is_an_error_even_when_allowed(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no image has a label"):
            paired(tmp_path, ["a.tif"], ["b.tif"], allow_unpaired=True)


class TestPatterns:
    def test_no_match_names_examples_and_suggests(self, tmp_path: Path) -> None:
        names = [f"well {number} (x).tif" for number in range(8, 12)]
        image, label = problems_of(tmp_path, names, ["a.png", "bc.png"], ("r{r:d}.tif", "c{i}.tif"))
        assert "none of 4 file names matches the pattern of the images" in image
        assert "well 8 (x).tif" in image
        assert '--imagesPattern "well {r:d+} \\(x\\).tif"' in image
        assert '--labelsPattern "{r:c+}.png"' in label

    def test_a_suggestion_finds_everything(self, tmp_path: Path) -> None:
        names = [f"well {number} (x).tif" for number in range(8, 12)]
        collection = paired(tmp_path, names, names, patterns=("well {r:d+} \\(x\\).tif",) * 2)
        assert len(collection.pairs) == 4

    def test_digit_counts_that_lose_files_are_refused(self, tmp_path: Path) -> None:
        names = [f"r{number}.tif" for number in range(8, 13)]
        image, label = problems_of(tmp_path, names, names, ("r{r:d}.tif", "r{r:dd}.tif"))[:2]
        assert "3 images are left out" in image
        assert "r10.tif, r11.tif, r12.tif" in image
        assert 'use --imagesPattern "r{r:d+}.tif", or pass --allowUnpaired' in image
        assert "2 labels are left out" in label
        collection = paired(tmp_path, names, names, patterns=("r{r:d}.tif",) * 2, allow_unpaired=True)
        assert names_of(collection) == [("r8.tif", "r8.tif"), ("r9.tif", "r9.tif")]
        assert len(collection.notes) == 2

    @pytest.mark.parametrize(
        ("pattern", "found"),
        [
            ("r{r}.tif", ["r1.tif", "r10.tif", "r100.tif"]),
            ("r{r+}.tif", ["r1.tif", "r10.tif", "r100.tif"]),
            ("r{row}.tif", ["r1.tif", "r10.tif", "r100.tif"]),
            ("r(?P<r>[0-9]+).tif", ["r1.tif", "r10.tif", "r100.tif"]),
            ("r(1)(0*).tif", ["r1.tif", "r10.tif", "r100.tif"]),
            (r"r\d\d?\.tif", ["r1.tif", "r10.tif"]),
            ("r[0-9][0-9].tif", ["r10.tif"]),
        ],
    )
    def test_the_pattern_language(self, tmp_path: Path, pattern: str, found: list[str]) -> None:
        folder_of(tmp_path, ["r1.tif", "r10.tif", "r100.tif"])
        assert [group.name for group in find_images(tmp_path, images_pattern=pattern)] == found

    @pytest.mark.parametrize("pattern", ["r{r:ddd}.tif", "r{rrr}.tif"])
    def test_counted_digits(self, tmp_path: Path, pattern: str) -> None:
        folder_of(tmp_path, ["r100.tif", "rabc.tif"])
        (group,) = find_images(tmp_path, images_pattern=pattern)
        assert (group.name, group.variables) == ("r100.tif", {"r": 100})

    def test_a_dot_is_a_dot_unless_nothing_else_matches(self, tmp_path: Path) -> None:
        collection = paired(tmp_path, ["a1.tif", "a2xtif"], ["a1.tif"], patterns=("a{i:d}.tif",) * 2)
        assert names_of(collection) == [("a1.tif", "a1.tif")]
        assert collection.notes == ('1 files do not match --imagesPattern "a{i:d}.tif": a2xtif',)
        collection = paired(tmp_path / "2", ["a_1.tif"], ["a-1.tif"], patterns=("a.{i:d}.tif",) * 2)
        assert names_of(collection) == [("a_1.tif", "a-1.tif")]

    @given(
        st.lists(
            st.builds("{}_{}{}.tif".format, st.integers(0, 120), st.sampled_from("abXYZ"), st.integers(0, 9)),
            min_size=1,
            max_size=15,
            unique=True,
        ),
        st.sampled_from(["{i:d+}_{w:c}{k:d}.tif", "{i:dd}_{w:c+}{k:d+}.tif", "{i:d}_.*{k:d}.tif", "[0-9]+_{w:c}.*"]),
    )
    @settings(max_examples=25, deadline=None)
    def test_values_are_those_that_filepattern_finds(
        self, tmp_path_factory: pytest.TempPathFactory, names: list[str], pattern: str
    ) -> None:
        folder = folder_of(tmp_path_factory.mktemp("images"), names)
        theirs = {
            Path(str(paths[0])).name: dict(values)
            for values, paths in filepattern.FilePattern(str(folder), pattern, suppress_warnings=True)()
        }
        try:
            groups = find_images(folder, images_pattern=pattern)
        except DataError:
            # Files that only the digit counts leave out are an error here, and a loss there.
            assert len(theirs) < len(names)
            return
        assert {group.name: dict(group.variables) for group in groups} == theirs

    @pytest.mark.parametrize(
        "pattern",
        [
            "",
            "r{r:d.tif",
            "r}.tif",
            "{r:x}.tif",
            "{}.tif",
            "{r:+}.tif",
            "r(.tif",
            "/{r:d}.tif",
            "a//{r:d}.tif",
            "a/",
            "../{r:d}.tif",
            "{r:d}{r:d}",
            "x" * 1001,
        ],
    )
    def test_patterns_that_cannot_be_read_are_named(self, tmp_path: Path, pattern: str) -> None:
        with pytest.raises(SettingsError, match=r"(?s)file pattern cannot be read.*--imagesPattern"):
            paired(tmp_path, ["a.tif"], ["a.tif"], patterns=(pattern, ".*"))

    def test_a_pattern_that_backtracks_for_ever_ends(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tune_smp.data.pairing.name_matching.MATCHING_SECONDS", 1.0)
        started = time.monotonic()
        with pytest.raises(SettingsError, match=r"(?s)takes too long.*--imagesPattern"):
            paired(tmp_path, ["a" * 60 + ".tif"], ["a.tif"], patterns=("(a|aa)+$", ".*"))
        assert time.monotonic() - started < 30

    def test_ten_thousand_files_take_seconds(self, tmp_path: Path) -> None:
        names = [f"plate1_r{row}_c{column}.ome.tif" for row in range(100) for column in range(100)]
        folder_of(tmp_path / "i", names)
        folder_of(tmp_path / "l", names)
        started = time.monotonic()
        collection = find_pairs(
            tmp_path / "i",
            tmp_path / "l",
            images_pattern="plate1_r{r:d+}_c{c:d+}.ome.tif",
            labels_pattern="plate1_r{r:d+}_c{c:d+}.ome.tif",
        )
        assert len(collection.pairs) == 10_000
        assert time.monotonic() - started < 30


class TestImagesAlone:
    def test_channels_are_stacked_as_in_training(self, tmp_path: Path) -> None:
        folder_of(tmp_path, ["1_c1.tif", "1_c10.tif", "1_c2.tif", "2_c1.tif", "2_c10.tif", "2_c2.tif"])
        groups = find_images(tmp_path, images_pattern="{i:d}_c{c:d+}.tif", channel_variable="c")
        assert [[path.name for path in group.paths] for group in groups] == [
            ["1_c1.tif", "1_c2.tif", "1_c10.tif"],
            ["2_c1.tif", "2_c2.tif", "2_c10.tif"],
        ]
        alone = find_images(tmp_path, images_pattern="{i:d}_c{c:d+}.tif")
        assert [len(group.paths) for group in alone] == [1] * 6

    def test_other_channels_than_those_of_training_are_named(self, tmp_path: Path) -> None:
        folder_of(tmp_path, ["1_c2.tif", "1_c3.tif"])
        arguments = {"images_pattern": "{i:d}_c{c:d+}.tif", "channel_variable": "c"}
        assert len(find_images(tmp_path, **arguments, channel_values=(2, 3))) == 1
        with pytest.raises(DataError, match=r"trained on c = 1, 2; the images have c = 2, 3"):
            find_images(tmp_path, **arguments, channel_values=(1, 2))

    def test_a_missing_channel_is_named(self, tmp_path: Path) -> None:
        folder_of(tmp_path, ["1_c1.tif", "1_c2.tif", "2_c1.tif"])
        with pytest.raises(DataError, match=r"(?s)not every value of c.*2_c1\.tif"):
            find_images(tmp_path, images_pattern="{i:d}_c{c:d+}.tif", channel_variable="c")

    def test_lost_digits_are_named(self, tmp_path: Path) -> None:
        folder_of(tmp_path, ["9.tif", "10.tif"])
        with pytest.raises(DataError, match=r'(?s)10\.tif.*"{i:d\+}\.tif"'):
            find_images(tmp_path, images_pattern="{i:d}.tif")


@pytest.mark.parametrize(
    ("name", "images_pattern", "labels_pattern", "count"),
    [
        ("nuclei-binary", "nuclei_{i:ddd}.tif", "nuclei_{i:ddd}_mask.tif", 200),
        ("nuclei-multiclass", "nuclei_{i:ddd}.tif", "nuclei_{i:ddd}_mask.tif", 100),
        ("nuclei-multilabel", "nuclei_{i:ddd}.ome.tif", "nuclei_{i:ddd}_mask.ome.tif", 100),
        ("membrane-binary", "membrane_z{z:dd}.tif", "membrane_z{z:dd}.tif", 21),
        ("camvid-multiclass", "camvid_{i:ddd}.tif", "camvid_{i:ddd}.tif", 120),
        ("camvid-multiclass", ".*", ".*", 120),
    ],
)
def test_real_collections(shared_data: Path, name: str, images_pattern: str, labels_pattern: str, count: int) -> None:
    collection = find_pairs(
        shared_data / name, shared_data / name, images_pattern=images_pattern, labels_pattern=labels_pattern
    )
    assert len(collection.pairs) == count
    assert collection.notes == ()
    pair = collection.pairs[-1]
    assert tifffile.imread(pair.images[0]).shape[:2] == np.shape(tifffile.imread(pair.labels[0]))[-2:]
