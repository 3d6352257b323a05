"""The commands to type next, quoted for the shell."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from itertools import pairwise

from tune_smp.choices.states import trial_state
from tune_smp.results.report.facts import Facts, text
from tune_smp.results.report.numbers import setting

LONGEST_LINE = 100  # characters; longer ones are folded
# What is not repeated as it was: the place of the old run, and what only made room for it. The seed is always there.
_NOT_REPEATED = frozenset({"outputDir", "overwrite", "debug", "seed"})


@dataclass(frozen=True, slots=True)
class NextCommand:
    """A line for the shell, and what it is for."""

    purpose: str
    line: str


def next_commands(facts: Facts) -> tuple[NextCommand, ...]:
    """Predict with the model, resume what is not finished: those that apply."""
    where = str(facts.folder.path)
    commands = []
    if has_model(facts):
        pattern = text(facts.values.get("imagesPattern")) or ".*"
        flags = [("model", where), ("imagesDir", "IMAGES"), ("imagesPattern", pattern), ("outputDir", "MASKS")]
        commands.append(
            NextCommand("Segment other images, from a folder IMAGES to a folder MASKS", _line("predict", flags))
        )
    if not trial_state(facts.state).is_final:
        commands.append(NextCommand("Go on where this stopped", shlex.join(["tune-smp", "resume", where])))
    return tuple(commands)


def again(facts: Facts) -> str:
    """The command that trains the best trial, or this run, once more; empty where nothing is known of it."""
    return _folded(text(facts.summary.get("reproduce")) if facts.is_search else _train_again(facts))


def has_model(facts: Facts) -> bool:
    """Whether a model was exported."""
    return facts.folder.model.is_dir()


def _train_again(facts: Facts) -> str:
    """The flags that were given, and the seed, which decides the split and the weights."""
    if not facts.values:
        return ""
    pairs = [
        (flag, setting(facts.values[flag]))
        for flag in facts.given
        if flag in facts.values and flag not in _NOT_REPEATED
    ]
    seed = facts.values.get("seed")
    pairs += [("seed", setting(seed))] if seed is not None else []
    return _line("train", [*pairs, ("outputDir", "AGAIN")])


def _folded(line: str) -> str:
    """A long command with a flag on each line, for people and shells alike."""
    try:
        words = shlex.split(line)
    except ValueError:  # an open quote: whoever wrote it meant something else
        return line
    if len(line) <= LONGEST_LINE:
        return line
    flags = [place for place, word in enumerate(words) if word.startswith("--")]
    pieces = [words[start:end] for start, end in pairwise([0, *flags, len(words)])]
    return " \\\n  ".join(shlex.join(piece) for piece in pieces if piece)


def _line(command: str, pairs: list[tuple[str, str]]) -> str:
    words = ["tune-smp", command]
    for flag, value in pairs:
        # A value that begins with a dash would be read as a flag.
        words += [f"--{flag}={value}"] if value.startswith("-") else [f"--{flag}", value]
    return shlex.join(words)
