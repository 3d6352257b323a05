"""TPE that does not slow down with the number of trials, and stays away from what failed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from tune_smp.tuning.bounded_tpe import BEST_TRIALS, MOST_TRIALS, OTHER_TRIALS, BoundedTPESampler
from tune_smp.tuning.sampler import build_sampler

SPACE = {"rate": FloatDistribution(1e-4, 1e-1, log=True), "loss": CategoricalDistribution(["Dice", "Focal", "CE"])}


def ended(count: int) -> list[FrozenTrial]:
    """Every third came to its end; the others were pruned after one, two or three epochs."""
    random = np.random.default_rng(0)
    trials = []
    for number in range(count):
        metric = float(random.random())
        whole = number % 3 == 0
        trials.append(
            create_trial(
                params={
                    "rate": float(10 ** random.uniform(-4, -1)),
                    "loss": str(random.choice(["Dice", "Focal", "CE"])),
                },
                distributions=dict(SPACE),
                state=TrialState.COMPLETE if whole else TrialState.PRUNED,
                value=metric if whole else None,
                intermediate_values=dict.fromkeys(range(1, 2 + int(random.integers(3))), metric),
            )
        )
    return trials


def study_of(trials: Sequence[FrozenTrial], sampler: optuna.samplers.BaseSampler) -> optuna.Study:
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials(trials)
    return study


def suggestions(study: optuna.Study, count: int) -> list[dict[str, object]]:
    return [study.ask(dict(SPACE)).params for _ in range(count)]


def seen(study: optuna.Study) -> list[int]:
    """Numbers of the trials that its sampler learns from."""
    assert isinstance(study.sampler, BoundedTPESampler)
    return [trial.number for trial in study.sampler._seen(study)._get_trials()]


def tpe(kind: type[optuna.samplers.TPESampler]) -> optuna.samplers.TPESampler:
    return kind(seed=3, multivariate=True, group=True, constant_liar=True, n_startup_trials=4)


def test_a_search_takes_the_bounded_sampler() -> None:
    assert isinstance(build_sampler("tpe", seed=0, concurrency=2), BoundedTPESampler)


def test_up_to_its_limit_it_is_tpe() -> None:
    trials = ended(MOST_TRIALS)

    ours = suggestions(study_of(trials, tpe(BoundedTPESampler)), 5)

    assert ours == suggestions(study_of(trials, tpe(optuna.samplers.TPESampler)), 5)


def numbers_of_the_best(trials: Sequence[FrozenTrial]) -> set[int]:
    """The best of a study that maximises: of equals the first."""
    whole = [trial for trial in trials if trial.value is not None]
    return {trial.number for trial in sorted(whole, key=lambda trial: -float(trial.value or 0))[:BEST_TRIALS]}


def test_beyond_it_the_best_are_those_of_tpe() -> None:
    study = study_of(ended(3 * MOST_TRIALS), tpe(BoundedTPESampler))
    best = numbers_of_the_best(study.get_trials())

    shown = seen(study)

    others = [number for number in range(3 * MOST_TRIALS) if number not in best]
    assert shown == sorted({*best, *others[-OTHER_TRIALS:]})


def test_of_equals_the_first_are_the_best() -> None:
    alike = [
        create_trial(params={"rate": 1e-3, "loss": "Dice"}, distributions=dict(SPACE), value=0.5)
        for _ in range(2 * MOST_TRIALS)
    ]

    assert seen(study_of(alike, tpe(BoundedTPESampler)))[:BEST_TRIALS] == list(range(BEST_TRIALS))


def test_it_sees_the_same_whether_it_watched_or_came_later() -> None:
    watching = study_of(ended(MOST_TRIALS), tpe(BoundedTPESampler))
    late = [watching.ask(dict(SPACE)) for _ in range(3)]
    for trial in ended(MOST_TRIALS):
        watching.add_trial(trial)
        seen(watching)
    for running in reversed(late):  # begun in the middle, ended last
        watching.tell(running, -1.0)
        seen(watching)

    shown = seen(watching)

    assert {running.number for running in late} <= set(shown)
    assert shown == seen(study_of(watching.get_trials(), tpe(BoundedTPESampler)))


def test_where_none_came_to_its_end_who_came_far_is_best() -> None:
    pruned = [trial for trial in ended(6 * MOST_TRIALS) if trial.state is TrialState.PRUNED]
    pruned.sort(key=lambda trial: (trial.last_step or 0, max(trial.intermediate_values.values())), reverse=True)
    study = study_of(pruned, tpe(BoundedTPESampler))

    assert seen(study)[:BEST_TRIALS] == list(range(BEST_TRIALS))
    assert len(seen(study)) == MOST_TRIALS


def test_a_journal_that_is_opened_again_suggests_the_same_with_trials_that_wait(tmp_path: Path) -> None:
    def study(sampler: optuna.samplers.BaseSampler, name: str) -> optuna.Study:
        storage = JournalStorage(JournalFileBackend(str(tmp_path / name)))
        made = optuna.create_study(
            study_name="s", storage=storage, direction="maximize", sampler=sampler, load_if_exists=True
        )
        if not made.trials:
            made.add_trials(ended(60))
            made.enqueue_trial({"rate": 1e-2, "loss": "CE"})
        return made

    study(tpe(BoundedTPESampler), "ours")
    ours = suggestions(study(tpe(BoundedTPESampler), "ours"), 4)

    assert ours[0] == {"rate": 1e-2, "loss": "CE"}
    assert ours == suggestions(study(tpe(optuna.samplers.TPESampler), "theirs"), 4)


def test_a_running_trial_is_seen_until_it_ends_long_ago() -> None:
    study = study_of(ended(10), tpe(BoundedTPESampler))
    running = study.ask(dict(SPACE))
    study.add_trials(ended(2 * MOST_TRIALS))
    assert running.number in seen(study)

    study.tell(running, -1.0)
    assert running.number in seen(study)  # it has just ended

    study.add_trials(ended(MOST_TRIALS))
    assert running.number not in seen(study)


@pytest.mark.parametrize("epochs", [0, 3])
def test_a_failed_trial_counts_as_one_that_runs(epochs: int) -> None:
    study = study_of(ended(10), tpe(BoundedTPESampler))
    failed = study.ask(dict(SPACE))
    for epoch in range(1, epochs + 1):
        failed.report(0.9, epoch)
    study.tell(failed, state=TrialState.FAIL)

    assert isinstance(study.sampler, BoundedTPESampler)
    shown = study.sampler._seen(study)._get_trials()[-1]

    assert (shown.number, shown.state) == (failed.number, TrialState.RUNNING)
    assert study.trials[-1].state is TrialState.FAIL


RATE_THAT_FAILS = 10**-2.5


def failures(sampler: optuna.samplers.BaseSampler) -> int:
    """Of fifty proposals those that fail: everything above a learning rate, half of the space; the best is below."""
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for _ in range(50):
        trial = study.ask(dict(SPACE))
        if trial.params["rate"] > RATE_THAT_FAILS:
            trial.report(1.0, 1)  # until it diverges, such a run is good
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, -abs(np.log10(trial.params["rate"]) + 3))
    return sum(trial.state is TrialState.FAIL for trial in study.trials)


def test_a_search_stays_away_from_what_failed() -> None:
    ours = [failures(build_sampler("tpe", seed=seed, concurrency=1)) for seed in range(3)]
    optunas = [
        failures(optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=4)) for seed in range(3)
    ]
    by_chance = [failures(build_sampler("random", seed=seed, concurrency=1)) for seed in range(3)]

    assert sum(ours) < sum(by_chance) / 2
    assert min(optunas) > max(ours), "or TPE has learnt it, and ours is not needed"


def test_where_all_failed_it_still_draws_at_random() -> None:
    study = study_of([], build_sampler("tpe", seed=0, concurrency=1))
    for _ in range(20):
        study.tell(study.ask(dict(SPACE)), state=TrialState.FAIL)

    assert {trial.params["loss"] for trial in study.trials} == {"Dice", "Focal", "CE"}
    rates = [trial.params["rate"] for trial in study.trials]
    assert min(rates) < 1e-3
    assert max(rates) > 1e-2


def test_a_failed_trial_is_never_among_the_best() -> None:
    study = study_of(ended(2 * MOST_TRIALS), tpe(BoundedTPESampler))
    for _ in range(3):
        failed = study.ask(dict(SPACE))
        failed.report(99.0, 99)
        study.tell(failed, state=TrialState.FAIL)
    study.add_trials(ended(MOST_TRIALS))

    assert not {trial.number for trial in study.trials if trial.state is TrialState.FAIL} & set(seen(study))


def test_a_trial_that_failed_before_it_had_a_value_is_left_out() -> None:
    study = study_of(ended(10), tpe(BoundedTPESampler))
    study.add_trial(create_trial(state=TrialState.FAIL))

    assert 10 not in seen(study)
    assert suggestions(study, 1)


def test_a_suggestion_takes_no_longer_with_four_times_as_many_trials() -> None:
    def seconds(count: int) -> float:
        study = study_of(ended(count), build_sampler("tpe", seed=0, concurrency=2))
        suggestions(study, 2)
        begun = time.process_time()
        suggestions(study, 10)
        return time.process_time() - begun

    assert seconds(12 * MOST_TRIALS) < 2 * seconds(3 * MOST_TRIALS)


@pytest.mark.parametrize("name", ["tpe", "prior", "random", "quasirandom"])
def test_every_sampler_suggests_within_the_space(name: str) -> None:
    study = study_of(ended(MOST_TRIALS + 5), build_sampler(name, seed=0, concurrency=2))

    for params in suggestions(study, 5):
        assert 1e-4 <= float(str(params["rate"])) <= 1e-1
        assert params["loss"] in SPACE["loss"].choices  # type: ignore[attr-defined]
