"""The review of a suggested schema on a terminal: a table, and a question for each range."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from coreason_enclave.command_line import printable
from coreason_enclave.errors import DatasetRejected

if TYPE_CHECKING:
    from coreason_enclave.datasets import Suggestion

_MOST_SHOWN = 6
_WIDTH = 110
"""Columns of the table where no terminal shows it."""


class Reviewer:
    """Shows a suggestion to its owner, and asks for the ranges that are publicly known.

    Args:
        ask: False takes all suggestions.
        to_stderr: keep standard output for a program.
    """

    def __init__(self, *, ask: bool, to_stderr: bool) -> None:
        self._ask, self._to_stderr = ask, to_stderr

    def review(self, suggestion: Suggestion) -> Suggestion:
        """Return the suggestion as its owner wants it.

        Raises:
            DatasetRejected: the owner left no feature.
        """
        self._show(suggestion)
        if not self._ask:
            return suggestion
        self._say("For each range: what is publicly known? Enter keeps the suggestion, LOW HIGH states a range,")
        self._say("- leaves the column out.")
        for name in list(suggestion.ranges):
            suggestion = self._one(suggestion, name)
        return suggestion

    def _one(self, suggestion: Suggestion, name: str) -> Suggestion:
        low, high = suggestion.ranges[name]
        while True:
            answer = click.prompt(
                f"{printable(name)}, suggested {low:g} {high:g}", default="", show_default=False, err=self._to_stderr
            ).strip()
            if not answer:
                return suggestion
            try:
                return suggestion.leaving_out(name) if answer == "-" else suggestion.stating(name, *_range(answer))
            except DatasetRejected as error:
                self._say(f"  {error}")

    def _show(self, suggestion: Suggestion) -> None:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table("column", "kind", "values", "missing", "suggested from", title="the schema that the rows suggest")
        rows = [("label", dict(suggestion.label), suggestion.label.get("column"))]
        rows += [("", dict(feature), feature["name"]) for feature in suggestion.features]
        for role, entry, name in rows:
            shown = name or ", ".join(entry.get("columns", ()))
            kind = f"label: {entry.get('task', 'classes')}" if role else entry.get("kind", "number")
            cells = (shown, kind, _values(entry), str(entry.get("missing", "refused")) if not role else "refused")
            table.add_row(*(Text(printable(cell)) for cell in (*cells, _source(suggestion.remarks.get(shown, "")))))
        for name in suggestion.left_out:
            table.add_row(Text(printable(name)), "left out", "see below", "", "")
        wide = None if sys.stdout.isatty() else _WIDTH
        Console(stderr=self._to_stderr, highlight=False, width=wide).print(table)
        for name, why in suggestion.left_out.items():
            self._say(f"left out: {printable(name)}: {printable(why)}")

    def _say(self, line: str) -> None:
        click.echo(line, err=self._to_stderr)


def _source(remark: str) -> str:
    return "rows" if "suggested from rows" in remark else remark


def _values(entry: dict[str, Any]) -> str:
    if "high" in entry:
        return f"{entry.get('low', 0):g} to {entry['high']:g}"
    if "cuts" in entry:
        return "until " + ", ".join(f"{cut:g}" for cut in entry["cuts"])
    words = entry.get("categories") or entry.get("values")
    if words is None:
        return f"0 to {entry['classes'] - 1}" if "classes" in entry else "yes or no"
    more = f", … ({len(words)})" if len(words) > _MOST_SHOWN else ""
    return f"{', '.join(words[:_MOST_SHOWN])}{more}"


def _range(answer: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in answer.replace(",", " ").split())
    except ValueError:
        raise DatasetRejected(f"{answer!r} is no range: two numbers, such as 0 100") from None
    return low, high
