"""``coreason-enclave dataset``: declares, checks and registers a site's datasets. Output is for the site's own eyes.

Only ``check --for-coordinator`` prints what may leave the site: yes, or no and a reason code.
"""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coreason_enclave.command_line import ExitCode, one_line, printable
from coreason_enclave.commands.dataset_init import init
from coreason_enclave.commands.dataset_place import FILE, config_option, place_of
from coreason_enclave.errors import ConfigurationError, DatasetRejected, EnclaveError, Reason
from coreason_enclave.schemas import PrivacyUnit, explained

if TYPE_CHECKING:
    from coreason_enclave.datasets import DataDictionary, DatasetSchema
    from coreason_enclave.policy import LineagePolicy, SiteConfig

_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


@click.group(epilog="Example: coreason-enclave dataset check --config /srv/clinic/site.toml")
def dataset() -> None:
    """Declare, check and register this site's datasets."""


dataset.add_command(init)


@dataset.command(epilog="Example: … dataset check clinic/visits --dictionary dictionary.toml --config site.toml")
@click.argument("name", metavar="[DATASET_ID|FOLDER]", required=False)
@click.option("--dictionary", type=FILE, help="A study's dictionary.toml to compare the declaration with.")
@click.option("--for-coordinator", is_flag=True, help="Print only what may leave the site: yes, or no and a code.")
@_json
@config_option
def check(name: str | None, dictionary: Path | None, for_coordinator: bool, as_json: bool, folder: Path) -> None:
    """Read datasets as a session does, and say what does not fit. Without a name: every registered dataset.

    Exit code 3 if a dataset is refused or differs from the dictionary.
    """
    from coreason_enclave.datasets import DataDictionary
    from coreason_enclave.policy import load_site_config

    config = load_site_config(folder / "site.toml")
    names = [_dataset_id(name, folder, config)] if name else [entry.dataset_id for entry in config.lineages]
    if not names:
        raise ConfigurationError("site.toml registers no dataset: name one, or see coreason-enclave dataset register")
    if for_coordinator and len(names) > 1:
        raise click.UsageError("--for-coordinator answers for one dataset: name it")
    wanted = None if dictionary is None else DataDictionary.read(dictionary)
    results = [_checked(each, folder, config, wanted) for each in names]
    if for_coordinator:
        reason = results[0].reason
        click.echo("yes" if reason is None else f"no {reason}")
    elif as_json:
        click.echo(json.dumps({"ok": all(each.ok for each in results), "datasets": [vars(each) for each in results]}))
    else:
        for each in results:
            click.echo(printable(f"{each.dataset_id}: {'fits' if each.ok else f'refused ({each.reason})'}"))
            for line in (*each.problems, *(f"remark: {text}" for text in each.warnings)):
                click.echo(printable(f"  {line}"))
    if not all(each.ok for each in results):
        click.get_current_context().exit(ExitCode.REFUSED)


@dataset.command(epilog="Example: … dataset register clinic/visits --nominal-units 1200 --epsilon 6 --delta 1e-5 …")
@click.argument("dataset_id")
@click.option("--lineage", help="Name of the budget [the dataset's id].")
@click.option("--nominal-units", type=int, help="Public number of persons (rows); never counted from the rows.")
@click.option("--epsilon", type=float, help="Cap over all jobs.")
@click.option("--delta", type=float, help="Cap over all jobs, below 1 / nominal units.")
@click.option("--job-epsilon", type=float, help="Cap of a single job.")
@click.option("--job-delta", type=float, help="Cap of a single job.")
@click.option("--public", is_flag=True, help="The rows may be published; must equal the declaration's entry.")
@click.option("--reason", default="dataset registered", metavar="TEXT", help="Why; goes into the site's log.")
@config_option
def register(dataset_id: str, lineage: str | None, public: bool, reason: str, folder: Path, **numbers: Any) -> None:
    """Add a dataset to site.toml with its public size and its caps, which nothing chooses for you."""
    from coreason_enclave.datasets import declared_schema, marks
    from coreason_enclave.policy import LineagePolicy, load_site_config
    from coreason_enclave.site import add_lineage

    missing = [f"--{name.replace('_', '-')}" for name, value in numbers.items() if value is None]
    if missing:
        raise click.UsageError(f"{', '.join(missing)} is missing: a promise to people needs a number that you chose")
    config = load_site_config(folder / "site.toml")
    schema = declared_schema(folder / config.data_root, dataset_id)
    if schema.public != public:
        told = "public: say --public" if schema.public else "private: leave --public out"
        raise ConfigurationError(f"dataset.toml declares {dataset_id} {told}, or correct dataset.toml")
    text = (place_of(folder, dataset_id) / "dataset.toml").read_text(encoding="utf-8")
    if not public and (left := marks(text)):
        raise ConfigurationError(
            f"dataset.toml of {dataset_id} has {len(left)} entries 'suggested from rows', the first in line {left[0]}: "
            "replace each by what is publicly known, and delete the mark"
        )
    fields = {"lineage": lineage or dataset_id, "dataset_id": dataset_id, "unit": schema.unit, "public": public}
    with explained(lambda why: ConfigurationError(f"cannot register {dataset_id}: {why}")):
        entry = LineagePolicy.model_validate({**fields, **numbers})
    add_lineage(folder, entry, reason)
    click.echo(f"registered {dataset_id} as lineage {entry.lineage} in site.toml, and logged it")
    click.echo(f"then: coreason-enclave init --config {folder / 'site.toml'}, which fixes the caps in the ledger")


@dataset.command("list", epilog="Example: coreason-enclave dataset list --config /srv/clinic/site.toml")
@_json
@config_option
def list_datasets(as_json: bool, folder: Path) -> None:
    """List the registered datasets with what is spent and left."""
    from coreason_enclave.policy import load_site_config

    config = load_site_config(folder / "site.toml")
    rows = [_facts(entry, folder, config) for entry in config.lineages]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        click.echo(printable(_budget_line(row)))
    if not rows:
        click.echo("no dataset is registered: see coreason-enclave dataset register")


@dataset.command(epilog="Example: coreason-enclave dataset show clinic/visits --config /srv/clinic/site.toml")
@click.argument("dataset_id")
@_json
@config_option
def show(dataset_id: str, as_json: bool, folder: Path) -> None:
    """Show the public facts of one dataset: its declaration, its caps, and what is spent and left."""
    from coreason_enclave.datasets import declared_schema
    from coreason_enclave.policy import load_site_config

    config = load_site_config(folder / "site.toml")
    schema = declared_schema(folder / config.data_root, dataset_id)
    entry = next((each for each in config.lineages if each.dataset_id == dataset_id), None)
    budget = None if entry is None else _facts(entry, folder, config)
    if as_json:
        declared = schema.model_dump(mode="json", exclude_none=True)
        click.echo(json.dumps({"declaration": declared, "budget": budget}, indent=2))
        return
    lines = [f"{dataset_id} ({'public' if schema.public else 'private'}, per {schema.unit}, {schema.format})"]
    lines.append("  not registered" if budget is None else f"  {_budget_line(budget)}")
    lines.append(f"  label {', '.join(schema.label.reads)}, task {schema.label.task}")
    lines += [f"  {line}" for line in _features(schema)]
    for line in lines:
        click.echo(printable(line))


@dataclass(frozen=True)
class _Checked:
    dataset_id: str
    ok: bool
    reason: str | None
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


def _checked(dataset_id: str, folder: Path, config: SiteConfig, wanted: DataDictionary | None) -> _Checked:
    from coreason_enclave.datasets import DatasetSchemaRejected, open_dataset

    try:
        opened = open_dataset(folder / config.data_root, dataset_id)
    except DatasetSchemaRejected as error:
        return _Checked(dataset_id, False, error.reason, tuple(map(str, error.problems)), ())
    except (ConfigurationError, DatasetRejected) as error:
        return _Checked(dataset_id, False, error.reason, (str(error),), ())
    except (OSError, MemoryError) as error:  # the words may hold a size of private arrays: --for-coordinator drops them
        return _Checked(dataset_id, False, Reason.DATASET_SCHEMA, (one_line(error) or "no memory is left",), ())
    problems = [] if wanted is None else list(wanted.differences(opened.schema))
    if opened.num_units < config.policy.min_units:
        problems.append("the dataset holds fewer units than min_units")
    entry = next((each for each in config.lineages if each.dataset_id == dataset_id), None)
    if entry is not None and entry.public != opened.schema.public:
        problems.append("dataset.toml and site.toml disagree on whether the data is public")
    if entry is not None and (entry.unit is PrivacyUnit.PERSON) != (opened.unit_ids is not None):
        problems.append(f"site.toml registers unit {entry.unit}, but dataset.toml says otherwise")
    reason = Reason.DATASET_SCHEMA if problems else None
    return _Checked(dataset_id, not problems, reason, tuple(problems), opened.warnings)


def _facts(entry: LineagePolicy, folder: Path, config: SiteConfig) -> dict[str, Any]:
    from coreason_enclave.ledger import SqliteLedger

    facts: dict[str, Any] = {**entry.model_dump(mode="json"), "spent_epsilon": None, "left": None}
    path = folder / config.ledger
    if not path.exists():
        return facts
    with closing(SqliteLedger(path, must_exist=True)) as ledger:
        try:
            claim = ledger.lineage_claim(entry.lineage)
        except EnclaveError as error:
            if error.reason is not Reason.LINEAGE_UNKNOWN:
                raise
            return facts
    spent = claim.spent_epsilon if claim.spent_pico else 0.0
    return {**facts, "spent_epsilon": spent, "left": claim.remaining_pico / claim.budget_pico}


def _budget_line(row: dict[str, Any]) -> str:
    kind = "public" if row["public"] else "private"
    head = f"{row['dataset_id']}: lineage {row['lineage']} ({kind}, per {row['unit']}, {row['nominal_units']} declared)"
    if row["left"] is None:
        return f"{head}, cap epsilon {row['epsilon']:g}, not in the ledger yet: run coreason-enclave init"
    return f"{head}, cap epsilon {row['epsilon']:g}: epsilon {row['spent_epsilon']:.3f} spent, {row['left']:.1%} left"


def _features(schema: DatasetSchema) -> list[str]:
    lines = []
    for feature in schema.features:
        within = feature.declared_range
        lines.append(
            f"{feature.name}: {'' if within is None else f'[{within[0]:g}, {within[1]:g}], '}" + _count(feature)
        )
    return lines


def _count(feature: Any) -> str:
    return f"{len(feature.inputs)} input{'s' if len(feature.inputs) != 1 else ''}"


def _dataset_id(name: str, folder: Path, config: SiteConfig) -> str:
    """Return a dataset's id, given directly or by its folder below the data root."""
    root = (folder / config.data_root).resolve()
    place = Path(name)
    if (place / "dataset.toml").is_file() and place.resolve().is_relative_to(root):
        return place.resolve().relative_to(root).as_posix()
    return name
