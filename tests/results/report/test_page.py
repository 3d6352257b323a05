"""report.html: what it says, that it needs nothing from outside, and that nothing in a folder can break it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tune_smp.results.folder import RunFolder, read_csv, read_json, write_csv, write_json
from tune_smp.results.leaderboard import write_trials
from tune_smp.results.report.facts import gather
from tune_smp.results.report.figures import MOST_CURVES
from tune_smp.results.report.page import write_page
from tune_smp.results.report.pictures import ExamplePicture
from tune_smp.tuning.space_file import parse_space
from tune_smp.tuning.space_records import as_json

MakeFolder = Callable[..., RunFolder]

HOSTILE = "<script>alert(1)</script> \"quoted\" 'it' $(rm -rf ~)\n;& $x^2$ – ü \u202e \udcff \x07 --flag"
VOID = {"meta", "img", "input", "br"}


class Page(HTMLParser):
    """The elements of a page, its text by the innermost element, and whether every element is closed."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self, *tags: str) -> str:
        found = [text for tag, text in self.texts if (tag in tags if tags else tag not in ("script", "style"))]
        return " ".join("".join(found).split())


def read(folder: RunFolder, examples: tuple[ExamplePicture, ...] = ()) -> Page:
    page = Page(write_page(folder, examples).read_text(encoding="utf-8"))
    assert page.open == []
    return page


def example(**changes: Any) -> ExamplePicture:
    mask = np.zeros((1, 20, 30), np.uint8)
    mask[:, 5:12, 5:20] = 1
    known = {"name": "r1.tif", "caption": "best of 3", "metric_name": "IoU", "metric_value": 0.9}
    return ExamplePicture(**{**known, "image": mask[0] * 90, "label": mask, "prediction": mask, **changes})


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
    ("summary", "sentence"),
    [
        ({"best_trial": 0}, "No trial was better than the default configuration"),
        ({"default_metric": 0.9, "best_metric": 0.85, "best_trial": 7}, "−0.0500 against the default"),
    ],
)
def test_a_search_that_gained_nothing_says_so(make_search: MakeFolder, summary: dict[str, Any], sentence: str) -> None:
    assert sentence in read(make_search(**summary)).text()


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


# What may be in a folder


def hostile(value: Any) -> Any:
    """The same with hostile text for every string, names of keys that the report knows aside."""
    if isinstance(value, dict):
        return {key: hostile(inner) for key, inner in value.items()} | {HOSTILE: HOSTILE}
    if isinstance(value, list):
        return [HOSTILE]
    return HOSTILE if isinstance(value, str) else value


def test_hostile_names_stay_text(make_search: MakeFolder) -> None:
    folder = make_search(name="a <b> & \"c\" 'd';$(e)\nf")
    for path in (folder.settings, folder.summary):
        content = {**hostile(read_json(path)), "command": "search"}
        if path == folder.summary:
            content |= {"class_iou": {HOSTILE: 0.5}, "importances": {HOSTILE: 0.5}, "reason": HOSTILE}
        path.write_text(json.dumps(content))
    row = {"state": HOSTILE, HOSTILE: HOSTILE, "reason": HOSTILE, "best_metric": 0.5}
    failed = {**row, "trial": 2, "state": "failed"}
    write_trials(folder, [{**row, "trial": 0}, {**row, "trial": 1}, failed], searched=[HOSTILE.replace("\udcff", "")])

    page = read(folder, (example(name=HOSTILE, caption=HOSTILE, metric_name=HOSTILE, remark=HOSTILE),))

    assert len(page.of("script")) == 1
    assert not page.of("b") or "<script>alert(1)</script>" in page.text("b")
    visible = HOSTILE.replace("\udcff", "\\udcff")
    for tag in ("td", "pre", "p", "h1", "figcaption", "span", "th", "summary"):
        inside = [text for within, text in page.texts if within == tag]
        assert any("<script>alert(1)</script>" in text for text in inside) == (tag not in ("h1", "figcaption")), tag
    assert [text for tag, text in page.texts if tag == "td" and text == visible]
    resume = [shlex.split(text) for tag, text in page.texts if tag == "pre" and text.startswith("tune-smp resume")]
    assert resume == [["tune-smp", "resume", str(folder.path)]]


FILES = ("settings.json", "summary.json", "trials.csv", "split.csv", "trials/histories/trial_00000.csv")
DAMAGE = ("missing", "empty", "half", "bytes", "folder", "wrong", "deep")


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how != "missing":
        damaged = {
            "empty": b"",
            "half": content[: len(content) // 2],
            "bytes": b"\xff\xfe\x00" + content,
            "wrong": b'["no object"]' if path.suffix == ".json" else b"other,columns\n1\n2,3,4\n",
            "deep": b"[" * 100_000,
        }
        path.write_bytes(damaged[how])


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_search_still_has_a_report(make_search: MakeFolder, file: str, how: str) -> None:
    folder = make_search(4)
    damage(folder.path / file, how)
    page = read(folder)
    told = "Left out, since they cannot be read" in page.text()
    assert told == (how in ("bytes", "folder", "deep", "empty", "half", "wrong")) or file.endswith(".csv")
    if how in ("bytes", "folder"):
        assert told
        assert file in page.text()


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("file", ["settings.json", "summary.json", "history.csv"])
def test_a_damaged_train_still_has_a_report(make_train: MakeFolder, file: str, how: str) -> None:
    folder = make_train()
    damage(folder.path / file, how)
    assert "tune-smp train" in read(folder).text("p")


def test_an_empty_folder_has_a_report(tmp_path: Path) -> None:
    page = read(RunFolder(tmp_path))
    assert "No score" in page.text("h1")
    assert "not at its end" in page.text("span")


def test_a_train_of_one_epoch_and_a_search_of_one_trial(make_train: MakeFolder, make_search: MakeFolder) -> None:
    assert read(make_train(1)).of("use")  # a marker where there is no line
    assert read(make_search(1)).of("use")


def test_a_search_without_success_tells_its_failures(make_search: MakeFolder) -> None:
    nothing = {"best_metric": None, "best_epoch": None, "best_trial": None, "default_metric": None, "model": None}
    folder = make_search(4, state="failed", importances={}, class_iou={}, **nothing)
    rows = [{"trial": n, "state": "failed", "reason": f"reason {n // 3}"} for n in range(4)]
    write_trials(folder, rows, searched=[])
    for path in folder.histories.iterdir():
        path.unlink()
    folder.model.rmdir()
    page = read(folder)
    text = page.text()
    assert "no trial succeeded" in text
    assert "No score" in text
    assert "No model was exported" in text
    assert "3 failed reason 0 0, 1, 2" in " ".join(text for tag, text in page.texts if tag == "td")
    assert "optimistic" not in text


junk = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_value_breaks_the_report(make_search: MakeFolder, tmp_path: Path, data: st.DataObject) -> None:
    folder = RunFolder(tmp_path / "search")
    if not folder.path.exists():
        make_search(4)
    originals = {path: path.read_text() for path in (folder.settings, folder.summary)}
    for path, text in originals.items():
        content = json.loads(text)
        for key in data.draw(st.lists(st.sampled_from(sorted(content)), max_size=3)):
            content[key] = data.draw(junk)
        write_json(path, json.loads(json.dumps(content).encode("utf-8", "replace")))
    cell = st.sampled_from(["", "nan", "-1", "1e300", "1e30", "x", "0.5", "7", "\x00", "$"])
    cells = [data.draw(st.lists(cell, min_size=5, max_size=5)) for _ in range(3)]
    head = "trial,state,learningRate,best_metric,reason"
    folder.trials_csv.write_text("\n".join([head, *(",".join(row) for row in cells)]), newline="")
    rows = [data.draw(st.lists(cell, min_size=3, max_size=3)) for _ in range(3)]
    folder.trial_history(7).write_text("\n".join(["epoch,val_iou,val_loss", *(",".join(row) for row in rows)]))
    try:
        read(folder)
    finally:
        for path, text in originals.items():
            path.write_text(text)


def test_no_environment_and_no_secret_is_told(make_search: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "hush-hush-4711")
    folder = make_search()
    content = read_json(folder.settings)
    write_json(folder.settings, {**content, "environment": {"SOME_TOKEN": "hush-hush-4711"}})
    write_page(folder)
    assert "hush-hush" not in folder.report.read_text()
