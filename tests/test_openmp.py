"""How torch's threads wait: a few spins and then asleep, unless the environment says otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tune_smp.openmp import waiting

ASLEEP = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}


@pytest.mark.parametrize(
    ("environment", "meant"),
    [
        ({}, ASLEEP),
        ({"OMP_WAIT_POLICY": "passive"}, {**ASLEEP, "OMP_WAIT_POLICY": "passive"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
        ({"GOMP_SPINCOUNT": "0"}, {**ASLEEP, "GOMP_SPINCOUNT": "0"}),
        ({"OMP_WAIT_POLICY": "ACTIVE", "GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "ACTIVE", "GOMP_SPINCOUNT": "7"}),
    ],
)
def test_the_environment_has_the_last_word(environment: dict[str, str], meant: dict[str, str]) -> None:
    assert waiting(environment) == meant


def test_it_is_set_before_torch_is_loaded() -> None:
    code = "import os, sys, tune_smp; assert 'torch' not in sys.modules; print(os.environ['GOMP_SPINCOUNT'])"
    clean = {name: value for name, value in os.environ.items() if name not in ASLEEP}
    printed = subprocess.run([sys.executable, "-c", code], env=clean, check=True, capture_output=True, text=True)
    assert printed.stdout.split() == [ASLEEP["GOMP_SPINCOUNT"]]
