"""Rules between the settings of a run. Each rule keeps silent where a value it needs is wrong by itself."""

from __future__ import annotations

from collections.abc import Iterator

from tune_smp.choices.architectures import ARCHITECTURES, NO_ATTENTION, Architecture
from tune_smp.choices.encoders import ENCODERS, Encoder, partner_architectures, partner_encoders, unbuildable
from tune_smp.choices.losses import LOSSES
from tune_smp.choices.optimizers import OPTIMIZERS
from tune_smp.errors import Problem, listing
from tune_smp.settings.base import Draft
from tune_smp.settings.duration import seconds_of
from tune_smp.settings.encoder_choice import choice_problems, chosen_encoder
from tune_smp.settings.fields import flag_name


def encoder_exists(draft: Draft) -> Iterator[Problem]:
    """Family, variant and weights belong together and exist."""
    text = draft.values.get("encoder_base_variant_weights")
    if text is not None:
        yield from choice_problems(text)


def pair_can_be_built(draft: Draft) -> Iterator[Problem]:
    """The architecture accepts the encoder."""
    architecture, encoder = _architecture(draft), _encoder(draft)
    if architecture is None or encoder is None:
        return
    reason = unbuildable(architecture, encoder)
    if reason:
        partners = partner_architectures(encoder)
        families = sorted({ENCODERS[name].family for name in partner_encoders(architecture)}, key=str.casefold)
        yield Problem(
            f"{reason}: {architecture.name} and {encoder.name} do not go together",
            where=draft.where("model_name", "encoder_base_variant_weights"),
            fix=f"{encoder.name} goes with {', '.join(partners)}; "
            f"{architecture.name} goes with encoders of {', '.join(families)} (tune-smp show encoders)",
        )


def tile_fits(draft: Draft) -> Iterator[Problem]:
    """The tile has a size that architecture and encoder can work on."""
    size = draft.values.get("tile_size")
    architecture, encoder = _architecture(draft), _encoder(draft)
    if size is None:
        return
    if encoder is not None and encoder.tile_size is not None:
        if size != encoder.tile_size:
            yield Problem(
                f"{encoder.name} works on tiles of {encoder.tile_size} px only, got {size}",
                where=draft.where("tile_size", "encoder_base_variant_weights"),
                fix=f"pass --tileSize {encoder.tile_size}, or leave --tileSize out",
            )
    elif architecture is not None:
        yield from _divisible(draft, architecture, size)


def _divisible(draft: Draft, architecture: Architecture, size: int) -> Iterator[Problem]:
    divisor, smallest = architecture.divisor, architecture.min_tile_size
    if size % divisor or size < smallest:
        below = max(size // divisor * divisor, smallest)
        above = max(below + divisor, smallest) if below <= size else below
        either = f"{below} or {above}" if below != above else f"{below}"
        least = f" and at least {smallest} px" if size < smallest else ""
        yield Problem(
            f"{architecture.name} needs a tile size that divides by {divisor}{least}, got {size}",
            where=draft.where("tile_size", "model_name"),
            fix=f"pass --tileSize {either}",
        )


def decoder_fits_architecture(draft: Draft) -> Iterator[Problem]:
    """The architecture can have this depth, and a decoder of this width and attention."""
    row, values = _architecture(draft), draft.values
    if row is None:
        return
    depth, width = values.get("encoder_depth"), values.get("decoder_channels")
    if depth is not None and not row.least_depth <= depth <= row.encoder_depth:
        least, most = row.least_depth, row.encoder_depth
        can = f"from {least} to {most}" if least < most else f"of {most}"
        flexible = [name for name, other in ARCHITECTURES.items() if other.least_depth < other.encoder_depth]
        yield Problem(
            f"{row.name} needs an encoder depth {can}, got {depth}",
            where=draft.where("encoder_depth", "model_name"),
            fix=f"leave --encoderDepth out, or pass --modelName with one of: {listing(flexible, limit=8)}",
        )
    if width is not None and row.decoder_channels is None:
        yield Problem(
            f"the width of {row.name}'s decoder follows from its encoder",
            where=draft.where("decoder_channels", "model_name"),
            fix="leave --decoderChannels out, or pass another --modelName",
        )
    elif width is not None and width % row.channels_step:
        below = max(width // row.channels_step, 1) * row.channels_step
        yield Problem(
            f"{row.name} needs a multiple of {row.channels_step} decoder channels, got {width}",
            where=draft.where("decoder_channels", "model_name"),
            fix=f"pass --decoderChannels {below} or {below + row.channels_step}",
        )
    if values.get("decoder_attention", NO_ATTENTION) != NO_ATTENTION and not row.takes_attention:
        able = [name for name, other in ARCHITECTURES.items() if other.takes_attention]
        yield Problem(
            f"the decoder of {row.name} has no attention to choose",
            where=draft.where("decoder_attention", "model_name"),
            fix=f"leave --decoderAttention out, or pass --modelName {' or '.join(able)}",
        )


def loss_fits_mode(draft: Draft) -> Iterator[Problem]:
    """The loss is defined for the segmentation mode."""
    loss = LOSSES.get(draft.values.get("loss_name", ""))
    mode = draft.values.get("segmentation_mode")
    if loss is None or mode is None or mode in loss.modes:
        return
    legal = [row.name for row in LOSSES.values() if mode in row.modes]
    yield Problem(
        f"{loss.name} exists for {', '.join(sorted(loss.modes))} only, not for {mode}",
        where=draft.where("loss_name", "segmentation_mode"),
        fix=f"for {mode}, one of: {', '.join(legal)}",
    )


def loss_reads_its_numbers(draft: Draft) -> Iterator[Problem]:
    """A number that some losses read is given with one of them."""
    chosen = LOSSES.get(draft.values.get("loss_name", ""))
    if chosen is None:
        return
    for field in dict.fromkeys(field for loss in LOSSES.values() for field in loss.parameters):
        if draft.was_given(field) and field not in chosen.parameters:
            readers = [loss.name for loss in LOSSES.values() if field in loss.parameters]
            yield Problem(
                f"--{flag_name(field)} means something to {' and '.join(readers)} only",
                where=draft.where(field, "loss_name"),
                fix=f"leave --{flag_name(field)} out, or pass --lossName {' or '.join(readers)}",
            )


def optimizer_takes_its_numbers(draft: Draft) -> Iterator[Problem]:
    """Momentum and weight decay are given to optimizers that have them."""
    optimizer = OPTIMIZERS.get(draft.values.get("optimizer_name", ""))
    if optimizer is None:
        return
    if draft.was_given("momentum") and not optimizer.has_momentum:
        legal = [row.name for row in OPTIMIZERS.values() if row.has_momentum]
        yield _not_of_this_optimizer(draft, "momentum", legal)
    if draft.was_given("weight_decay") and not optimizer.has_weight_decay:
        legal = [row.name for row in OPTIMIZERS.values() if row.has_weight_decay]
        yield _not_of_this_optimizer(draft, "weight_decay", legal)


def _not_of_this_optimizer(draft: Draft, field: str, legal: list[str]) -> Problem:
    return Problem(
        f"{draft.values['optimizer_name']} has no {field.replace('_', ' ')}",
        where=draft.where(field, "optimizer_name"),
        fix=f"leave --{flag_name(field)} out, or pass --optimizerName with one of: {listing(legal, limit=15)}",
    )


def head_needs_a_model(draft: Draft) -> Iterator[Problem]:
    """Only an earlier model has a head to replace."""
    values = draft.values
    if values.get("replace_head") and "pretrained_model" in values and values["pretrained_model"] is None:
        yield Problem(
            "--replaceHead works on an earlier model, and none was given",
            where=draft.where("replace_head"),
            fix="pass --pretrainedModel too, or leave --replaceHead out",
        )


def precision_fits_device(draft: Draft) -> Iterator[Problem]:
    """float16 needs a GPU: a CPU has neither the speed nor every operation for it."""
    if draft.values.get("device") == "cpu" and draft.values.get("precision") == "float16":
        yield Problem(
            "float16 is for GPUs; a CPU trains in float32 or bfloat16",
            where=draft.where("precision", "device"),
            fix="pass --precision auto, float32 or bfloat16",
        )


def focal_gamma_has_gradients(draft: Draft) -> Iterator[Problem]:
    """smp raises the error of a pixel to the power gamma: below 1 the gradient at 0 is infinite, and training NaN."""
    gamma = draft.values.get("focal_gamma")
    if gamma is not None and 0 < gamma < 1:
        yield Problem(
            f"--focalGamma must be 0 or at least 1, got {gamma:g}: between them gradients are infinite",
            where=draft.where("focal_gamma"),
            fix="pass --focalGamma 0 (plain cross-entropy) or 1 and more",
        )


def durations_can_be_read(draft: Draft) -> Iterator[Problem]:
    """Time budgets can be read as lengths of time."""
    for field in ("time_budget", "trial_budget"):
        text = draft.values.get(field)
        if text is not None and seconds_of(text) is None:
            yield Problem(
                f"--{flag_name(field)} must be a length of time above 0, got {text!r}",
                where=draft.where(field),
                fix="write 90m, 4h, 1h30m or a number of seconds",
            )


def time_budget_decides_the_steps(draft: Draft) -> Iterator[Problem]:
    """How many steps an epoch has follows from the time."""
    if draft.values.get("time_budget") is not None and draft.values.get("steps_per_epoch") is not None:
        yield Problem(
            "with a time budget, an epoch has as many steps as its time allows",
            where=draft.where("steps_per_epoch", "time_budget"),
            fix="leave --stepsPerEpoch out; --maxEpochs says into how many epochs the time is divided, at most",
        )


RUN_RULES = (
    pair_can_be_built,
    tile_fits,
    decoder_fits_architecture,
    loss_fits_mode,
    loss_reads_its_numbers,
    focal_gamma_has_gradients,
    optimizer_takes_its_numbers,
    head_needs_a_model,
    precision_fits_device,
    durations_can_be_read,
    time_budget_decides_the_steps,
)


def _architecture(draft: Draft) -> Architecture | None:
    return ARCHITECTURES.get(draft.values.get("model_name", ""))


def _encoder(draft: Draft) -> Encoder | None:
    return chosen_encoder(draft.values.get("encoder_base_variant_weights", ""))
