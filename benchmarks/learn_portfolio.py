"""Learn the portfolio of the space ``quick`` from the recorded curves, and write it.

    python -m benchmarks.learn_portfolio [--seeds 2]

Also printed: what a portfolio learnt on the other groups of collections is worth on each, on images kept back.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.curves import GROUPS, Row, learn_portfolio, read_rows
from benchmarks.record_curves import LEARNT_FROM, recorded_space, table_of
from benchmarks.search_efficiency import PORTFOLIO
from tune_smp.tuning.portfolio import portfolio_values
from tune_smp.tuning.space import SearchSpace
from tune_smp.tuning.space_file import named_spaces, read_space

HEAD = """\
# Tried right after the default by a search of the space quick; --portfolio none leaves them out.
#
# The first has the best net of runs of ten CPU minutes (benchmarks/data/timed_runs.csv); the others were learnt by
# `python -m benchmarks.learn_portfolio`: the configurations that together with it do best, one after the other, on
# images kept back, of those recorded on four collections, 40 CPU seconds each (benchmarks/data/curves_*.csv).
configurations:
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=2, help="runs that a configuration must have")
    seeds = parser.parse_args().seeds
    recorded = recorded_space(Path("/"), LEARNT_FROM[0])
    quick = read_space("quick").without_fixed("stepsPerEpoch").with_flags(recorded.given)
    tables = {name: _within(quick, read_rows(table_of(name), recorded, seeds=seeds)) for name in LEARNT_FROM}
    for name, rows in tables.items():
        others = {other: table for other, table in tables.items() if GROUPS[other] != GROUPS[name]}
        kept = {row.number: row.kept for row in rows}
        learnt = [number for number in learn_portfolio(others, PORTFOLIO) if number in kept]
        print(
            f"{name}: default {kept[0]:.4f}, best of {len(kept)} {max(kept.values()):.4f}, learnt on the others "
            + ", ".join(f"{number}: {kept[number]:.4f}" for number in learnt)
        )
    by_number = {row.number: row for row in tables[LEARNT_FROM[0]]}
    chosen = [by_number[number] for number in learn_portfolio(tables, PORTFOLIO)]
    path = named_spaces()["quick"].parent / "portfolio" / "quick.yaml"
    path.write_text(HEAD + "".join(map(_as_yaml, chosen)), encoding="utf-8")
    print(f"wrote {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")


def _within(space: SearchSpace, rows: list[Row]) -> list[Row]:
    """The default, and the rows that lie in this space."""
    return [row for row in rows if row.number == 0 or portfolio_values(space, [row.flags])]


def _as_yaml(row: Row) -> str:
    flags = [f"{flag}: {value}" for flag, value in row.flags.items()]
    return "  - " + "\n    ".join(flags) + "\n"


if __name__ == "__main__":
    main()
