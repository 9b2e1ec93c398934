"""Images split over simulated sites: each part becomes a table of labels and a folder with copies of its images.

The written table has the label, the person and the image, and no other column. Every image is decoded once, so that a
study never starts with a file that a site would refuse.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from aegis.errors import InvalidStudy
from aegis.studies.image_files import LabelledFolder, open_labelled_folder
from aegis.studies.splitting import (
    HELD_OUT,
    Sides,
    SplitPlan,
    SplitRows,
    named_site,
    require_none_empty,
    site_names,
)
from coreason_enclave.datasets import MAX_FILE_BYTES, ColumnSummary, NamedImages, UnfitImage, decode_image

TABLE = "labels.csv"
PICTURES = "pictures"
_CHANNELS = {1: "grey", 3: "RGB"}
_LONGEST = 100
_IMAGE = "\0image"
"""The key of a row's image, whatever the table calls the column."""


@dataclass
class SplitImages(SplitRows):
    """The result: counts as for tables, the label's columns, and the one shape of all images.

    Attributes:
        column: the written tables' column of file names.
        shape: channels, height, width.
        names, sizes: the copies' names, and the sum of their bytes, by part.
    """

    column: str = ""
    shape: tuple[int, ...] = ()
    names: dict[str, set[str]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    def take_image(self, part: str, size: int) -> None:
        """Count the bytes of a counted row's image; raise :class:`InvalidStudy` beyond what a site reads."""
        self.sizes[part] = self.sizes.get(part, 0) + size
        if max(self.sizes[part], self.rows[part] * prod(self.shape)) > MAX_FILE_BYTES:
            raise InvalidStudy(
                f"{part} has more images than a site reads, {MAX_FILE_BYTES} bytes or decoded values: make them "
                "smaller, or spread them over more sites"
            )


def split_images(plan: SplitPlan, folder: Path) -> SplitImages:
    """Write ``folder/<part>/labels.csv`` and ``folder/<part>/pictures/`` for each site and the held-out rows.

    Raises:
        InvalidStudy: a folder is no set of images with a table, a table lacks a column, a row has no usable image,
            images differ in size, or a part is left empty.
    """
    seen, sides = SplitImages(), Sides(plan)
    seen.columns.update({name: ColumnSummary(name) for name in (plan.label, *plan.also)})
    with ExitStack() as stack:
        writers: dict[str, Any] = {}
        for place, site, row, data in _rows(plan, seen):
            digest = hashlib.sha256(data).hexdigest()
            person, part = sides.part(place, site, row, digest)
            if part not in writers:
                writers[part] = csv.writer(stack.enter_context(_table(folder / part)))
                writers[part].writerow([*_kept(plan), seen.column])
            name = _free(row[_IMAGE], seen.names.setdefault(part, set()))
            (folder / part / PICTURES / name).write_bytes(data)
            writers[part].writerow([*(row[column] for column in _kept(plan)), name])
            seen.count(part, person, None if plan.group is None else row[plan.group])
            seen.take_image(part, len(data))
    require_none_empty(plan, seen, sides.sites)
    return seen


def image_declaration(dataset_id: str, plan: SplitPlan, split: SplitImages, label: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of ``dataset.toml`` for the split images; the range is that of 8 bits, not of the rows."""
    return {
        "version": 1,
        "dataset_id": dataset_id,
        "format": "images",
        "file": TABLE,
        "folder": PICTURES,
        "image_column": split.column,
        "public": True,
        **({"unit_column": plan.person} if plan.person else {}),
        "label": dict(label),
        "tensor": {"shape": list(split.shape), "low": 0.0, "high": 255.0},
    }


def _kept(plan: SplitPlan) -> tuple[str, ...]:
    return (*([plan.person] if plan.person else []), plan.label, *plan.also)


def _table(folder: Path) -> Any:
    (folder / PICTURES).mkdir(parents=True)
    return (folder / TABLE).open("w", encoding="utf-8", newline="")


def _free(name: str, taken: set[str]) -> str:
    """Return a name that no copy in the part has: two sites' images may share one and meet among the held-out."""
    free, count = name, 1
    while free in taken:
        count += 1
        free = f"{count}-{name[-_LONGEST:]}"
    taken.add(free)
    return free


def _rows(plan: SplitPlan, seen: SplitImages) -> Iterator[tuple[str, str, Mapping[str, str], bytes]]:
    """Yield each row with its place, its site or ``HELD_OUT``, its cells and its image; count labels in ``seen``."""
    names = {} if plan.site_column else site_names(plan.files)
    spelled: dict[str, str] = {}
    for path in [*plan.files, *([plan.held_out] if plan.held_out else [])]:
        images, before = _open(plan, path), seen.columns[plan.label].rows
        seen.column = seen.column or images.column
        with images.images() as named:
            for where, row in images.rows():
                place = f"{images.table.path}: {where}"
                part = HELD_OUT if path == plan.held_out else names.get(path) or named_site(plan, spelled, row, place)
                for column in seen.columns.values():
                    column.take(row[column.name])
                name = row[images.column]
                yield place, part, {**row, _IMAGE: name}, _image(named, place, name, seen)
        if seen.columns[plan.label].rows == before:
            raise InvalidStudy(f"{images.table.path} has a header and no rows")


def _open(plan: SplitPlan, path: Path) -> LabelledFolder:
    sites = [plan.site_column] if plan.site_column and path != plan.held_out else []
    needed = [*plan.needed, *sites]
    return open_labelled_folder(
        path, needed, image_column=plan.image_column, columns=plan.columns, missing=plan.missing
    )


def _image(named: NamedImages, place: str, name: str, seen: SplitImages) -> bytes:
    """Return the bytes of a row's image, once decoded; the first image sets the shape of all."""
    try:
        data = named.read(name)
        shape = decode_image(data).shape
    except UnfitImage as unfit:
        raise InvalidStudy(f"{place}: {unfit}") from None
    seen.shape = seen.shape or shape
    if shape != seen.shape:
        raise InvalidStudy(f"{place}: the image is {_words(shape)}, the first one {_words(seen.shape)}: save all alike")
    return data


def _words(shape: tuple[int, ...]) -> str:
    return f"{_CHANNELS[shape[0]]}, {shape[2]} wide and {shape[1]} high"
