"""``aegis runs``: lists the runs of a study or of a folder, and compares runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coreason_enclave.command_line import refuse_mistyped_command

if TYPE_CHECKING:
    from aegis.studies import RunSummary

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


class _ListOrCompare(click.Group):
    """Takes a folder in the place of a subcommand, as the argument of ``list``."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the named subcommand, or ``list`` for a folder."""
        if args and self.get_command(ctx, args[0]) is None:
            refuse_mistyped_command(ctx, args[0], self.list_commands(ctx))
            args = ["list", *args]
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Hand a call without a subcommand on to ``list``."""
        if (not args or args[0].startswith("-")) and args[:1] != ["--help"]:
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=_ListOrCompare, epilog="\b\nExample: aegis runs study\nExample: aegis runs compare study/runs/1 study/runs/2"
)
def runs() -> None:
    """List the runs of a study or of a folder of runs, or compare runs.

    `aegis runs [FOLDER]` stands for `aegis runs list [FOLDER]`.
    """


@runs.command("list", epilog="\b\nExample: aegis runs list study --json")
@click.argument("folder", metavar="[STUDY|FOLDER]", type=_FOLDER, required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def list_(folder: Path | None, as_json: bool) -> None:
    """List runs: state, epsilon, utility, and the job's changes against the run before.

    Without a folder: the study in this folder, or else `runs`.
    """
    from aegis.commands.terminal_text import visible
    from aegis.studies import list_runs

    if folder is None:
        folder = Path() if Path("study.toml").is_file() else Path("runs")
        if not folder.is_dir():
            raise click.UsageError("name a study or a folder of runs: this folder holds neither study.toml nor runs")
    found = list_runs(folder)
    if as_json:
        click.echo(json.dumps({"runs": [each.document() for each in found]}, sort_keys=True, allow_nan=False))
        return
    rows = [["run", "state", "rounds", "epsilon spent", "utility", "date (UTC)", "runtime", "provenance", "changed"]]
    rows += [_row(each) for each in found]
    _table(rows)
    for each in found:
        if each.refusal is not None:
            click.echo(visible(f"run {each.name} was refused: {each.refusal}"))


def _row(each: RunSummary) -> list[str]:
    from aegis.studies import main_measure

    metric = main_measure([each])
    changed = ", ".join(f"{entry} {_word(old)} -> {_word(new)}" for entry, (old, new) in each.changed.items())
    return [
        each.name,
        each.state,
        str(each.rounds),
        _price(each),
        "-" if metric is None else f"{metric} {each.utility[metric]:.3f}",
        each.date or "-",
        each.runtime or "-",
        each.provenance or "-",
        changed or "-",
    ]


@runs.command(epilog="\b\nExample: aegis runs compare study/runs/1 study/runs/2 --plot both.png")
@click.argument("paths", metavar="RUN RUN...", type=_FOLDER, nargs=-1, required=True)
@click.option("--plot", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Draw utility by round.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def compare(paths: tuple[Path, ...], plot: Path | None, as_json: bool) -> None:
    """Compare runs: the jobs' differences entry by entry, utility, epsilon and rounds."""
    from aegis.studies import compare_runs, plot_comparison

    if plot is not None and (plot.suffix.lower() not in {".png", ".pdf", ".svg"} or not plot.parent.is_dir()):
        raise click.UsageError(f"--plot {plot}: name a .png, .pdf or .svg file in a folder that exists")
    found, different = compare_runs(paths)
    metric = None if plot is None else plot_comparison(plot, found)
    if as_json:
        document = {"runs": [each.document() for each in found], "different": different}
        click.echo(json.dumps(document, sort_keys=True, allow_nan=False))
        return
    _table([["entry", *(each.name for each in found)], *_facts(found)])
    click.echo()
    if different:
        _table([["job", *(each.name for each in found)], *([e, *map(_word, row)] for e, row in different.items())])
    else:
        click.echo("the jobs are equal, apart from their ids")
    if plot is not None:
        click.echo(f"drawn: {plot} ({metric} by round)")


def _facts(found: Sequence[RunSummary]) -> list[list[str]]:
    measures = dict.fromkeys(name for each in found for name in each.utility)
    return [
        ["state", *(each.state for each in found)],
        ["rounds", *(str(each.rounds) for each in found)],
        ["epsilon spent", *(_price(each) for each in found)],
        *([name, *(_measured(each, name) for each in found)] for name in measures),
    ]


def _price(each: RunSummary) -> str:
    """Return the epsilon spent, and the epsilon reserved where it is another."""
    if each.epsilon is None:
        return "-"
    also = each.reserved is not None and f"{each.reserved:.3f}" != f"{each.epsilon:.3f}"
    return f"{each.epsilon:.3f}" + (f" ({each.reserved:.3f} reserved)" if also else "")


def _measured(each: RunSummary, name: str) -> str:
    if name not in each.utility:
        return "-"
    bound = each.intervals.get(name)
    return f"{each.utility[name]:.4f}" + ("" if bound is None else f" ({bound[0]:.3f} to {bound[1]:.3f})")


def _word(value: Any) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _table(rows: Sequence[Sequence[str]]) -> None:
    from aegis.commands.terminal_text import visible

    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for row in rows:
        cells = (visible(cell).ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
