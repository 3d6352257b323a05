"""How OpenMP's threads wait for each other, and so torch's: for a few microseconds at work, then asleep.

Left alone they spin, which on cores that torch must share makes it 2 to 12 times slower; put to sleep at once, they
cost small nets on two idle cores a third of their speed. libgomp, which torch brings, can be given a count of spins;
other runtimes know the policy alone. Figures: docs/decisions/0010-waiting-threads.md.
"""

from collections.abc import Mapping

POLICY, SPINS = "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"
_SLEEP = "PASSIVE"
_FEW_SPINS = "10000"


def waiting(environment: Mapping[str, str]) -> dict[str, str]:
    """Environment variables that are read when torch is loaded: what ``environment`` says, where it says something."""
    policy = environment.get(POLICY, _SLEEP)
    if policy.upper() != _SLEEP and SPINS not in environment:
        return {POLICY: policy}  # a count would win over it
    return {POLICY: policy, SPINS: environment.get(SPINS, _FEW_SPINS)}
