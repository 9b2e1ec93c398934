"""A drafted ``dataset.toml`` as text: entries computed from rows carry a mark, which registration looks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tomlkit

SUGGESTED = "suggested from rows: replace by what is publicly known"
"""The mark of every entry that was computed from rows."""

_COMPUTED = frozenset(
    {"low", "high", "missing", "since", "categories", "true", "false", "classes", "values", "cuts"}  # of these tables:
)
_TABLES = ("label", "features", "tensor")


def drafted_text(
    document: Mapping[str, Any], *, stated: Mapping[str, frozenset[str]] | None, left_out: Mapping[str, str]
) -> str:
    """Return TOML: plain entries, then tables.

    Args:
        stated: for the name of a table, entries that its owner stated or that follow from no row, which get no mark;
            None if nothing was computed from rows.
        left_out: for each column that is no feature, why; a reason may quote a cell, and so carries the mark.
    """
    written = tomlkit.document()
    if stated is not None:
        _remark(written, "SUGGESTED FROM ROWS, for this site's own eyes: each marked entry would publish a private")
        _remark(written, "value. Write what is publicly known, and delete the mark; `dataset register` looks for it.")
        for name, why in left_out.items():
            _remark(written, f"left out: {name!r}: {why}  # {SUGGESTED}")
    tables = {name: value for name, value in document.items() if isinstance(value, dict) or _is_tables(value)}
    for name, value in document.items():
        if name not in tables:
            written[name] = value
    for name, value in tables.items():
        marked = frozenset[str]()
        if stated is not None and name in _TABLES:
            marked = _COMPUTED - stated.get(name, frozenset())
        written[name] = _table(value, marked) if isinstance(value, dict) else _tables(value, marked)
    return tomlkit.dumps(written)


def _remark(document: tomlkit.TOMLDocument, text: str) -> None:
    document.add(tomlkit.comment(text))


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, dict) for each in value)


def _tables(entries: Sequence[Mapping[str, Any]], marked: frozenset[str]) -> tomlkit.items.AoT:
    written = tomlkit.aot()
    for each in entries:
        written.append(_table(each, marked))
    return written


def _table(entries: Mapping[str, Any], marked: frozenset[str]) -> tomlkit.items.Table:
    table = tomlkit.table()
    for name, value in entries.items():
        item = tomlkit.item(value)
        table[name] = item
        if name in marked:
            item.comment(SUGGESTED)
    return table


def marks(text: str) -> Sequence[int]:
    """Return the numbers of the lines, from 1, that still carry the mark."""
    return [number for number, line in enumerate(text.splitlines(), start=1) if SUGGESTED in line]
