"""``coreason-enclave dataset init``: drafts a declaration of a site's rows, beside a copy of the rows."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coreason_enclave.command_line import one_line, printable
from coreason_enclave.commands.dataset_place import FILE, FOLDER, config_option, place_of
from coreason_enclave.errors import ConfigurationError, DatasetRejected

if TYPE_CHECKING:
    from coreason_enclave.datasets import DraftPlan

_TASKS = ("binary", "multiclass", "multilabel", "regression", "count", "survival")
_OF_LABEL = ("labels", "task", "event", "cuts", "low", "high")


@click.command(epilog="Example: … dataset init visits.csv --dataset-id clinic/visits --label visited --person patient")
@click.argument("file", type=FILE)
@click.option("--dataset-id", required=True, help="Name of the dataset; its folder below the data root.")
@click.option(
    "--label",
    "labels",
    metavar="COLUMN",
    multiple=True,
    help="What is predicted; several for --task multilabel. For npz: y.",
)
@click.option("--person", metavar="COLUMN", help="The person behind a row [every row is a person of its own].")
@click.option("--task", type=click.Choice(_TASKS), help="The kind of prediction [by the label].")
@click.option("--event", metavar="COLUMN", help="survival: whether the event ended the time in --label.")
@click.option("--cuts", metavar="A,B,C", help="survival: the ends of the intervals [suggested from rows].")
@click.option("--low", type=float, help="regression: the label's smallest value, publicly known [from rows].")
@click.option("--high", type=float, help="regression, count: the label's largest value, publicly known [from rows].")
@click.option("--no-header", is_flag=True, help="The file has no line of names: give --columns.")
@click.option("--columns", metavar="A,B,C", help="The names of all columns, in order, for --no-header.")
@click.option("--missing", metavar="TEXT", multiple=True, help="A further spelling of a missing cell, such as -9.")
@click.option("--images", type=FOLDER, help="A folder of PNG and JPEG files; FILE is the table of their labels.")
@click.option("--image-column", metavar="COLUMN", help="images: the column with the names of the files.")
@click.option("--stretch", metavar="HEIGHT,WIDTH", help="images: stretch all to this size [all have one size].")
@click.option("--public", is_flag=True, help="The rows may be published as a whole.")
@click.option("--dictionary", type=FILE, help="A study's dictionary.toml: nothing is then suggested from rows.")
@config_option
def init(file: Path, dataset_id: str, folder: Path, images: Path | None, **chosen: Any) -> None:
    """Write dataset.toml for the rows in FILE (CSV, Parquet, npz), beside a copy of FILE below the data root.

    Replaces no file. Without --dictionary, what is suggested from rows is marked, and has to be replaced.
    """
    from coreason_enclave.datasets import draft
    from coreason_enclave.system import PRIVATE, create_file

    place = place_of(folder, dataset_id)
    declaration = place / "dataset.toml"
    if declaration.exists() or declaration.is_symlink():
        raise ConfigurationError(f"{declaration} exists: edit it, or choose another --dataset-id")
    if images is not None and images.is_symlink():
        raise ConfigurationError(f"{images} is a symbolic link: name the folder itself")
    try:
        plan = _plan(file, dataset_id, place, images, **chosen)
        drafted = draft(plan)
    except DatasetRejected as refused:
        raise ConfigurationError(one_line(refused)) from refused
    with _undone_on_failure() as made:
        if not _lies_in(file, place):
            made.copy(file, place / plan.file)
        if images is not None and plan.folder is not None and not _within(images, place):
            for name in drafted.images:
                made.copy(images / name, place / plan.folder / name)
        made.folder(place)
        create_file(declaration, drafted.text.encode(), mode=PRIVATE)
    click.echo(f"wrote {declaration}, for this site's own eyes")
    for name, why in drafted.left_out.items():
        click.echo(printable(f"left out {name!r}: {why}"))
    if plan.dictionary is None:
        click.echo("replace each entry marked 'suggested from rows' by what is publicly known")
    click.echo(f"then: coreason-enclave dataset check {dataset_id} --config {folder / 'site.toml'}")


def _plan(file: Path, dataset_id: str, place: Path, images: Path | None, **chosen: Any) -> DraftPlan:
    from coreason_enclave.datasets import DataDictionary, DraftPlan
    from coreason_enclave.schemas import Task

    _require_fitting(images, chosen)
    dictionary, task = chosen["dictionary"], chosen["task"]
    return DraftPlan(
        path=file,
        file=file.name if _lies_in(file, place) else _name_of(file, images),
        dataset_id=dataset_id,
        public=chosen["public"],
        labels=chosen["labels"],
        person=chosen["person"],
        task=None if task is None else Task(task),
        event=chosen["event"],
        cuts=_cuts(chosen["cuts"]),
        low=chosen["low"],
        high=chosen["high"],
        columns=_names(chosen["columns"]),
        missing=chosen["missing"],
        images=images,
        folder=None if images is None else _name_of_folder(images, place),
        image_column=chosen["image_column"],
        stretch=_size(chosen["stretch"]),
        dictionary=None if dictionary is None else DataDictionary.read(dictionary),
    )


def _require_fitting(images: Path | None, chosen: dict[str, Any]) -> None:
    """Refuse options that contradict each other."""
    survival = chosen["task"] == "survival"
    if (chosen["event"] and not survival) or (chosen["cuts"] and not survival):
        raise click.UsageError("--event and --cuts go with --task survival")
    if len(chosen["labels"]) > 1 and chosen["task"] != "multilabel":
        raise click.UsageError("several --label go with --task multilabel")
    if chosen["no_header"] != bool(chosen["columns"]):
        raise click.UsageError("--no-header and --columns go together: name every column in order")
    if (images is None) != (chosen["image_column"] is None) or (chosen["stretch"] and images is None):
        raise click.UsageError("--images and --image-column go together, and --stretch goes with them")
    if chosen["dictionary"] is not None and any(chosen[name] not in (None, ()) for name in _OF_LABEL):
        raise click.UsageError("--dictionary declares the label: leave --label and the options about it out")
    if chosen["dictionary"] is not None and chosen["stretch"]:
        raise click.UsageError("--dictionary says what becomes of images of another size: leave --stretch out")
    _require_one_role(chosen)


def _require_one_role(chosen: dict[str, Any]) -> None:
    roles: list[tuple[str, str | None]] = [("--label", label) for label in chosen["labels"]]
    roles += [(f"--{role.replace('_', '-')}", chosen[role]) for role in ("event", "person", "image_column")]
    seen: dict[str, str] = {}
    for option, column in roles:
        if column is not None and column in seen:
            raise click.UsageError(f"{seen[column]} and {option} both name the column {column!r}: one role a column")
        if column is not None:
            seen[column] = option


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(name.strip() for name in text.split(","))


def _cuts(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        cuts = tuple(float(cut) for cut in text.split(","))
    except ValueError:
        raise click.UsageError(f"--cuts takes numbers such as 30,90,365, got {text!r}") from None
    if not all(0 < cut < float("inf") for cut in cuts) or list(cuts) != sorted(set(cuts)):
        raise click.UsageError(f"--cuts must increase from above 0, got {text!r}")
    return cuts


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise click.UsageError(f"--stretch takes a height and a width such as 64,64, got {text!r}")
    return int(parts[0]), int(parts[1])


def _lies_in(file: Path, place: Path) -> bool:
    return place.resolve() == file.resolve().parent


def _within(images: Path, place: Path) -> bool:
    return images.resolve() != place.resolve() and images.resolve().is_relative_to(place.resolve())


def _name_of(file: Path, images: Path | None) -> str:
    """Return the name of a copy: the reader tells Parquet from CSV in a table of labels by its name."""
    from coreason_enclave.datasets import DataFormat, source_format

    suffix = {DataFormat.PARQUET: "parquet", DataFormat.NPZ: "npz"}.get(source_format(file), "csv")
    return f"{'rows' if images is None else 'labels'}.{suffix}"


def _name_of_folder(images: Path, place: Path) -> str:
    return images.resolve().relative_to(place.resolve()).as_posix() if _within(images, place) else "images"


@dataclass
class _Made:
    """Files and folders that a command has made so far, in order."""

    paths: list[Path] = field(default_factory=list)

    def folder(self, path: Path) -> None:
        """Make a folder and those above it."""
        if path.is_dir():
            return
        self.folder(path.parent)
        path.mkdir(mode=0o700)
        self.paths.append(path)

    def copy(self, file: Path, target: Path) -> None:
        """Copy a file's bytes, durably, to a name that is free."""
        self.folder(target.parent)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        self.paths.append(target)
        with os.fdopen(descriptor, "wb") as copy, file.open("rb") as rows:
            shutil.copyfileobj(rows, copy)
            copy.flush()
            os.fsync(descriptor)


@contextmanager
def _undone_on_failure() -> Iterator[_Made]:
    """Yield a record of what the body makes, and remove all of it if the body fails."""
    made = _Made()
    try:
        yield made
    except BaseException:
        for path in reversed(made.paths):
            path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
        raise
