"""report.html of a folder that holds anything: hostile names, damaged files, nothing at all."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.results.report.html_page import FINAL, example, read
from tune_smp.results.folder import RunFolder, read_json, write_json
from tune_smp.results.leaderboard import write_trials
from tune_smp.results.report.page import write_page

MakeFolder = Callable[..., RunFolder]


HOSTILE = "<script>alert(1)</script> \"quoted\" 'it' $(rm -rf ~)\n;& $x^2$ – ü \u202e \udcff \x07 --flag"


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
        make_search(4, final=FINAL, refit={"model": "refit/model", "images": 9})
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
