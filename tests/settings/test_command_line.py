"""From words to settings."""

from __future__ import annotations

import pytest

from tests.flags import REQUIRED
from tune_smp.errors import Problem, SettingsError
from tune_smp.settings.command_line import help_text, settings_from
from tune_smp.settings.commands import DemoSettings, FetchWeightsSettings, ShowSettings
from tune_smp.settings.fields import flags_of
from tune_smp.settings.predict import PredictSettings
from tune_smp.settings.run import RunSettings


def run(*words: str) -> RunSettings:
    return settings_from(RunSettings, [*(f"--{name}={value}" for name, value in REQUIRED.items()), *words])


def refusal(*words: str) -> tuple[Problem, ...]:
    with pytest.raises(SettingsError) as caught:
        run(*words)
    return caught.value.problems


@pytest.mark.parametrize("words", [["--batchSize=4"], ["--batchSize", "4"]])
def test_both_ways_to_write_a_value(words: list[str]) -> None:
    assert run(*words).batch_size == 4


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["--overwrite"], True),
        (["--overwrite", "true"], True),
        (["--overwrite=false"], False),
        (["--overwrite", "no"], False),
        (["--overwrite", "--seed", "3"], True),
        ([], False),
    ],
)
def test_switches(words: list[str], value: bool) -> None:
    assert run(*words).overwrite is value


def test_a_default_that_is_on_can_be_switched_off() -> None:
    assert run().dashboard
    assert not run("--dashboard", "false").dashboard


@pytest.mark.parametrize(
    "value", ["-x", "-1", "-1e-4", "--x", "-- x", "a b", "a=b", "'", '"', "$(x)", "<script>", "%s", "ü"]
)
def test_values_with_odd_characters(value: str) -> None:
    assert run(f"--imagesPattern={value}").images_pattern == value
    if not value.startswith("--"):
        assert run("--imagesPattern", value).images_pattern == value


def test_a_negative_number_is_a_value() -> None:
    (only,) = refusal("--minDelta", "-1e-4")
    assert only.problem == "--minDelta must be a number >= 0, got -1e-4"


def test_the_last_of_two_wins() -> None:
    assert run("--seed", "1", "--seed", "2").seed == 2


def test_no_abbreviations() -> None:
    (only,) = refusal("--batch", "4")
    assert only.problem == "--batch is not a flag of tune-smp train"
    assert "did you mean '--batchSize'?" in only.fix


@pytest.mark.parametrize("words", [["--batchSize"], ["--batchSize", "--seed", "1"]])
def test_a_flag_without_its_value(words: list[str]) -> None:
    (only,) = refusal(*words)
    assert only.problem == "--batchSize needs a value"
    assert "--batchSize=VALUE" in only.fix


def test_unknown_flags_stray_words_and_wrong_values_at_once() -> None:
    problems = refusal("stray", "--patience", "0", "--foo", "its value", "--bar=3", "another", "--baz")
    told = "\n".join(map(str, problems))
    assert len(problems) == 6
    for words in (
        "'stray' belongs to no flag",
        "'another' belongs to no flag",
        "--patience must be a whole number >= 1, got 0",
        "--foo is not a flag",
        "--bar is not a flag",
        "--baz is not a flag",
    ):
        assert words in told
    assert "its value" not in told


@pytest.mark.parametrize("settings", [RunSettings, PredictSettings, DemoSettings])
def test_help_tells_everything(settings: type[RunSettings | PredictSettings | DemoSettings]) -> None:
    told = " ".join(help_text(settings, "what it does").split())
    assert "what it does" in told
    for flag in flags_of(settings):
        assert f"{flag.about.group}:" in told
        assert f"{flag.option} " in told
        # The text is wrapped at hyphens too.
        for words in (flag.description, flag.range, flag.about.unit, *flag.choices, flag.default):
            assert words.replace("- ", "-") in told.replace("- ", "-"), flag.name


@pytest.mark.parametrize(
    "words",
    [
        ["encoders", "VGG", "--json"],
        ["encoders", "--json", "VGG"],
        ["--json", "encoders", "VGG"],
        ["--json=true", "encoders", "VGG"],
        ["encoders", "--json", "yes", "VGG"],
    ],
)
def test_words_stand_anywhere_among_the_flags(words: list[str]) -> None:
    chosen = settings_from(ShowSettings, words)
    assert (chosen.subject, chosen.name, chosen.json_output) == ("encoders", "VGG", True)


def test_as_many_words_as_are_wanted() -> None:
    assert settings_from(FetchWeightsSettings, ["a", "--debug", "b"]).names == ("a", "b")


@pytest.mark.parametrize(
    ("words", "problems"),
    [
        ([], ["SUBJECT is required"]),
        (["losses", "x"], ["there is no part of the losses to show, got 'x'"]),
        (["encoders", "a", "b"], ["'b' belongs to no flag"]),
        (["--jsn", "encoders", "losses"], ["--jsn is not a flag of tune-smp show"]),
        (["losses", "--subject", "encoders"], ["--subject is not a flag of tune-smp show"]),
        (["losses", "--foo", "a b"], ["--foo is not a flag of tune-smp show"]),
        (["encodrs"], ["SUBJECT has no choice 'encodrs'"]),
    ],
)
def test_words_that_are_missing_or_too_many(words: list[str], problems: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        settings_from(ShowSettings, words)
    assert [problem.problem for problem in caught.value.problems] == problems
