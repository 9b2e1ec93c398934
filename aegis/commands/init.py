"""``aegis init``: creates a study from its owner's files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aegis.errors import InvalidStudy

if TYPE_CHECKING:
    from aegis.federation import FederationFolder
    from aegis.studies import StudyOptions

_TASKS = ("binary", "multiclass", "multilabel", "regression", "count", "survival")
_LAST_CUT, _MOST_CUTS = 1e9, 1000
"""What ``dataset.toml`` takes."""
_MODELS = ("Linear", "MLP", "TabularResNet", "CNN")


@click.command(
    epilog="\b\nExample: aegis init study --data north.csv --data south.csv --label malignant --person patient_id"
    "\nImages:  aegis init study --data north/ --data south/ --label malignant --person patient_id"
)
@click.argument("folder", metavar="STUDY", type=click.Path(path_type=Path))
@click.option(
    "--data",
    "files",
    metavar="FILE|FOLDER",
    multiple=True,
    type=click.Path(path_type=Path),
    required=True,
    help="Rows: CSV (any delimiter or encoding, gzip too), Parquet, npz with x and y, or a folder of PNG and JPEG "
    "images with one table of labels. One a site.",
)
@click.option("--site-column", metavar="COLUMN", help="One file for all sites: the column that names the site.")
@click.option(
    "--label",
    "labels",
    metavar="COLUMN",
    multiple=True,
    required=True,
    help="What is predicted; several for --task multilabel. For npz: y.",
)
@click.option("--person", metavar="COLUMN", help="The person behind a row: privacy hides the person with all rows.")
@click.option("--group", metavar="COLUMN", help="Rows that stay together when rows are held out, such as a family.")
@click.option("--task", type=click.Choice(_TASKS), help="The kind of prediction.  [default: by the label]")
@click.option(
    "--image-column",
    metavar="COLUMN",
    help="Folders of images: the column of file names.  [default: the one whose first cell ends in .png, .jpg, .jpeg]",
)
@click.option("--event", metavar="COLUMN", help="survival: whether the event ended the time in --label.")
@click.option("--cuts", metavar="A,B,C", help="survival: the ends of the intervals.  [default: suggested from rows]")
@click.option(
    "--holdout",
    metavar="SHARE|FILE|FOLDER",
    default="0.2",
    show_default=True,
    help="Share of persons held out as the evaluation set, or held-out rows of their own. 0: none.",
)
@click.option(
    "--public-holdout",
    is_flag=True,
    help="Real sites: declare that the rows of --holdout FILE are public. Such a file is refused without.",
)
@click.option("--no-header", is_flag=True, help="The files have no line of names: give --columns.")
@click.option("--columns", metavar="A,B,C", help="The names of all columns, in order, for --no-header.")
@click.option("--missing", metavar="TEXT", multiple=True, help="A further spelling of a missing cell, such as -9.")
@click.option(
    "--model", type=click.Choice(_MODELS), help="Architecture.  [default: CNN for images that fit it, else Linear]"
)
@click.option(
    "--epsilon",
    type=click.FloatRange(0, 1000, min_open=True),
    default=3.0,
    show_default=True,
    help="Cap on the privacy loss of one run, at each site.",
)
@click.option(
    "--rounds", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Rounds of 5 local steps."
)
@click.option(
    "--federation",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Write the same job for the sites of this federation. No row is copied.",
)
@click.option(
    "--profile",
    type=click.Choice(["development", "unattested"]),
    default="development",
    show_default=True,
    help="development: SIMULATED sites on this machine. unattested: real sites on hosts without a TEE.",
)
@click.option("--yes", is_flag=True, help="Take all suggestions without asking.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object about the study.")
def init(
    folder: Path,
    as_json: bool,
    yes: bool,
    federation: Path | None,
    profile: str,
    public_holdout: bool,
    **chosen: Any,
) -> None:
    """Create a study: its job, its data dictionary, and SIMULATED sites with the rows of your files.

    Shows the schema that the rows suggest, and asks what is publicly known: every range, list of categories or class
    that stays as suggested comes from rows, and would publish private values at a real site. Nothing is overwritten.

    Next: aegis run STUDY
    """
    from aegis.commands.review import Reviewer
    from aegis.federation import FederationFolder

    if not yes and not _at_a_terminal():
        raise click.UsageError("nobody can be asked here: review on a terminal, or take all suggestions with --yes")
    options = _options(folder, Reviewer(ask=not yes, to_stderr=as_json), **chosen)
    real = federation is not None or profile != "development"
    _require_public(options.split.held_out, real, public_holdout)
    if real:
        _for_real_sites(folder, options, None if federation is None else FederationFolder(federation), as_json)
        return
    from aegis.studies import create_study

    created = create_study(folder, options)
    sites = {
        site: {"rows": created.split.rows[site], "persons": created.split.units(site)} for site in created.split.sites
    }
    held_out, images = created.split.rows.get("held-out", 0), created.schema.image_column is not None
    if as_json:
        task = str(created.job.task.kind) if created.job.task else None
        left_out = {} if created.suggestion is None else dict(created.suggestion.left_out)
        about = {"study": str(folder), "task": task, "sites": sites, "held_out_rows": held_out, "left_out": left_out}
        of_images = {"image": list(created.schema.sample_shape)} if images else {}
        click.echo(json.dumps({**about, **of_images, "inputs": list(created.schema.input_names), "simulated": True}))
        return
    if images:
        channels, height, width = created.schema.sample_shape
        words = "grey" if channels == 1 else "RGB"
        click.echo(f"images: {words}, {width} wide and {height} high; copied to the sites' folders")
    for site, counted in sites.items():
        click.echo(f"site {site}: {counted['rows']} rows of {counted['persons']} persons, SIMULATED on this machine")
    click.echo(f"held out: {held_out} rows, public, for evaluation")
    click.echo(f"created {folder}: study.toml is the job, dictionary.toml the data dictionary")
    click.echo(f"next: aegis run {folder}")


def _at_a_terminal() -> bool:
    return sys.stdin.isatty()


def _options(folder: Path, reviewer: Any, **chosen: Any) -> StudyOptions:
    from aegis.studies import SplitPlan, StudyOptions
    from coreason_enclave.schemas import Task

    task = None if chosen["task"] is None else Task(chosen["task"])
    labels, event = chosen["labels"], chosen["event"]
    if (event is not None) != (task is Task.SURVIVAL) or (chosen["cuts"] and event is None):
        raise click.UsageError("--event and --cuts go with --task survival, which needs --event")
    if len(labels) > 1 and task is not Task.MULTILABEL:
        raise click.UsageError("several --label go with --task multilabel")
    if chosen["no_header"] != bool(chosen["columns"]):
        raise click.UsageError("--no-header and --columns go together: name every column in order")
    _require_distinct(labels, chosen)
    share, file = _holdout(chosen["holdout"])
    if file is not None and any(file.resolve() == each.resolve() for each in chosen["files"]):
        raise click.UsageError(f"--holdout {file} is a site's file: hold out other rows")
    plan = SplitPlan(
        files=chosen["files"],
        label=labels[0],
        person=chosen["person"],
        site_column=chosen["site_column"],
        share=share,
        also=(event,) if event else tuple(labels[1:]),
        group=chosen["group"],
        held_out=file,
        columns=_names(chosen["columns"]),
        missing=chosen["missing"],
        image_column=chosen["image_column"],
    )
    return StudyOptions(
        name=_study_name(folder),
        split=plan,
        task=task,
        epsilon=chosen["epsilon"],
        rounds=chosen["rounds"],
        model=chosen["model"],
        cuts=_cuts(chosen["cuts"]),
        review=reviewer.review,
    )


def _require_distinct(labels: tuple[str, ...], chosen: dict[str, Any]) -> None:
    """Refuse a column with two roles."""
    roles: list[tuple[str, str | None]] = [("--label", label) for label in labels]
    roles += [
        (f"--{role.replace('_', '-')}", chosen[role])
        for role in ("event", "person", "group", "site_column", "image_column")
    ]
    seen: dict[str, str] = {}
    for option, column in roles:
        if column is not None and column in seen:
            raise click.UsageError(f"{seen[column]} and {option} both name the column {column!r}: one role a column")
        if column is not None:
            seen[column] = option


def _require_public(held_out: Path | None, real: bool, declared: bool) -> None:
    """Refuse held-out rows that nobody declared public, since over real sites no row may be taken for public."""
    if declared and not (real and held_out is not None):
        raise click.UsageError(
            "--public-holdout goes with --holdout FILE and real sites: a simulation's rows are public"
        )
    if real and held_out is not None and not declared:
        raise click.UsageError(
            f"--holdout {held_out} with real sites: dictionary.toml, which every site gets, would tell values of its "
            "rows; declare them public with --public-holdout, or leave --holdout out"
        )


def _study_name(folder: Path) -> str:
    from aegis.studies import site_name

    try:
        return site_name(folder.resolve().name)
    except InvalidStudy:
        raise click.UsageError(f"no study can be named {folder.name!r}: use letters or digits") from None


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(name.strip() for name in text.split(","))


def _holdout(text: str) -> tuple[float, Path | None]:
    try:
        share = float(text)
    except ValueError:
        if Path(text).exists():
            return 0.0, Path(text)
        raise click.UsageError(f"--holdout takes a share such as 0.2, or a file: {text!r} is neither") from None
    if not 0 <= share < 1:
        raise click.UsageError(f"--holdout must be at least 0 and below 1, got {text}")
    return share, None


def _cuts(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        cuts = tuple(float(cut) for cut in text.split(","))
    except ValueError:
        raise click.UsageError(f"--cuts takes numbers such as 30,90,365, got {text!r}") from None
    if not all(0 < cut <= _LAST_CUT for cut in cuts) or list(cuts) != sorted(set(cuts)):
        raise click.UsageError(f"--cuts must increase from above 0, to {_LAST_CUT:g} at most, got {text!r}")
    if len(cuts) > _MOST_CUTS:
        raise click.UsageError(f"--cuts takes {_MOST_CUTS} numbers at most, got {len(cuts)}")
    return cuts


def _for_real_sites(folder: Path, options: StudyOptions, federation: FederationFolder | None, as_json: bool) -> None:
    from aegis.studies import create_study_over, create_unattested_study, delta_for, job_for, suggested_dictionary

    config = None if federation is None else federation.config()
    schema, dictionary = suggested_dictionary(options)
    delta = config.delta if config is not None else delta_for(_MANY)
    sites = max(2, len(config.public_keys)) if config is not None else 2
    job = job_for(schema, options, sites=sites, delta=delta)
    if federation is None:
        study = create_unattested_study(folder, job, dictionary)
    else:
        study = create_study_over(folder, job, dictionary, federation)
    words = study.federation().config().profile.in_words()
    if as_json:
        click.echo(json.dumps({"study": str(folder), "federation": str(study.federation().path), "profile": words}))
        return
    if federation is not None and federation.evaluation_data() is None:
        click.echo("this federation has no public evaluation set: runs will have no measures")
    click.echo(f"created {folder}, {words}: no row was copied; publish dictionary.toml to the sites")
    click.echo("before it is published: replace every range that is marked 'suggested from rows'")
    if options.split.held_out is not None:
        click.echo(f"{options.split.held_out}, declared public: measure a run with aegis evaluate RUN ROWS.csv")
    click.echo(f"next: sites join {study.federation().path}, then aegis plan {folder}")


_MANY = 99_999
"""Persons of the largest site that the delta of a new federation suits: 1e-6."""
