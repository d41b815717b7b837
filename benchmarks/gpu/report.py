"""What has been measured, as rows that outlive the step that measured them, and in Markdown."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A number, or a word where there is none, and what it should be."""

    what: str
    measured: float | str
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None

    @property
    def goal(self) -> str:
        if self.at_least is not None:
            return f"at least {self.at_least:g}"
        return "" if self.at_most is None else f"at most {self.at_most:g}"

    @property
    def verdict(self) -> str:
        """`reached` or `MISSED`; a word reaches nothing."""
        if not self.goal:
            return ""
        is_number = not isinstance(self.measured, str)
        low = float("-inf") if self.at_least is None else self.at_least
        high = float("inf") if self.at_most is None else self.at_most
        return "reached" if is_number and low <= float(self.measured) <= high else "MISSED"


@dataclass(frozen=True)
class Outcome:
    """A step that has ended: after so many seconds, and how."""

    step: str
    seconds: float
    ended: str
    rows: Sequence[Row]


def append(path: pathlib.Path, row: Row) -> None:
    """Adds a row to a file, so that it is there whatever happens next."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(dataclasses.asdict(row)) + "\n")


def read(path: pathlib.Path) -> list[Row]:
    """The rows of a file, but for a last one that was half written; none where there is no file."""
    if not path.exists():
        return []
    *whole, _ = path.read_text(encoding="utf-8").split("\n")
    return [Row(**json.loads(line)) for line in whole]


def write(path: pathlib.Path, title: str, outcomes: Sequence[Outcome]) -> None:
    """Puts the report in the place of the one that is there."""
    lines = [f"# {title}", "", *_table(("step", "seconds", "ended"), map(_ending, outcomes)), ""]
    rows = (_cells(outcome.step, row) for outcome in outcomes for row in outcome.rows)
    lines += _table(("step", "what", "measured", "goal", ""), rows)
    new = path.with_name(path.name + ".new")
    new.write_text("\n".join(lines) + "\n", encoding="utf-8")
    os.replace(new, path)


def _ending(outcome: Outcome) -> tuple[str, ...]:
    return outcome.step, f"{outcome.seconds:.0f}", outcome.ended


def _cells(step: str, row: Row) -> tuple[str, ...]:
    measured = f"{_text(row.measured)} {row.unit}".strip()
    return step, row.what, measured, row.goal, row.verdict


def _text(measured: float | str) -> str:
    if not isinstance(measured, float):
        return f"{measured:,}" if isinstance(measured, int) else measured
    return f"{measured:,.0f}" if abs(measured) >= 1000 else f"{measured:.3g}"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    return lines + [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
