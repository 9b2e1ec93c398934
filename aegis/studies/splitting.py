"""Splits the rows of a study over simulated sites and a held-out test set, without ever splitting a person.

Files are read and written row by row: the split needs memory for the columns' summaries alone. Whether a person is held
out follows from the person's id alone, so the same id in two files lands on the same side.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

from aegis.errors import InvalidStudy
from coreason_enclave.datasets import ColumnSummary, CsvForm, form_of, plain_number

HELD_OUT = "held-out"
_SLUG = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class SplitPlan:
    """How rows are split.

    Attributes:
        files: the owner's files; one a site, unless ``site_column`` names the column that says which site.
        label, person: columns; ``person`` is None if every row is a person of its own.
        share: the share of persons held out, from 0 to below 1.
    """

    files: Sequence[Path]
    label: str
    person: str | None
    site_column: str | None
    share: float


@dataclass
class SplitRows:
    """The result: row counts, persons by site, and a summary of every column over all rows.

    ``persons`` counts what lies in the sites' folders, for the owner's eyes.
    """

    columns: dict[str, ColumnSummary] = field(default_factory=dict)
    persons: dict[str, set[str]] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)


def is_held_out(person: str, share: float) -> bool:
    """Return True for about ``share`` of all ids, always the same ones."""
    first = hashlib.sha256(b"aegis.studies.held-out.v1\0" + person.encode()).digest()[:8]
    return int.from_bytes(first, "big") < share * 2.0**64


def site_name(text: str) -> str:
    """Return a name for a site's folder: letters, digits, '.', '_' and '-'."""
    name = _SLUG.sub("-", text.strip()).strip("-._")[:64]
    if not name:
        raise InvalidStudy(f"no site can be named after {text!r}: use letters or digits")
    return name.lower()


def split_rows(plan: SplitPlan, folder: Path) -> SplitRows:
    """Write ``folder/<site>.csv`` for each site and ``folder/held-out.csv``; return what was seen.

    The files written are plain CSV (UTF-8, commas, decimal points), whatever the form of the owner's files.

    Raises:
        InvalidStudy: a file lacks a column, two files differ in their columns, or two sites get one name.
        DatasetRejected: a file is not a table with the label.
    """
    seen = SplitRows()
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        writers: dict[str, Any] = {}

        def writer(part: str, names: Sequence[str]) -> Any:
            if part not in writers:
                file = stack.enter_context((folder / f"{part}.csv").open("w", encoding="utf-8", newline=""))
                writers[part] = csv.writer(file)
                writers[part].writerow(names)
            return writers[part]

        for number, (site, row) in enumerate(_rows(plan, seen)):
            person = row[plan.person].strip() if plan.person else f"{site}/{number}"
            part = HELD_OUT if plan.share and is_held_out(person, plan.share) else site
            writer(part, list(seen.columns)).writerow([row[name] for name in seen.columns])
            seen.rows[part] = seen.rows.get(part, 0) + 1
            seen.persons.setdefault(part, set()).add(person)
    return seen


def _rows(plan: SplitPlan, seen: SplitRows) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield each row with its site, cells as plain text, and count the cells in ``seen``."""
    names = {path: site_name(path.name.partition(".")[0]) for path in plan.files}
    if plan.site_column is None and len(set(names.values())) < len(names):
        raise InvalidStudy("two files would be one site: give them different names")
    needed = [name for name in (plan.label, plan.person, plan.site_column) if name is not None]
    for path in plan.files:
        form = form_of(path, needed)
        with _opened(path, form) as file:
            reader = csv.reader(file, delimiter=form.delimiter)
            header = [name.strip() if form.trim else name for name in next(reader)]
            _same_columns(path, header, seen, leave_out=plan.site_column)
            for line, cells in enumerate(reader, start=form.skip_rows + 2):
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise InvalidStudy(f"{path.name}: line {line} has {len(cells)} cells, the header {len(header)}")
                row = {name: plain_number(cell.strip(), form) for name, cell in zip(header, cells, strict=True)}
                for name, column in seen.columns.items():
                    column.take(row[name])
                yield (names[path] if plan.site_column is None else site_name(row[plan.site_column])), row


def _opened(path: Path, form: CsvForm) -> TextIO:
    encoding = "utf-8-sig" if form.encoding == "utf-8" else form.encoding
    raw = gzip.open(path, "rb") if form.compression == "gzip" else path.open("rb")  # noqa: SIM115 - the caller closes it
    text = TextIOWrapper(raw, encoding=encoding, newline="")
    for _ in range(form.skip_rows):
        text.readline()
    return text


def _same_columns(path: Path, header: Sequence[str], seen: SplitRows, *, leave_out: str | None) -> None:
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise InvalidStudy(f"{path.name} has the column {twice[0]!r} twice: rename one")
    kept = [name for name in header if name != leave_out]
    if not seen.columns:
        seen.columns.update({name: ColumnSummary(name) for name in kept})
    elif set(kept) != set(seen.columns):
        other = sorted(set(kept) ^ set(seen.columns))
        raise InvalidStudy(f"{path.name} differs from the first file in its columns: {', '.join(other)}")
