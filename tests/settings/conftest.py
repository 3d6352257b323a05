"""What the tests of settings share: the flags that every run needs, and what a refusal says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.flags import REQUIRED
from tune_smp.errors import Problem, SettingsError
from tune_smp.settings.base import Settings
from tune_smp.settings.run import RunSettings


@pytest.fixture
def required() -> dict[str, Any]:
    """Values of the flags without a default."""
    return dict(REQUIRED)


Refuse = Callable[..., tuple[Problem, ...]]


@pytest.fixture
def refused() -> Refuse:
    """The problems with these flags, on top of the required ones; fails where there are none."""

    def problems(flags: Mapping[str, Any] | None = None, settings: type[Settings] = RunSettings) -> tuple[Problem, ...]:
        with pytest.raises(SettingsError) as caught:
            settings.from_flags({**REQUIRED, **(flags or {})} if settings is RunSettings else flags or {})
        return caught.value.problems

    return problems
