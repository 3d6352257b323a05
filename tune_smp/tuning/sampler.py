"""How Optuna picks the next point of the search space."""

from __future__ import annotations

import optuna

from tune_smp.tuning.bounded_tpe import BoundedTPESampler
from tune_smp.tuning.prior_sampler import PriorSampler
from tune_smp.tuning.study import quiet

FEWEST_TO_LEARN_FROM = 4
"""Trials of TPE's random start."""
PRIOR_WEIGHT, CANDIDATES = 0.3, 96
"""The weight of the whole space beside one trial, and the draws of which TPE takes the best: with Optuna's 1.0 and 24
it searches more widely than a few dozen trials can afford (docs/decisions/0039-a-sampler-that-stays-near.md)."""


def build_sampler(
    name: str, *, seed: int, concurrency: int, start: int = FEWEST_TO_LEARN_FROM
) -> optuna.samplers.BaseSampler:
    """The sampler ``tpe``, ``prior``, ``random`` or ``quasirandom``.

    ``concurrency`` trials run at once. TPE needs trials to learn from, and those that start together cannot learn from
    each other: its random ``start`` takes at least twice the concurrency.
    """
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if name == "prior":
        return PriorSampler(seed)
    with quiet():
        if name == "quasirandom":
            return optuna.samplers.QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)
        return BoundedTPESampler(
            seed=seed,
            multivariate=True,  # learns which values go together
            group=True,  # with parameters that only some trials have
            constant_liar=True,  # running trials count as poor, so that the next one goes elsewhere
            n_startup_trials=max(2 * concurrency, start),
            prior_weight=PRIOR_WEIGHT,  # deprecated, to go in Optuna 6, which pyproject.toml excludes
            n_ei_candidates=CANDIDATES,
        )
