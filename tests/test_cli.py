"""The door: exit codes, the form of messages, and how fast they come."""

from __future__ import annotations

import errno
import json
import logging
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tune_smp import __version__, cli
from tune_smp.choices.catalogue import AT_A_GLANCE, CATALOGUE
from tune_smp.cli import COMMANDS, Command, main
from tune_smp.errors import InterruptedRunError, Problem

HEAVY = ("torch", "ray", "numpy", "rich", "optuna", "segmentation_models_pytorch")

WRONG_USAGE = [
    [],
    ["trian"],
    ["train"],
    ["train", "--batchSize", "0", "--bogus", "1"],
    ["train", "--batchSize"],
    ["predict", "--model", "x"],
    ["check", "--modelName", "Unet"],
    ["demo", "--outputDir"],
    ["resume"],
    ["resume", "/no/such/folder"],
    ["resume", "a", "b"],
    ["resume", "--outputDir", "a"],
    ["show"],
    ["show", "encodrs"],
    ["show", "losses", "--csv"],
]


def words_of(value: list[str]) -> str:
    return " ".join(value) or "nothing"


def good_flags(folder: Path) -> list[str]:
    """Flags of ``train`` that are right but for the folders, which do not exist."""
    return [
        f"--imagesDir={folder / 'images'}",
        f"--labelsDir={folder / 'labels'}",
        "--imagesPattern=.*",
        "--labelsPattern=.*",
        "--segmentationMode=binary",
        f"--outputDir={folder / 'out'}",
    ]


@pytest.mark.parametrize("words", WRONG_USAGE, ids=words_of)
def test_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("problem: ")
    assert "\nfix:     " in err
    assert "Traceback" not in err


def test_flags_without_a_command_are_those_of_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A container that WIPP starts is given nothing else."""
    assert main([*good_flags(tmp_path), "--lossName=DiceLos"]) == 2
    err = capsys.readouterr().err
    assert "--lossName has no choice 'DiceLos'" in err
    assert "has no command" not in err


def test_nearest_command_and_subject(capsys: pytest.CaptureFixture[str]) -> None:
    main(["trian"])
    main(["show", "encodrs"])
    err = capsys.readouterr().err
    assert "did you mean 'train'? one of: train, search, resume" in err
    assert "did you mean 'encoders'? one of: architectures, encoders" in err


def test_folders_are_looked_at_before_anything_is_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").touch()
    assert main(["train", *good_flags(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert f"problem: --imagesDir: no such folder\nwhere:   {tmp_path / 'images'}\nfix:     pass --imagesDir" in err
    assert f"problem: --outputDir: a file, not a folder\nwhere:   {tmp_path / 'out'}\nfix:     pass --outputDir" in err
    assert err.count("problem: ") == 3


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--debug"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert "problem: --imagesDir is required" in err


@pytest.mark.parametrize("words", [["--debug", "false"], ["--debug=false"], ["--debug=False"]], ids=words_of)
def test_debug_may_be_false(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *words]) == 2
    assert capsys.readouterr().err.startswith("problem: --imagesDir is required")


def test_a_slip_of_the_pen_comes_before_what_is_missing_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *good_flags(tmp_path)[1:], "--imageDir", str(tmp_path)]) == 2
    problems = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("where")]
    assert problems[0] == "problem: --imageDir is not a flag of tune-smp train"
    assert problems[1].startswith("fix:     did you mean '--imagesDir'?")
    assert "problem: --imagesDir is required" in problems


@pytest.mark.parametrize("command", list(COMMANDS))
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_of_every_command(command: str, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, flag]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"usage: tune-smp {command}")
    assert err == ""


def test_the_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"tune-smp {name} " in out and command.summary in out for name, command in COMMANDS.items())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tune-smp {__version__}\n"


@pytest.mark.parametrize("subject", [subject for subject in CATALOGUE if subject not in AT_A_GLANCE])
def test_show(subject: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", subject, "--json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert main(["show", subject]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert set(head.split()) == set(records[0])
    assert len(rows) == len(records)
    assert all(record["name"] in row for record, row in zip(records, rows, strict=True))


def test_show_architectures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "architectures", "--json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert main(["show", "architectures"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert len(rows[: rows.index("")]) == len(records)
    for record, row in zip(records, rows, strict=False):
        assert row.startswith(f"{record['name']} ")
        assert f" {record['divisor']} " in row
        assert record["summary"] in row
        assert row.endswith(", ".join(record["not_with"]) or "-")
    unet, linknet = (next(row for row in rows if row.startswith(f"{name} ")) for name in ("Unet", "Linknet"))
    assert " 3-5 " in unet
    assert " 256 /8 " in unet
    assert " 256 " not in linknet
    assert all(word in "\n".join(rows[rows.index("") :]) for word in ("divides", "smallest", "depth", "width"))
    assert head.split()[0] == "name"


def test_show_encoders(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "encoders", "--json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert main(["show", "encoders"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["family,variant", "M", "stride", "px", "weights", "not_with"]
    assert len(rows[: rows.index("")]) == len(records)
    for record, row in zip(records, rows, strict=False):
        assert row.split()[0] == f"{record['family']},{record['name']}"
        assert f" {record['smp_name']} " in row or record["smp_name"] == record["name"]
        assert ", ".join(record["weights"]) in row
        assert row.endswith(", ".join(record["not_with"]) or "-")
    # One line each for programs; what a word of the table means stands below it.
    assert all(word in "\n".join(rows[rows.index("") :]) for word in head.split()[1:4])


def test_show_one_family(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "encoders", "vgg", "--json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert len(records) == 8
    assert {record["family"] for record in records} == {"VGG"}
    assert main(["show", "encoders", "ResNot"]) == 2
    err = capsys.readouterr().err
    assert "there is no family 'ResNot' of encoders" in err
    assert "did you mean 'ResNet'? one of: ResNet, ResNeXt" in err


@pytest.mark.parametrize("subject", [*CATALOGUE, "spaces"])
@pytest.mark.parametrize("columns", [104, 120])
def test_tables_fit_a_terminal(
    subject: str, columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["show", subject]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= columns


def test_how_endings_become_exit_codes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    endings: list[tuple[BaseException, int, str]] = [
        (InterruptedRunError(Problem("interrupted", fix="tune-smp resume x")), 130, "fix:     tune-smp resume x"),
        (KeyboardInterrupt(), 130, "problem: interrupted"),
        (OSError(errno.ENOSPC, "No space left on device", "/full/x"), 5, "where:   /full/x"),
        (OSError(errno.EIO, "Input/output error", "/x"), 1, "problem: OSError: [Errno 5] Input/output error: '/x'"),
        (ZeroDivisionError("division by zero"), 1, "problem: ZeroDivisionError: division by zero"),
    ]
    for ending, code, words in endings:

        def end(_: object, ending: BaseException = ending) -> None:
            raise ending

        monkeypatch.setitem(cli.COMMANDS, "end", cli.Command("", end))
        assert main(["end"]) == code
        err = capsys.readouterr().err
        assert words in err
        assert "Traceback" not in err


@pytest.mark.parametrize(("level", "told"), [("INFO", ["info", "warning"]), ("error", []), ("", ["warning"])])
def test_the_log_level(
    level: str, told: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def log(_: object) -> None:
        logger = logging.getLogger("tune_smp.room")
        logger.debug("a debug line")
        logger.info("an info line")
        logger.warning("a warning line")
        logger.error("an exception line", exc_info=ValueError("secret traceback"))

    monkeypatch.setenv("POLUS_LOG", level)
    monkeypatch.setitem(cli.COMMANDS, "log", cli.Command("", log))
    handlers = list(logging.getLogger().handlers)
    assert main(["log"]) == 0
    err = capsys.readouterr().err
    assert [word for word in ("debug", "info", "warning") if f" {word} line" in err] == told
    assert "secret traceback" not in err, "tracebacks go to logs/"
    assert logging.getLogger().handlers == handlers, "nothing is left behind"


def test_a_wrong_log_level_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("POLUS_LOG", "LOUD")
    assert main(["--version"]) == 0
    assert "POLUS_LOG is 'LOUD', not one of DEBUG, INFO, WARNING, ERROR, CRITICAL" in capsys.readouterr().err


def test_the_reader_may_go_away() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tune_smp", "show", "encoders", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        program.stdout.read(10)
        program.stdout.close()
        assert program.stderr.read() == b""
        assert program.wait() == 0


def test_file_names_that_are_not_text(tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/\xff\n;$(x)"
    words = [b"--imagesDir=" + odd, *map(os.fsencode, good_flags(tmp_path)[1:])]
    finished = subprocess.run([sys.executable, "-m", "tune_smp", "train", *words], capture_output=True, check=False)
    assert finished.returncode == 2
    assert rb"\udcff\n;$(x)" in finished.stderr
    assert finished.stderr.count(b"problem: ") == 2


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["train", "--help"],
        ["predict", "--help"],
        ["train", "--patience", "-1"],
        ["show", "encoders"],
        ["search", "--help"],
    ],
    ids=words_of,
)
def test_answers_at_once(words: list[str]) -> None:
    """In half a second of CPU time; on a machine that takes more than a third of that to start with numpy and pydantic,
    in three times as long as that."""

    def seconds(*program: str) -> float:
        """Of CPU time: what a busy machine adds to the wall clock is not the program's."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *program], capture_output=True, check=False, timeout=10)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    least = min(seconds("-m", "tune_smp", *words) for _ in range(3))
    assert least < 0.5 or least < 3 * min(seconds("-c", "import numpy, pydantic") for _ in range(3))


@pytest.mark.parametrize(
    "words", [["--help"], ["train", "--help"], ["train", "--patience", "-1"], ["folders"]], ids=words_of
)
def test_nothing_heavy_is_loaded_for_an_answer(words: list[str], tmp_path: Path) -> None:
    words = ["train", *good_flags(tmp_path)] if words == ["folders"] else words
    program = f"""
import sys
from tune_smp.cli import main
main({words!r})
sys.exit(str([name for name in {HEAVY!r} if name in sys.modules]))
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert finished.stderr.splitlines()[-1] == "[]"


def test_an_exit_with_words_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def leave(_: object) -> None:
        raise SystemExit("a library gave up")

    monkeypatch.setattr("tune_smp.cli.COMMANDS", {"show": Command("", leave)})
    assert main(["show", "losses"]) == 1
    assert capsys.readouterr().err == "a library gave up\n"
