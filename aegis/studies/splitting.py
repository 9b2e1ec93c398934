"""Splits the rows of a study over simulated sites and a held-out test set, without ever splitting a person.

- Whether a person is held out follows from the person's id alone (of the group's name, where groups are kept together),
  so neither the order of rows nor the order of files matters. Spellings of one id (``7``, ``007``) count as one.
- Where every row is a person of its own, the row's content decides: equal rows fall on the same side.
- With a file of held-out rows, a person in that file and in a site's file is refused; so is a row, without persons.
- Files are read and written row by row. Memory holds the columns' summaries and the ids of persons (with a file of
  held-out rows and no persons: a digest of each row).
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aegis.errors import InvalidStudy
from aegis.studies.owner_files import OwnerFile, open_owner_file
from coreason_enclave.datasets import ColumnSummary, DataFormat, person_fold

HELD_OUT = "held-out"
MAX_SITES = 100
_SLUG = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class SplitPlan:
    """How rows are split.

    Attributes:
        files: the owner's files; one a site, unless ``site_column`` names the column that says which site.
        label, person: columns; ``person`` is None if every row is a person of its own.
        share: the share of persons held out, from 0 to below 1.
        also: further columns of the label.
        group: a column whose equal values stay on one side of the hold-out, such as a family; no feature.
        held_out: a file of held-out rows, in place of a share.
        columns: the names of all columns, for CSV files without a header.
        missing: further spellings of a missing cell.
        image_column: the column of file names, where ``files`` are folders of images; None: found by its cells.
    """

    files: Sequence[Path]
    label: str
    person: str | None
    site_column: str | None
    share: float
    also: Sequence[str] = ()
    group: str | None = None
    held_out: Path | None = None
    columns: Sequence[str] | None = None
    missing: Sequence[str] = ()
    image_column: str | None = None

    @property
    def needed(self) -> tuple[str, ...]:
        """The columns that every file must have."""
        named = (self.label, *self.also, self.person, self.group)
        return tuple(dict.fromkeys(name for name in named if name is not None))

    def open(self, path: Path) -> OwnerFile:
        """Return one of the files; a held-out file needs no column for the site."""
        sites = [self.site_column] if self.site_column and path != self.held_out else []
        return open_owner_file(path, [*self.needed, *sites], columns=self.columns, missing=self.missing)


@dataclass
class SplitRows:
    """The result: rows and units of privacy by part, and a summary of every column over all rows.

    Attributes:
        persons: ids by part, for the owner's eyes; empty if every row is a person of its own.
        groups: a number for the group of each held-out row, in the file's order; empty without groups.
    """

    columns: dict[str, ColumnSummary] = field(default_factory=dict)
    persons: dict[str, set[str]] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    groups: list[int] = field(default_factory=list)
    _group_numbers: dict[str, int] = field(default_factory=dict)

    def count(self, part: str, person: str | None, group: str | None) -> None:
        """Count a row that was written to a part."""
        self.rows[part] = self.rows.get(part, 0) + 1
        if part == HELD_OUT and group is not None:
            self.groups.append(self._group_numbers.setdefault(group, len(self._group_numbers)))
        if person is not None:
            self.persons.setdefault(part, set()).add(person)

    @property
    def sites(self) -> list[str]:
        """The sites' names, sorted."""
        return sorted(self.rows.keys() - {HELD_OUT})

    def units(self, part: str) -> int:
        """Return the number of persons in a part."""
        return len(self.persons[part]) if part in self.persons else self.rows.get(part, 0)

    @property
    def sites_are_disjoint(self) -> bool:
        """Tell whether no person is at two sites."""
        at_sites = [self.persons.get(site, set()) for site in self.sites]
        return sum(map(len, at_sites)) == len(set().union(*at_sites))


def is_held_out(key: str, share: float) -> bool:
    """Return True for about ``share`` of all keys, always the same ones."""
    first = hashlib.sha256(b"aegis.studies.held-out.v1\0" + key.encode()).digest()[:8]
    return int.from_bytes(first, "big") < share * 2.0**64


def site_name(text: str) -> str:
    """Return a name for a site's folder: letters, digits, '.', '_' and '-'."""
    name = _SLUG.sub("-", text.strip()).strip("-._")[:64].lower()
    if not name or name == HELD_OUT:
        raise InvalidStudy(f"no site can be named {text!r}: use letters or digits, and not {HELD_OUT!r}")
    return name


def site_names(files: Sequence[Path]) -> dict[Path, str]:
    """Return the site of each file; raise :class:`InvalidStudy` if two files give one name."""
    names: dict[Path, str] = {}
    for path in files:
        name = site_name(path.name.partition(".")[0])
        if name in names.values():
            raise InvalidStudy(f"two files would be the site {name!r}: give each file a name of its own")
        names[path] = name
    return names


def split_rows(plan: SplitPlan, folder: Path) -> SplitRows:
    """Write ``folder/<site>.csv`` for each site and ``folder/held-out.csv``; return what was seen.

    The files written are plain CSV (UTF-8, commas, decimal points), whatever the form of the owner's files.

    Raises:
        InvalidStudy: a file lacks a column, two files differ in their columns, a person's id is missing, two sites get
            one name, or a part is left empty.
        DatasetRejected: a file is not a table with the label.
    """
    seen, sides = SplitRows(), Sides(plan)
    folder.mkdir(parents=True, exist_ok=True)
    rows = _rows(plan, seen)  # the first file's header is known from here on
    with ExitStack() as stack:
        writers: dict[str, Any] = {}
        for place, site, row in rows:
            person, part = sides.part(place, site, row)
            if part not in writers:
                file = stack.enter_context((folder / f"{part}.csv").open("w", encoding="utf-8", newline=""))
                writers[part] = csv.writer(file)
                writers[part].writerow(list(seen.columns))
            writers[part].writerow([row[name] for name in seen.columns])
            seen.count(part, person, None if plan.group is None else row[plan.group])
    require_none_empty(plan, seen, sides.sites)
    return seen


class Sides:
    """Decides on which side each person falls, and refuses rows that would put a person or a group on two sides."""

    def __init__(self, plan: SplitPlan) -> None:
        self._plan = plan
        self._group_of: dict[str, str] = {}
        self._file_side: dict[str, bool] = {}
        self._place_of: dict[bytes, str] = {}
        self.sites: set[str] = set()

    def part(self, place: str, site: str, row: Mapping[str, str], content: str | None = None) -> tuple[str | None, str]:
        """Return the person's id, if any, and the part: a site or ``HELD_OUT``.

        Args:
            content: decides for a row that is a person of its own; None: all of the row's cells.
        """
        plan = self._plan
        person = None if plan.person is None else person_fold(self._cell(place, row, plan.person))
        group = None if plan.group is None else self._cell(place, row, plan.group)
        if person is not None and group is not None and self._group_of.setdefault(person, group) != group:
            raise InvalidStudy(
                f"{place}: this row's {plan.person} has rows in two groups of {plan.group!r}: settle on one"
            )
        self.sites |= {site} - {HELD_OUT}
        key = f"group/{group}" if group is not None else person
        if plan.held_out is not None and key is not None:
            on_file = site == HELD_OUT
            if self._file_side.setdefault(key, on_file) != on_file:
                who = plan.person if group is None else plan.group
                raise InvalidStudy(
                    f"{place}: this row's {who} is in a site's file and in {plan.held_out}: hold out others"
                )
        if plan.held_out is not None and key is None:
            shared = {name: cell for name, cell in row.items() if name != plan.site_column}
            self._require_other_row(place, site, _content(shared) if content is None else content)
        if site == HELD_OUT or not plan.share:
            return person, site
        if key is None:
            key = _content(row) if content is None else content
        return person, HELD_OUT if is_held_out(key, plan.share) else site

    def _require_other_row(self, place: str, site: str, content: str) -> None:
        """Refuse a held-out row that a site's file has, too; where persons are named, equal rows may be of two."""
        digest = hashlib.blake2b(content.encode(), digest_size=16).digest()
        if site != HELD_OUT:
            self._place_of.setdefault(digest, place)
        elif digest in self._place_of:
            raise InvalidStudy(
                f"{place} equals {self._place_of[digest]}: hold out other rows, or name persons with --person"
            )

    @staticmethod
    def _cell(place: str, row: Mapping[str, str], name: str) -> str:
        if not row[name]:
            raise InvalidStudy(f"{place} has no {name}: fill the cell, or leave the row out")
        return row[name]


def _content(row: Mapping[str, str]) -> str:
    return "\0".join(f"{name}\0{row[name]}" for name in sorted(row))


def _rows(plan: SplitPlan, seen: SplitRows) -> Iterator[tuple[str, str, Mapping[str, str]]]:
    """Yield each row with its place and part (a site, or ``HELD_OUT``), and count the cells in ``seen``."""
    names = {} if plan.site_column else site_names(plan.files)
    spelled: dict[str, str] = {}
    for path in [*plan.files, *([plan.held_out] if plan.held_out else [])]:
        file = plan.open(path)
        if file.format is DataFormat.NPZ:
            raise InvalidStudy(f"{path} holds arrays, and other files hold tables: give files of one kind")
        _same_columns(file, seen, leave_out={plan.site_column, plan.group})
        before = seen.columns[plan.label].rows
        for place, row in file.rows():
            for name, column in seen.columns.items():
                column.take(row[name])
            where = f"{path}: {place}"
            part = HELD_OUT if path == plan.held_out else names.get(path) or named_site(plan, spelled, row, where)
            yield f"{path}: {place}", part, row
        if seen.columns[plan.label].rows == before:
            raise InvalidStudy(f"{path} has a header and no rows")


def named_site(plan: SplitPlan, spelled: dict[str, str], row: Mapping[str, str], place: str) -> str:
    """Return the site that the site column names."""
    text = row[plan.site_column or ""]
    if not text:
        raise InvalidStudy(f"{place} has no {plan.site_column}: every row needs its site")
    name = site_name(text)
    if spelled.setdefault(name, text) != text:
        raise InvalidStudy(
            f"{plan.site_column!r} spells one site in two ways, {spelled[name]!r} and {text!r}: settle on one"
        )
    if len(spelled) > MAX_SITES:
        raise InvalidStudy(f"{plan.site_column!r} has more than {MAX_SITES} values: that is no column of sites")
    return name


def _same_columns(file: OwnerFile, seen: SplitRows, *, leave_out: set[str | None]) -> None:
    kept = [name for name in file.names if name not in leave_out]
    if not seen.columns:
        seen.columns.update({name: ColumnSummary(name) for name in kept})
    elif set(kept) != set(seen.columns):
        missing, extra = sorted(set(seen.columns) - set(kept)), sorted(set(kept) - set(seen.columns))
        words = [f"has no column {missing[0]!r}"] if missing else []
        words += [f"has a column {extra[0]!r} that the first file lacks"] if extra else []
        raise InvalidStudy(f"{file.path} {' and '.join(words)}: all files need the same columns")


def require_none_empty(plan: SplitPlan, seen: SplitRows, sites: set[str]) -> None:
    empty = sorted(sites - seen.rows.keys())
    if empty:
        raise InvalidStudy(f"--holdout {plan.share:g} leaves the site {empty[0]!r} without rows: hold out fewer")
    if plan.share and HELD_OUT not in seen.rows:
        raise InvalidStudy(f"--holdout {plan.share:g} takes no row out of so few: hold out more, or 0")
