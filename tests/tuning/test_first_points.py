"""The points that a search begins with: the plain default, and those of an earlier search."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.flags import REQUIRED
from tune_smp.settings.run import RunSettings
from tune_smp.tuning.first_points import MOST_EARLIER_POINTS, default_values, earlier_values, nearest_value
from tune_smp.tuning.space import Domain, Range, Scalar, SearchSpace, flag_of, values_by_flag
from tune_smp.tuning.space_file import named_spaces, parse_space, read_space
from tune_smp.tuning.trial_record import TrialRecord

NAMES = sorted(named_spaces())


def under(space: SearchSpace, **flags: Any) -> SearchSpace:
    return space.with_flags({**REQUIRED, **flags})


def spaced(search: str, fixed: str = "", **flags: Any) -> SearchSpace:
    return under(parse_space(f"fixed: {{{fixed}}}\nsearch:\n{search}", name="mine.yaml"), **flags)


def holds(domain: Domain, value: Scalar) -> bool:
    """Whether Optuna would take the value for this domain."""
    if not isinstance(domain, Range):
        return value in domain
    assert isinstance(value, int | float)
    on_step = not domain.step or abs((value - domain.low) / domain.step % 1 - 0.5) > 0.499
    return domain.low <= value <= domain.high and on_step and (isinstance(value, int) or not domain.integer)


def offers(space: SearchSpace, values: dict[str, Scalar]) -> dict[str, Domain]:
    """What the space offers to a walk that takes these values; of what they leave open, the first."""
    seen: dict[str, Domain] = {}

    def suggest(name: str, domain: Domain) -> Scalar:
        seen[name] = domain
        return values.get(name, domain.low if isinstance(domain, Range) else domain[0])

    space.walk(suggest)
    return seen


def at_random(space: SearchSpace, seed: int) -> dict[str, Scalar]:
    """A point of the space, by flag."""
    random_numbers, picked = random.Random(seed), {}

    def suggest(name: str, domain: Domain) -> Scalar:
        if isinstance(domain, Range):
            steps = int((domain.high - domain.low) / (domain.step or 1))
            value: Scalar = domain.low + random_numbers.randint(0, steps) * (domain.step or 1)
            if not domain.step and not domain.integer:
                value = random_numbers.uniform(domain.low, domain.high)
            picked[name] = int(value) if domain.integer else value
        else:
            picked[name] = random_numbers.choice(domain)
        return picked[name]

    space.walk(suggest)
    return values_by_flag(picked)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", ["binary", "multiclass", "multilabel"])
def test_trial_0_lies_in_every_space_of_ours(name: str, mode: str) -> None:
    space = under(read_space(name), segmentationMode=mode)
    values = default_values(space)
    domains = offers(space, values)
    assert set(values) == set(domains)
    assert all(holds(domain, values[offered]) for offered, domain in domains.items())
    space.settings(values_by_flag(values))


def test_trial_0_is_the_plain_default_where_the_space_holds_it() -> None:
    space = spaced("""
  modelName: [FPN, Unet]
  encoderBaseVariantWeights: ["ResNet,resnet18,random", "ResNet,resnet34,imagenet"]
  optimizerName: [SGD, Adam]
  learningRate: {low: 1e-5, high: 1e-1, log: true}
  tileSize: [128, 256]
  lossName: [DiceLoss, JaccardLoss]
  foregroundFraction: {low: 0.0, high: 1.0}
""")
    plain = RunSettings.from_flags(REQUIRED)
    point = values_by_flag(default_values(space))
    assert point == {
        "modelName": plain.model_name,
        "encoderBaseVariantWeights": plain.encoder_base_variant_weights,
        "optimizerName": plain.optimizer_name,
        "learningRate": plain.resolved_learning_rate,
        "tileSize": plain.resolved_tile_size,
        "lossName": plain.loss_name,
        "foregroundFraction": plain.foreground_fraction,
    }


def test_a_default_that_hangs_on_another_flag_follows_it() -> None:
    """Momentum and learning rate are those of the optimizer that trial 0 has."""
    lines = "  optimizerName: [SGD]\n  learningRate: {low: 1e-5, high: 1.0}\n  momentum: {low: 0.0, high: 0.99}\n"
    settings = RunSettings.from_flags({**REQUIRED, "optimizerName": "SGD"})
    point = values_by_flag(default_values(spaced(lines)))
    assert point["learningRate"] == settings.resolved_learning_rate
    assert point["momentum"] == settings.resolved_momentum


def test_the_default_decoder_is_as_wide_as_the_architecture_and_depth_have_it() -> None:
    lines = "  modelName: [%s]\n  encoderDepth: [3, 5]\n  decoderChannels: [16, 64, 192, 256, 512]\n"
    unet = values_by_flag(default_values(spaced(lines % "Unet")))
    assert (unet["encoderDepth"], unet["decoderChannels"]) == (5, 256)
    shallow = values_by_flag(default_values(spaced(lines.replace("[3, 5]", "[3]") % "Unet")))
    assert (shallow["encoderDepth"], shallow["decoderChannels"]) == (3, 64)
    upernet = values_by_flag(default_values(spaced(lines % "UPerNet")))
    assert upernet["decoderChannels"] == 256


@pytest.mark.parametrize(
    ("domain", "wanted", "nearest"),
    [
        (Range(1e-4, 1e-2, integer=False), 1e-1, 1e-2),
        (Range(1e-4, 1e-2, integer=False), 1e-5, 1e-4),
        (Range(4, 32, integer=True, step=4), 15, 16),
        (Range(4, 32, integer=True), None, 32),  # batchSize: the largest that fits
        ((128, 384), 256, 128),
        ((0.5, 0.7), 0.69, 0.7),
        ((False, True), True, True),
        (("ResNet,resnet18,random", "ResNet,resnet34,random"), "ResNet,resnet34,imagenet", "ResNet,resnet34,random"),
        (("DiceLoss", "FocalLoss"), "JaccardLoss", "DiceLoss"),
    ],
)
def test_the_nearest_value(domain: Domain, wanted: Any, nearest: Scalar) -> None:
    found = nearest_value(domain, wanted)
    assert found == nearest
    assert type(found) is type(nearest)


@settings(deadline=None)
@given(st.floats(0, 100), st.floats(0.01, 100), st.sampled_from([None, 0.5, 2.0]), st.booleans(), st.floats(-300, 300))
def test_the_nearest_value_of_a_range_is_nearer_than_its_ends(
    low: float, width: float, step: float | None, integer: bool, wanted: float
) -> None:
    if integer:
        low, width, step = round(low), max(1, round(width)), 2.0 if step else None
    if step:
        width = step * max(1, round(width / step))  # as the space's checks ask for
    domain = Range(low, low + width, integer=integer, step=step)
    found = nearest_value(domain, wanted)
    assert holds(domain, found)
    assert isinstance(found, int | float)
    assert all(abs(found - wanted) <= abs(end - wanted) + 1e-9 for end in (domain.low, domain.high))


EARLIER = spaced("  optimizerName: [Adam, SGD]\n  learningRate: {low: 1e-4, high: 1e-1, log: true}\n")


def trial(number: int, metric: float | None, state: str = "completed", **flags: Scalar) -> TrialRecord:
    flags = flags or {"optimizerName": "Adam", "learningRate": 1e-3 * (number + 1)}
    return TrialRecord(number, state, flags, max_epochs=9, curve=() if metric is None else (metric,))


def test_the_best_come_first_and_not_all_of_them() -> None:
    records = [trial(number, metric=0.01 * number) for number in range(30)]
    rates = [values["learningRate"] for values in earlier_values(EARLIER, records)]
    assert rates == [1e-3 * (number + 1) for number in range(29, 29 - MOST_EARLIER_POINTS, -1)]


def test_trials_in_trouble_without_a_metric_or_alike_are_left_out() -> None:
    records = [
        trial(0, 0.9, "failed"),
        trial(1, 0.9, "diverged"),
        trial(2, None, "interrupted"),
        trial(3, 0.5, optimizerName="SGD", learningRate=0.05),
        trial(4, 0.4, optimizerName="SGD", learningRate=0.05),
        trial(5, 0.3, "pruned", optimizerName="Adam", learningRate=0.001),
    ]
    assert [values["optimizerName"] for values in earlier_values(EARLIER, records)] == ["SGD", "Adam"]


def test_a_point_outside_the_space_is_left_out_not_bent() -> None:
    records = [
        trial(0, 0.9, optimizerName="AdamW", learningRate=0.01),
        trial(1, 0.8, optimizerName="SGD", learningRate=0.5),
        trial(2, 0.7, optimizerName="SGD", learningRate=0.01),
    ]
    assert earlier_values(EARLIER, records) == [{"optimizerName": "SGD", "learningRate": 0.01}]


def test_a_flag_that_the_earlier_search_did_not_vary_is_left_open() -> None:
    wider = spaced("  optimizerName: [Adam, SGD]\n  lossName: [JaccardLoss, DiceLoss]\n")
    assert earlier_values(wider, [trial(0, 0.9, optimizerName="SGD", learningRate=0.01)]) == [{"optimizerName": "SGD"}]


@pytest.mark.parametrize(("earlier", "later"), list(itertools.product(NAMES, repeat=2)))
def test_what_is_taken_over_lies_in_the_new_space(earlier: str, later: str) -> None:
    before, after = under(read_space(earlier)), under(read_space(later))
    records = [
        TrialRecord(seed, "completed", at_random(before, seed), 9, curve=(0.5 + 0.01 * seed,)) for seed in range(12)
    ]
    for values in earlier_values(after, records):
        domains = offers(after, values)
        assert set(values) <= set(domains)
        assert all(holds(domains[name], value) for name, value in values.items())
        assert {flag_of(name) for name in values} <= set(after.searched)
    if earlier == later:
        assert len(earlier_values(after, records)) == MOST_EARLIER_POINTS, "its own points are all in it"
