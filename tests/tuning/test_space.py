"""Search spaces: what is offered in which order, under which names, and what a point becomes."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.flags import REQUIRED, SWIN, VIT, under
from tune_smp.choices.architectures import ARCHITECTURES
from tune_smp.choices.encoders import unbuildable
from tune_smp.choices.losses import MODES
from tune_smp.errors import SettingsError
from tune_smp.settings.encoder_choice import chosen_encoder
from tune_smp.settings.run import RunSettings
from tune_smp.tuning.space import FLAGS, Domain, Point, Range, Scalar, SearchSpace, ends, flag_of, values_by_flag
from tune_smp.tuning.space_file import named_spaces, parse_space, read_space

NAMES = sorted(named_spaces())


def spaced(search: str, fixed: str = "") -> SearchSpace:
    """A space of these lines, under a command line without any flag but the required ones."""
    return under(parse_space(f"fixed: {{{fixed}}}\nsearch:\n{search}", name="mine.yaml"))


class Walk:
    """A walk that picks the wanted values where they are offered and first values elsewhere, and keeps the offers."""

    def __init__(self, space: SearchSpace, **wanted: Scalar) -> None:
        self.offers: dict[str, Domain] = {}
        self.wanted = wanted
        self.point = space.walk(self._pick)

    def _pick(self, name: str, domain: Domain) -> Scalar:
        assert name not in self.offers, "asked twice"
        self.offers[name] = domain
        wanted = self.wanted.get(flag_of(name))
        if isinstance(domain, Range):
            return domain.low if wanted is None else wanted
        return wanted if wanted is not None and wanted in domain else domain[0]


def drawn(draw: Any, domain: Domain) -> Scalar:
    """Any value of a domain, ends included."""
    if not isinstance(domain, Range):
        return draw(st.sampled_from(list(domain)))  # type: ignore[no-any-return]  # draw has no type
    if domain.step is not None:
        steps = round((domain.high - domain.low) / domain.step)
        value = domain.low + draw(st.integers(0, steps)) * domain.step
        return int(value) if domain.integer else value
    kind = st.integers if domain.integer else st.floats
    return draw(kind(domain.low, domain.high))  # type: ignore[no-any-return, arg-type]  # draw has no type


def some(chance: random.Random, domain: Domain) -> Scalar:
    """A value of a domain by chance: what ``drawn`` gives, a hundred times faster."""
    if not isinstance(domain, Range):
        return chance.choice(list(domain))
    value = chance.uniform(domain.low, domain.high)
    if domain.step is not None:
        value = domain.low + (value - domain.low) // domain.step * domain.step
    return int(value) if domain.integer else value


def assert_legal(space: SearchSpace, point: Point) -> None:
    trial = space.settings(point)
    assert unbuildable(trial.architecture, trial.encoder) is None
    assert trial.resolved_tile_size % trial.architecture.divisor == 0
    assert trial.encoder.tile_size in (None, trial.resolved_tile_size)
    assert trial.segmentation_mode in trial.loss.modes
    # What was picked is what the trial has, and what was not picked is train's default or the file's value.
    record = trial.to_json()["values"]
    assert {flag: record[flag] for flag in point} == point
    assert set(trial.to_json()["given"]) == {*point, *space.fixed, *space.given}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_hundreds_of_points_of_a_shipped_space_are_legal_trials(name: str, mode: str) -> None:
    space, chance = under(read_space(name), mode), random.Random(name + mode)
    for _ in range(300):
        assert_legal(space, space.walk(lambda _, domain: some(chance, domain)))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(data=st.data(), mode=st.sampled_from(MODES))
def test_any_point_of_a_shipped_space_is_a_legal_trial(name: str, mode: str, data: st.DataObject) -> None:
    space = under(read_space(name), mode)
    assert_legal(space, space.walk(lambda _, domain: drawn(data.draw, domain)))


@pytest.mark.parametrize("name", NAMES)
def test_all_pairs_of_options_are_legal_together(name: str) -> None:
    space = under(read_space(name))
    for first, second in itertools.combinations(space.parameters, 2):
        # The many encoders are looked at below.
        if "encoderBaseVariantWeights" not in (first.flag, second.flag):
            for one, other in itertools.product(ends(first.domain), ends(second.domain)):
                space.settings(Walk(space, **{first.flag: one, second.flag: other}).point)


@pytest.mark.parametrize("name", ["quick", "balanced", "thorough"])
def test_every_pair_that_can_be_built_can_be_picked_and_no_other(name: str) -> None:
    space = under(read_space(name))
    for model, choice in itertools.product(space.possible("modelName"), space.possible("encoderBaseVariantWeights")):
        encoder = chosen_encoder(choice)
        assert encoder is not None
        point = Walk(space, modelName=model, encoderBaseVariantWeights=choice).point
        space.settings(point)
        assert point["modelName"] == model
        assert (point["encoderBaseVariantWeights"] == choice) == (unbuildable(ARCHITECTURES[model], encoder) is None)


@pytest.mark.parametrize("name", ["balanced", "thorough"])
def test_the_plain_default_is_the_first_of_what_is_searched(name: str) -> None:
    space = under(read_space(name))
    for parameter in space.parameters:
        default = RunSettings.model_fields[FLAGS[parameter.flag].field].default
        if isinstance(parameter.domain, Range):
            assert default is None or parameter.when or parameter.domain.low <= default <= parameter.domain.high
        else:
            assert parameter.domain[0].value == (256 if parameter.flag == "tileSize" else default)
            assert not parameter.domain[0].when
    first = space.settings(Walk(space).point)
    plain = space.settings({})
    for flag in ("model_name", "encoder_base_variant_weights", "optimizer_name", "loss_name", "augmentation"):
        assert getattr(first, flag) == RunSettings.model_fields[flag].default
    assert (first.schedule, first.resolved_tile_size) == (plain.schedule, plain.resolved_tile_size)


def test_thorough_has_every_architecture_and_each_can_be_picked() -> None:
    space = under(read_space("thorough"))
    assert set(space.possible("modelName")) == set(ARCHITECTURES)
    for model in ARCHITECTURES:
        assert Walk(space, modelName=model).point["modelName"] == model


def test_the_walk_goes_by_architecture_encoder_tile_and_then_as_written() -> None:
    space = spaced(
        """
  momentum: {low: 0.8, high: 0.9, when: {optimizerName: [SGD]}}
  batchSize: [4, 8]
  tileSize: [128, 256]
  optimizerName: [SGD, Adam]
  encoderBaseVariantWeights: ["ResNet,resnet18,random", "ResNet,resnet34,random"]
  modelName: [Unet, FPN]
"""
    )
    order = ("modelName", "encoderBaseVariantWeights", "tileSize", "batchSize", "optimizerName", "momentum")
    assert space.searched == order
    assert tuple(Walk(space).offers) == order


def test_a_condition_decides_whether_a_parameter_is_asked() -> None:
    space = spaced("  optimizerName: [Adam, SGD]\n  momentum: {low: 0.8, high: 0.9, when: {optimizerName: [SGD]}}")
    assert "momentum" not in Walk(space, optimizerName="Adam").offers
    walk = Walk(space, optimizerName="SGD")
    assert walk.offers["momentum"] == Range(0.8, 0.9, integer=False)
    assert space.settings(walk.point).momentum == 0.8


def test_every_condition_must_hold() -> None:
    when = "{optimizerName: [SGD], schedule: [step, linear]}"
    space = spaced(
        "  optimizerName: [Adam, SGD]\n"
        "  schedule: [cosine, step, linear]\n"
        f"  momentum: {{choices: [0.5], when: {when}}}"
    )
    for optimizer in ("Adam", "SGD"):
        for schedule in ("cosine", "step", "linear"):
            asked = "momentum" in Walk(space, optimizerName=optimizer, schedule=schedule).point
            assert asked == (optimizer == "SGD" and schedule != "cosine")


def test_a_condition_on_a_flag_that_is_not_searched_looks_at_its_value() -> None:
    line = "  learningRate: {low: 0.1, high: 0.2}\n  momentum: {low: 0.8, high: 0.9, when: {optimizerName: [SGD]}}"
    assert "momentum" in Walk(spaced(line, "optimizerName: SGD")).point
    assert "momentum" not in Walk(spaced(line, "optimizerName: AdamW")).point
    assert "momentum" not in Walk(spaced(line)).point, "Adam is the default"


LOSSES = """
  lossName:
    - JaccardLoss
    - DiceLoss
    - {value: SoftBCEWithLogitsLoss, when: {segmentationMode: [binary, multilabel]}}
    - {value: SoftCrossEntropyLoss, when: {segmentationMode: [multiclass]}}
    - MCCLoss
"""


def test_a_condition_of_one_value_and_the_names_of_partial_domains() -> None:
    space = parse_space(f"search:{LOSSES}", name="mine.yaml")
    binary = Walk(under(space, "binary")).offers
    multiclass = Walk(under(space, "multiclass")).offers
    everywhere = ("JaccardLoss", "DiceLoss")
    assert binary == {"lossName[0-2,4]": (*everywhere, "SoftBCEWithLogitsLoss", "MCCLoss")}
    assert multiclass == {"lossName[0-1,3-4]": (*everywhere, "SoftCrossEntropyLoss", "MCCLoss")}


def test_a_whole_domain_has_the_flag_as_its_name() -> None:
    assert Walk(spaced("  lossName: [DiceLoss, JaccardLoss]")).offers == {"lossName": ("DiceLoss", "JaccardLoss")}


@pytest.mark.parametrize("name", NAMES)
def test_one_name_always_stands_for_the_same_values(name: str) -> None:
    space, chance = under(read_space(name)), random.Random(0)
    seen: dict[str, Domain] = {}

    def suggest(domain_name: str, domain: Domain) -> Scalar:
        assert seen.setdefault(domain_name, domain) == domain
        return some(chance, domain)

    points = [space.walk(suggest) for _ in range(200)]
    assert values_by_flag(dict.fromkeys(seen, 1)).keys() == set().union(*points)
    # Two names of one flag never stand for the same values: Optuna would learn twice.
    domains = [(flag_of(domain_name), domain) for domain_name, domain in seen.items()]
    assert not [pair for number, pair in enumerate(domains) if pair in domains[:number]]


def test_flags_of_names() -> None:
    assert flag_of("lossName[0-2,4]") == flag_of("lossName") == "lossName"
    assert values_by_flag({"lossName[0-2,4]": "DiceLoss", "seed": 1}) == {"lossName": "DiceLoss", "seed": 1}


def test_pairs_that_cannot_be_built_are_never_offered() -> None:
    space = spaced(
        f"""
  modelName: [PAN, Unet, DPT]
  encoderBaseVariantWeights:
    ["VGG,vgg16,random", "ResNet,resnet18,random", "{VIT}", "ConvNeXt,tu-convnext_atto,random"]
"""
    )
    offered = {
        model: Walk(space, modelName=model).offers
        for model in ("PAN", "Unet", "DPT")
        if Walk(space, modelName=model).point["modelName"] == model
    }
    resnet, convnext = "ResNet,resnet18,random", "ConvNeXt,tu-convnext_atto,random"
    assert offered["PAN"]["encoderBaseVariantWeights[1,3]"] == (resnet, convnext)
    assert offered["Unet"]["encoderBaseVariantWeights[0-1,3]"] == ("VGG,vgg16,random", resnet, convnext)
    assert offered["DPT"]["encoderBaseVariantWeights[2-3]"] == (VIT, convnext)


def test_an_architecture_without_any_encoder_left_is_not_offered() -> None:
    space = spaced("  modelName: [PAN, DPT, Unet]\n  encoderBaseVariantWeights: ['VGG,vgg16,random']")
    assert Walk(space).offers["modelName[2]"] == ("Unet",)
    fixed = spaced("  modelName: [PAN, DPT, Unet]", "encoderBaseVariantWeights: 'VGG,vgg16,random'")
    assert Walk(fixed).offers == {"modelName[2]": ("Unet",)}


def test_tiles_fit_architecture_and_encoder() -> None:
    space = spaced(
        f"""
  modelName: [Unet, PAN, PSPNet]
  encoderBaseVariantWeights: ["ResNet,resnet18,random", "{SWIN}"]
  tileSize: [64, 72, 128]
"""
    )
    assert Walk(space, modelName="Unet").offers["tileSize[0,2]"] == (64, 128)
    assert Walk(space, modelName="PAN").offers["tileSize[2]"] == (128,)
    assert Walk(space, modelName="PSPNet").offers["tileSize"] == (64, 72, 128)
    dictated = Walk(space, modelName="Unet", encoderBaseVariantWeights=SWIN)
    assert "tileSize" not in dictated.point
    assert space.settings(dictated.point).resolved_tile_size == 224


def test_an_architecture_that_no_tile_size_suits_is_not_offered() -> None:
    space = spaced("  modelName: [PAN, Unet]\n  tileSize: [64, 96]")
    assert Walk(space).point == {"modelName": "Unet", "tileSize": 64}


def test_an_encoder_that_works_on_another_tile_size_is_not_offered() -> None:
    space = spaced(f"  encoderBaseVariantWeights: ['{SWIN}', 'ResNet,resnet18,random']", "tileSize: 256")
    assert Walk(space).point == {"encoderBaseVariantWeights": "ResNet,resnet18,random"}
    assert space.encoder_choices() == ("ResNet,resnet18,random",)


def test_conditions_of_encoders_count_when_an_architecture_is_offered() -> None:
    space = spaced(
        f"""
  modelName: [DPT, Unet]
  encoderBaseVariantWeights:
    - "ResNet,resnet18,random"
    - {{value: "{VIT}", when: {{segmentationMode: [multiclass]}}}}
"""
    )
    assert Walk(space).point["modelName"] == "Unet"
    multiclass = under(parse_space(space.text, name="mine.yaml"), "multiclass")
    assert Walk(multiclass).point == {"modelName": "DPT", "encoderBaseVariantWeights": VIT}


def test_conditions_on_what_is_still_to_be_chosen_leave_an_architecture_open() -> None:
    encoders = f"['ResNet,resnet18,random', {{value: '{VIT}', when: {{optimizerName: [SGD]}}}}]"
    space = spaced(f"  modelName: [DPT, Unet]\n  optimizerName: [Adam, SGD]\n  encoderBaseVariantWeights: {encoders}")
    walk = Walk(space, optimizerName="SGD")
    assert walk.offers["modelName"] == ("DPT", "Unet")
    assert walk.point["encoderBaseVariantWeights"] == VIT


def test_the_command_line_rules_over_the_file() -> None:
    space = parse_space(
        "fixed: {maxEpochs: 8}\nsearch:\n  batchSize: [4, 8]\n  modelName: [Unet, FPN]", name="mine.yaml"
    )
    line = under(space, maxEpochs="3", batchSize="2")
    assert line.searched == ("modelName",)
    assert "maxEpochs" not in line.fixed
    trial = line.settings(Walk(line).point)
    assert (trial.max_epochs, trial.batch_size, trial.model_name) == (3, 2, "Unet")
    assert line.most_epochs() == 3
    assert space.searched == ("modelName", "batchSize"), "the space itself stays as it is"
    assert space.most_epochs() == 8


@pytest.mark.parametrize("name", [name for name in NAMES if name != "quick"])  # which searches neither SGD nor momentum
def test_a_given_flag_brings_its_own_numbers(name: str) -> None:
    space = under(read_space(name), optimizerName="SGD", lossName="FocalLoss", tileSize="128")
    point = Walk(space).point
    assert not {"optimizerName", "lossName", "tileSize"} & set(point)
    assert "momentum" in point
    assert space.settings(point).resolved_tile_size == 128


def test_settings_are_those_of_file_line_and_point_together() -> None:
    space = spaced("  batchSize: [4, 8]", "maxEpochs: 5, augmentation: none")
    trial = space.settings({"batchSize": 8})
    assert (trial.batch_size, trial.max_epochs, trial.augmentation, trial.seed) == (8, 5, "none", 0)
    assert trial.images_pattern == REQUIRED["imagesPattern"]
    with pytest.raises(SettingsError, match="--batchSize must be"):
        space.settings({"batchSize": 0})


@pytest.mark.parametrize(
    ("search", "fixed", "most", "warmup"),
    [
        ("  batchSize: [4, 8]", "", 100, 5),
        ("  batchSize: [4, 8]", "maxEpochs: 30, warmupFraction: 0.0", 30, 0),
        ("  maxEpochs: [30, 50]", "", 50, 3),
        ("  maxEpochs: {low: 5, high: 40, step: 5}\n  warmupFraction: [0.0, 0.25]", "", 40, 10),
        ("  warmupFraction: {low: 0.0, high: 0.02}", "maxEpochs: 100", 100, 2),
        ("  lossName: [DiceLoss, MCCLoss]\n  maxEpochs: {choices: [30], when: {lossName: [MCCLoss]}}", "", 100, 5),
    ],
)
def test_most_epochs_and_longest_warmup(search: str, fixed: str, most: int, warmup: int) -> None:
    space = spaced(search, fixed)
    assert (space.most_epochs(), space.longest_warmup()) == (most, warmup)


def test_encoders_that_a_trial_may_have() -> None:
    space = read_space("thorough")
    every = under(space).encoder_choices()
    assert len(every) == len(set(every)) == len(space.possible("encoderBaseVariantWeights"))
    pan = under(space, modelName="PAN").encoder_choices()
    assert "ResNet,resnet34,imagenet" in pan
    assert not [choice for choice in pan if choice.startswith(("VGG", "DenseNet", "Swin", "ViT"))]
    only = under(space, encoderBaseVariantWeights="VGG,vgg16,imagenet")
    assert only.encoder_choices() == ("VGG,vgg16,imagenet",)
    assert spaced("  batchSize: [4, 8]").encoder_choices() == ("ResNet,resnet34,imagenet",)


def test_points_are_plain_values() -> None:
    point: Point = Walk(under(read_space("balanced")), optimizerName="SGD").point
    assert {type(value) for value in point.values()} <= {str, int, float}
    assert type(point["batchSize"]) is int
    assert type(point["learningRate"]) is float
