"""The door: a command line becomes settings, and settings become one call of `tune_smp.workflows`.

Nothing heavy is imported before the settings are valid and the folders are there, so that help and every usage error
answer at once.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import logging
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from tune_smp import __version__
from tune_smp.errors import Problem, ResourceError, SettingsError, TuneSmpError, nearest

if TYPE_CHECKING:
    from tune_smp.settings.base import Settings
    from tune_smp.settings.search import SearchSettings

AnySettings = TypeVar("AnySettings", bound="Settings")

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
DEFAULT_LOG_LEVEL = "WARNING"
INTERRUPTED = 130
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
UNEXPECTED = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code; ``argv`` comes without the program's name."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _have_a_home()
    try:
        with _logging_to_stderr(), _sigterm_as_ctrl_c():
            run, rest = _chosen(arguments)
            run(rest)
    except SystemExit as end:  # help was asked for and given, or a job of a cluster ended with this code
        return _failed(end.code, UNEXPECTED, arguments) if isinstance(end.code, str) else int(end.code or 0)
    except TuneSmpError as error:
        return _failed(str(error), error.exit_code, arguments)
    except KeyboardInterrupt:
        return _failed("problem: interrupted", INTERRUPTED, arguments)
    except BrokenPipeError:
        # The reader of our output went away (`| head`): nothing is wrong, but Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        return _failed_by_the_system(error, arguments)
    except Exception as error:  # noqa: BLE001 - the last border: users get a sentence, not a traceback
        return _failed(str(_unexpected(error)), UNEXPECTED, arguments)
    return 0


def _have_a_home() -> None:
    """Set HOME for a user without one, as docker does: libraries ask for it, and some would make a folder named ~."""
    try:
        Path.home()
    except RuntimeError:  # neither HOME nor a line in /etc/passwd
        os.environ["HOME"] = "/"


def _failed(message: str, exit_code: int, arguments: Sequence[str]) -> int:
    if _wants_tracebacks(arguments):
        traceback.print_exc()
    sys.stderr.write(message + "\n")
    return exit_code


def _wants_tracebacks(arguments: Sequence[str]) -> bool:
    """Whether --debug is there, alone or with a value that means yes; the last one counts."""
    wanted = False
    for word, following in itertools.zip_longest(arguments, arguments[1:], fillvalue=""):
        flag, equals, value = word.partition("=")
        if flag == "--debug":
            wanted = (value if equals else following).strip().lower() not in ("false", "0", "no", "off", "f", "n")
    return wanted


def _failed_by_the_system(error: OSError, arguments: Sequence[str]) -> int:
    if error.errno not in NO_SPACE:
        return _failed(str(_unexpected(error)), UNEXPECTED, arguments)
    problem = Problem(
        f"the disk takes no more: {error.strerror}",
        where=str(error.filename or ""),
        fix="free some space, then resume with: tune-smp resume OUTPUT_DIR",
    )
    return _failed(str(problem), ResourceError.exit_code, arguments)


def _unexpected(error: Exception) -> Problem:
    return Problem(f"{type(error).__name__}: {error}", fix="this is not your fault; --debug shows where it arose")


def _chosen(arguments: Sequence[str]) -> tuple[Callable[[Sequence[str]], None], Sequence[str]]:
    """Choose the command that the first word names, and the words for it.

    Raises SettingsError; SystemExit where help or the version was asked for, and given.
    """
    if not arguments:
        raise SettingsError(Problem("no command given", fix=f"tune-smp {'|'.join(COMMANDS)}, or tune-smp --help"))
    first, *rest = arguments
    if first in ("-h", "--help", "--version"):
        sys.stdout.write(f"tune-smp {__version__}\n" if first == "--version" else _overview())
        raise SystemExit(0)
    if first.startswith("--"):
        return _train, arguments  # WIPP hands a container nothing but flags
    if first not in COMMANDS:
        fix = f"{nearest(first, COMMANDS)}one of: {', '.join(COMMANDS)}"
        raise SettingsError(Problem(f"tune-smp has no command {first!r}", fix=fix))
    return COMMANDS[first].run, rest


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  tune-smp {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "Train segmentation models on folders of images and labels.",
            "",
            *lines,
            "",
            "tune-smp COMMAND --help lists the flags of a command; tune-smp --version; POLUS_LOG sets the log level.",
            "Flags without a command are those of train.",
            "",
        ]
    )


@contextlib.contextmanager
def _logging_to_stderr() -> Iterator[None]:
    """Show what tune-smp logs at the level of POLUS_LOG; what other packages log and warn of goes to logs/ alone."""
    wanted = os.environ.get("POLUS_LOG", "") or DEFAULT_LOG_LEVEL
    level = wanted.strip().upper() if wanted.strip().upper() in LOG_LEVELS else DEFAULT_LOG_LEVEL
    root, logger = logging.getLogger(), logging.getLogger("tune_smp")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.setLevel(level)
    # Errors reach the user as problems; their tracebacks go to logs/, and here only with --debug.
    handler.addFilter(lambda record: record.name.startswith("tune_smp") and not record.exc_info)
    root.addHandler(handler)
    logging.captureWarnings(True)
    previous = logger.level
    logger.setLevel(level)
    if wanted.strip().upper() not in LOG_LEVELS:
        logger.warning("POLUS_LOG is %r, not one of %s: %s is used", wanted, ", ".join(LOG_LEVELS), level)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        logger.setLevel(previous)
        root.removeHandler(handler)


@contextlib.contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """SIGTERM ends every command in order, as Ctrl-C does."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _train(arguments: Sequence[str]) -> None:
    from tune_smp.settings.run import RunSettings  # noqa: PLC0415 - imported when asked for, see the module's docstring

    settings = _settings(RunSettings, arguments)
    from tune_smp import workflows  # noqa: PLC0415 - torch

    workflows.train(settings)


def _search(arguments: Sequence[str]) -> None:
    from tune_smp.settings.search import SearchSettings  # noqa: PLC0415 - imported when asked for, see the docstring

    settings = _settings(SearchSettings, arguments)
    if settings.submit:
        _submit(settings)
        return
    from tune_smp import workflows  # noqa: PLC0415 - pydantic, rich

    workflows.search(settings)


def _submit(settings: SearchSettings) -> None:
    """Send the same command to the cluster, where it joins the Ray that it runs in; end with its exit code."""
    from tune_smp.settings.command_line import words_for  # noqa: PLC0415 - pydantic
    from tune_smp.tuning.submit import submit_and_follow  # noqa: PLC0415 - ray

    here = settings.with_changes(submit=False, address="auto")
    command = ["tune-smp", settings.command, *words_for(here)]
    code = submit_and_follow(command, address=str(settings.address), write=_print_line)
    if code:
        raise SystemExit(code)


def _print_line(line: str) -> None:
    """A line of somebody else's log."""
    sys.stdout.write(line.rstrip("\n") + "\n")
    sys.stdout.flush()


def _predict(arguments: Sequence[str]) -> None:
    from tune_smp.settings.predict import PredictSettings  # noqa: PLC0415 - imported when asked for

    settings = _settings(PredictSettings, arguments)
    from tune_smp import workflows  # noqa: PLC0415 - torch

    workflows.predict(settings)


def _check(arguments: Sequence[str]) -> None:
    from tune_smp.settings.data import CheckSettings  # noqa: PLC0415 - imported when asked for

    settings = _settings(CheckSettings, arguments)
    from tune_smp import workflows  # noqa: PLC0415 - torch

    workflows.check(settings)


def _demo(arguments: Sequence[str]) -> None:
    from tune_smp.settings.commands import DemoSettings  # noqa: PLC0415 - imported when asked for

    settings = _settings(DemoSettings, arguments)
    from tune_smp.demo import demonstrate  # noqa: PLC0415 - torch

    demonstrate(settings.output_dir)


def _resume(arguments: Sequence[str]) -> None:
    from tune_smp.settings.search import DASHBOARD_FIELDS, ResumeSettings  # noqa: PLC0415 - imported when asked for

    settings = _settings(ResumeSettings, arguments)
    from tune_smp import workflows  # noqa: PLC0415 - pydantic, rich

    workflows.resume(
        settings.output_dir,
        num_trials=settings.num_trials,
        time_budget=settings.time_budget,
        **{name: getattr(settings, name) for name in DASHBOARD_FIELDS & settings.model_fields_set},
    )


def _report(arguments: Sequence[str]) -> None:
    from tune_smp.settings.commands import ReportSettings  # noqa: PLC0415 - imported when asked for

    settings = _settings(ReportSettings, arguments)
    from tune_smp import workflows  # noqa: PLC0415 - pydantic, rich

    workflows.report(settings.output_dir)


def _fetch_weights(arguments: Sequence[str]) -> None:
    from tune_smp.settings.commands import FetchWeightsSettings  # noqa: PLC0415 - imported when asked for

    settings = _settings(FetchWeightsSettings, arguments)
    from tune_smp import workflows  # noqa: PLC0415 - pydantic, rich

    workflows.fetch_weights(settings.names)


def _show(arguments: Sequence[str]) -> None:
    from tune_smp.choices import catalogue  # noqa: PLC0415 - imported when asked for
    from tune_smp.settings.commands import ENCODERS, SPACES, ShowSettings  # noqa: PLC0415

    settings = _settings(ShowSettings, arguments)
    above = ""
    if settings.subject == SPACES:
        above, records = _space_records(settings.name)
    elif settings.subject == ENCODERS:
        records = catalogue.encoder_records(settings.name)
    else:
        records = catalogue.CATALOGUE[settings.subject]()
    if settings.json_output:
        sys.stdout.write(json.dumps(records, indent=2) + "\n")
        return
    shorten, below = catalogue.AT_A_GLANCE.get(settings.subject, (list, ""))
    table = _table(shorten(records))
    sys.stdout.write("\n".join(part for part in (above and f"{above}\n", table, below and f"{below}\n") if part))


def _table(records: Sequence[Mapping[str, Any]]) -> str:
    from tune_smp.choices.columns import as_table  # noqa: PLC0415 - imported when asked for

    folds = sys.stdout.isatty() or "COLUMNS" in os.environ
    return as_table(records, width=shutil.get_terminal_size().columns if folds else None)


def _space_records(name: str | None) -> tuple[str, Sequence[Mapping[str, Any]]]:
    """The spaces that there are, or the description of one of them and all that it asks for."""
    from tune_smp.tuning.space_file import named_spaces, read_space  # noqa: PLC0415 - imported when asked for
    from tune_smp.tuning.space_records import describe  # noqa: PLC0415

    if name is not None:
        space = read_space(name)
        return space.description, describe(space)
    spaces = [read_space(name) for name in named_spaces()]
    return "", [{"name": row.name, "searches": list(row.searched), "description": row.description} for row in spaces]


def _settings(settings: type[AnySettings], arguments: Sequence[str]) -> AnySettings:
    """Valid settings with their folders looked at. Raises SettingsError; SystemExit where help was asked for."""
    from tune_smp.settings.command_line import help_text, settings_from  # noqa: PLC0415 - imports pydantic
    from tune_smp.settings.folders import check_folders  # noqa: PLC0415 - imports pydantic

    if "--help" in arguments or "-h" in arguments:
        sys.stdout.write(help_text(settings, COMMANDS[settings.command].summary))
        raise SystemExit(0)
    chosen = settings_from(settings, arguments)
    check_folders(chosen)
    return chosen


@dataclass(frozen=True, slots=True)
class Command:
    """One command: a line for the overview, and what runs it."""

    summary: str
    run: Callable[[Sequence[str]], None]


COMMANDS: Mapping[str, Command] = {
    "train": Command("train one fixed configuration", _train),
    "search": Command("search for the best model over architectures, encoders, optimizers, losses, numbers", _search),
    "resume": Command("OUTPUT_DIR: resume an interrupted train or search, in place", _resume),
    "predict": Command("exported model + images -> label images", _predict),
    "check": Command("look at a collection and say what is wrong with it, before anything is trained", _check),
    "report": Command("OUTPUT_DIR: (re)write report.html", _report),
    "show": Command("what can be chosen: architectures, encoders, losses, ...; as a table or --json", _show),
    "fetch-weights": Command("put encoder weights into the cache, for machines without a network", _fetch_weights),
    "demo": Command("all of it on synthetic data", _demo),
}
