"""Configurations that did well on other collections, which a search tries right after the default."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tune_smp.errors import Problem, SettingsError, nearest
from tune_smp.tuning.first_points import completed_values
from tune_smp.tuning.space import FLAGS, Scalar, SearchSpace
from tune_smp.tuning.space_file import load_yaml, named_spaces
from tune_smp.tuning.space_values import wrong_values

AUTO, NONE = "auto", "none"


def read_portfolio(name: str, space: SearchSpace) -> list[Mapping[str, Scalar]]:
    """The configurations, as flags with values: those that come with the space for ``auto``, or those of a file.

    None for ``none``, and where the space has none. Raises SettingsError where the file cannot be read, or names flags
    or values that there are not.
    """
    if name == NONE:
        return []
    if name == AUTO:
        path = _portfolio_of(space.name)
        if path is None:
            return []
    else:
        path = Path(os.path.expanduser(name))  # noqa: PTH111 - Path's own raises for an unknown user
    try:
        content = load_yaml(path.read_text("utf-8-sig"))
    except (OSError, ValueError) as error:
        fix = f"pass {AUTO}, {NONE}, or a YAML file like those in search_spaces/portfolio"
        reason = str(error).splitlines()[0]
        raise SettingsError(Problem(f"the portfolio cannot be read: {reason}", f"--portfolio {name}", fix)) from error
    return _configurations(content, f"--portfolio {path}")


def portfolio_values(space: SearchSpace, configurations: Sequence[Mapping[str, Scalar]]) -> list[dict[str, Scalar]]:
    """The configurations by domain name, as far as they lie in this space; flags that they leave out are the default's,
    flags that are not searched do not matter."""
    points = [completed_values(space, flags) for flags in configurations]
    return [point for number, point in enumerate(points) if point and point not in points[:number]]


def _portfolio_of(space: str) -> Path | None:
    named = named_spaces().get(space)
    path = named.parent / "portfolio" / named.name if named else None
    return path if path is not None and path.is_file() else None


def _configurations(content: Any, where: str) -> list[Mapping[str, Scalar]]:
    rows = content.get("configurations") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) and row for row in rows):
        fix = "write configurations: and below it a list of flags with values, like those in search_spaces/portfolio"
        raise SettingsError(Problem("a portfolio is a list of configurations", where, fix))
    problems = [problem for row in rows for flag, value in row.items() for problem in _wrong(str(flag), value)]
    if problems:
        raise SettingsError(dict.fromkeys(Problem(found.problem, where, found.fix) for found in problems))
    return rows


def _wrong(flag: str, value: Any) -> Iterable[Problem]:
    if flag not in FLAGS:
        return [Problem(f"there is no flag {flag!r}", fix=nearest(flag, FLAGS))]
    return wrong_values(flag, value)
