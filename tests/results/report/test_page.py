"""report.html: what it says, that it needs nothing from outside, and that nothing in a folder can break it."""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.results.report.html_page import FINAL, Page, example, read
from tune_smp.results.folder import RunFolder, read_csv, read_json, write_csv, write_json
from tune_smp.results.leaderboard import write_trials
from tune_smp.results.report.facts import gather
from tune_smp.results.report.figures import MOST_CURVES
from tune_smp.results.report.page import write_page
from tune_smp.tuning.space_file import parse_space
from tune_smp.tuning.space_records import as_json

MakeFolder = Callable[..., RunFolder]


# What it says


def test_a_search_is_told_by_its_best_and_what_that_gained(make_search: MakeFolder) -> None:
    folder = make_search(best_metric=0.8123, default_metric=0.7, evaluated_metric=0.8119)
    page = read(folder)
    text = page.text()
    assert page.text("h1", "span") == "finishedIoU 0.8123 trial 7, epoch 8"
    assert "+0.1123 against the default configuration (trial 0), which reached 0.7000." in text
    assert "chosen on the same 2 validation images" in text
    assert "48" in page.text("dd")
    assert "0.8119" in page.text("dd")
    assert "PED-ANOVA" in text
    assert "80 %" in page.text("td")
    assert "out of memory" in text
    assert "Search space: quick" in page.text("summary")
    assert "0.0001 to 0.03 (log)" in page.text("td")
    assert {figure["aria-label"].split()[0] for figure in page.of("svg") if "aria-label" in figure} == {
        "Best",
        "Validation",
    }
    assert "tune-smp train --seed 3" in page.text("pre")
    assert "resume" not in page.text("pre")


@pytest.mark.parametrize(
    ("thresholds", "shown"),
    [({"foreground": 0.421875}, "0.42"), ({"nucleus": 0.5, "boundary": 0.25}, "nucleus: 0.50, boundary: 0.25")],
)
def test_thresholds_stand_beside_the_score_at_a_half(
    make_search: MakeFolder, thresholds: dict[str, float], shown: str
) -> None:
    page = read(make_search(best_metric=0.8123, metric_at_half=0.7999, thresholds=thresholds))
    assert "IoU of pixels above the threshold 0.5" in page.text("dt")
    assert "0.7999" in page.text("dd")
    assert shown in page.text("dd")


def test_what_views_gain_is_a_table(make_train: MakeFolder) -> None:
    folder = make_train()
    assert "Test-time augmentation" not in read(folder).text("h2")
    presets = {
        name: {"metric": metric, "seconds_per_megapixel": seconds}
        for name, metric, seconds in (("none", 0.8, 0.5), ("flips", 0.8123, 1.95), ("all", 0.8125, 4.1))
    }
    measured = {"metric": "IoU", "images": 3, "device": "cpu", "recommended": "flips", "presets": presets}
    write_json(folder.model / "preprocessing.json", {"views": measured})

    page = read(folder)

    assert "Test-time augmentation" in page.text("h2")
    for cell in ("0.8000", "0.8123", "0.8125", "1.95", "3.9", "8.2"):
        assert cell in page.text("td")
    assert [row["class"] for row in page.of("tr") if row.get("class") == "best"] == ["best"]
    assert "Measured on 3 validation images on a cpu." in page.text("p")


@pytest.mark.parametrize(
    ("summary", "sentence"),
    [
        ({"best_trial": 0}, "No trial was better than the default configuration"),
        ({"default_metric": 0.9, "best_metric": 0.85, "best_trial": 7}, "−0.0500 against the default"),
    ],
)
def test_a_search_that_gained_nothing_says_so(make_search: MakeFolder, summary: dict[str, Any], sentence: str) -> None:
    assert sentence in read(make_search(**summary)).text()


def test_the_final_is_shown_with_how_sure_it_is(make_search: MakeFolder) -> None:
    page = read(make_search(final=FINAL, refit={"model": "/out/refit/model", "images": 12}))
    text = page.text()
    assert "trained again on 2 fresh seeds" in text
    assert "95 % interval over seeds and 8 validation images: +0.0100 to +0.0900." in text
    assert "trial 0, the default" in page.text("td")
    assert "0.8100, 0.7900" in page.text("td")
    assert "Expect about 0.8000, the mean of the final, on new images" in text
    assert "trained once more on all 12 labelled images" in text


@pytest.mark.parametrize(
    ("final", "words"),
    [
        ({**FINAL, "gain": {"mean": 0.05, "low": -0.01, "high": 0.09}}, "+0.0900: that may be chance."),
        ({**FINAL, "gain": None}, "the best in the mean was exported."),
        ({**FINAL, "standings": FINAL["standings"][::-1]}, "None was better than the default."),
    ],
)
def test_a_final_that_shows_little_says_so(make_search: MakeFolder, final: dict[str, Any], words: str) -> None:
    assert words in read(make_search(final=final)).text()


def test_the_default_that_won_the_final_is_the_default(make_search: MakeFolder) -> None:
    folder = make_search(best_trial=16, final=FINAL)
    rows = read_csv(folder.trials_csv)
    repeated = {**rows[0], "trial": 16, "state": "completed", "best_metric": 0.99, "finalist_of": 0}
    write_trials(folder, [*rows, repeated], searched=["learningRate", "modelName", "momentum"])
    page = read(folder)
    assert "No trial was better than the default configuration" in page.text()
    assert "Best trial and default" not in page.text("h2")
    assert "completed, repeats 0" in page.text("td")


def test_the_table_has_every_trial_and_marks_two(make_search: MakeFolder) -> None:
    page = read(make_search(20))
    rows = [attributes["class"] for attributes in page.of("tr") if "class" in attributes]
    assert (rows.count("best"), rows.count("default")) == (1, 1)
    of_table = {"best", "default", "completed", "pruned", "failed", "early_stopped", "diverged"}
    assert len([row for row in rows if row in of_table]) == 20
    cells = [float(cell["data-sort"]) for cell in page.of("td") if cell.get("data-sort", "").startswith("0.")]
    assert cells


def test_the_search_space_is_shown_as_its_file_asks(make_search: MakeFolder) -> None:
    space = parse_space(
        "fixed: {maxEpochs: 8}\nsearch:\n  optimizerName: [Adam, SGD]\n"
        "  momentum: {low: 0.5, high: 0.9, when: {optimizerName: [SGD]}}\n",
        name="mine.yaml",
    )
    folder = make_search()
    write_json(folder.settings, {**read_json(folder.settings), "space": as_json(space)})
    rows = read(folder).text("summary", "code", "td")
    assert "Search space: mine.yaml" in rows
    assert "optimizerNameAdam; SGDmomentum0.5 to 0.9, where optimizerName is SGDmaxEpochs8 (fixed)" in rows


def test_what_ran_is_shown_beside_what_was_asked_for(make_search: MakeFolder, make_train: MakeFolder) -> None:
    for folder in (make_search(), make_train()):
        page = read(folder)
        assert "What ran" in page.text("summary")
        assert "batchSize8devicecpulearningRate0.001" in page.text("td", "code")


@pytest.mark.parametrize("state", ["diverged", "failed"])
def test_an_unfinished_search_names_no_trial_in_trouble_as_best(make_search: MakeFolder, state: str) -> None:
    folder = make_search()
    rows = read_csv(folder.trials_csv)
    for row in rows:
        if row["trial"] == "3":
            row |= {"state": state, "best_metric": "0.9999", "epochs": "2"}
    write_csv(folder.trials_csv, rows)
    folder.summary.unlink()
    assert "trial 7" in read(folder).text("h1", "span")
    facts = gather(folder)
    assert facts.best_row is not None
    assert facts.best_row.number == 7


@pytest.mark.parametrize(
    ("scheduler", "legend"), [("asha", "pruned by ASHA"), ("median", "pruned by the median rule"), ("none", "")]
)
def test_the_legend_names_the_scheduler_that_pruned(make_search: MakeFolder, scheduler: str, legend: str) -> None:
    folder = make_search()
    record = read_json(folder.settings)
    record["settings"]["values"]["scheduler"] = scheduler
    write_json(folder.settings, record)
    text = read(folder).text()
    assert "ran to its end" in text
    assert ("pruned by" in text) == bool(legend)
    assert legend in text


def test_a_train_is_told_by_its_best_epoch(make_train: MakeFolder) -> None:
    folder = make_train()
    page = read(folder)
    assert page.text("span").startswith("finished early: the validation loss fell no more")
    assert page.text("span").endswith("IoU0.8123epoch 4")
    assert "best epoch: 4" in page.text("li")
    assert "the epoch shown as best was chosen on the same validation images" in page.text()
    lines = [data for tag, data in page.texts if tag == "pre"]
    words = shlex.split(lines[-1].replace("\\\n", ""))
    assert words == [
        *("tune-smp", "train", "--imagesDir", "/data/my images", "--imagesPattern", "r{r:d+}.tif"),
        *("--seed", "3", "--outputDir", "AGAIN"),
    ]


def test_what_is_not_finished_tells_how_to_go_on(make_search: MakeFolder) -> None:
    folder = make_search(name="it's here", state="interrupted")
    page = read(folder)
    (line,) = [data for tag, data in page.texts if tag == "pre" and "resume" in data]
    assert shlex.split(line) == ["tune-smp", "resume", str(folder.path)]
    assert "interrupted, can be resumed" in page.text()


def test_examples_are_shown_with_their_scores(make_train: MakeFolder) -> None:
    page = read(make_train(), (example(), example(caption="worst of 3", metric_value=0.1)))
    assert "worst of 3 · IoU 0.1000 r1.tif" in page.text("b", "span", "figcaption")
    assert len([image for image in page.of("img") if image["src"].startswith("data:image/png;base64,")]) == 4


# What it is made of


def test_the_same_folder_gives_the_same_bytes(make_search: MakeFolder) -> None:
    folder = make_search()
    first = write_page(folder, (example(),)).read_bytes()
    assert write_page(folder, (example(),)).read_bytes() == first


@pytest.fixture(params=["search", "train"])
def full(request: pytest.FixtureRequest, make_search: MakeFolder, make_train: MakeFolder) -> Page:
    folder = make_search() if request.param == "search" else make_train()
    return read(folder, (example(),))


def test_nothing_is_loaded_from_anywhere(full: Page, tmp_path: Path) -> None:
    loading = {"src", "href", "srcset", "action", "data", "poster", "background", "xlink:href", "style"}
    for tag, attributes in full.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form", "image")
        for name in loading & attributes.keys():
            assert attributes[name].startswith(("#", "data:image/png;base64,")), (tag, name)
        assert not [name for name in attributes if name.startswith("on")]
    (html,) = tmp_path.glob("*/report.html")
    assert not re.search(r"https?:|//cdn|@import|url\((?!#)", html.read_text(encoding="utf-8"))


def test_the_policy_lets_its_own_style_and_script_be_and_nothing_else(full: Page) -> None:
    (policy,) = [meta["content"] for meta in full.of("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    allowed = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert (allowed.pop("default-src"), allowed.pop("img-src")) == ("'none'", "data:")
    assert (allowed.pop("base-uri"), allowed.pop("form-action")) == ("'none'", "'none'")
    for tag in ("style", "script"):
        content = "".join(text for inside, text in full.texts if inside == tag)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert allowed.pop(f"{tag}-src") == f"'sha256-{digest}'"
    assert not allowed


def test_ids_are_unique_and_references_lead_somewhere(full: Page) -> None:
    ids = [attributes["id"] for _, attributes in full.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    references = [attributes["href"][1:] for _, attributes in full.elements if "href" in attributes]
    references += [attributes["clip-path"][5:-1] for _, attributes in full.elements if "clip-path" in attributes]
    assert references
    assert set(references) <= set(ids)


def test_a_thousand_trials_stay_small(make_search: MakeFolder) -> None:
    folder = make_search(1000)
    page = read(folder)
    assert folder.report.stat().st_size < 2e6
    (count,) = re.findall(r"(\d+) of 875 trials are drawn", page.text())
    assert MOST_CURVES <= int(count) <= MOST_CURVES + 2  # the best and the default are always among them
