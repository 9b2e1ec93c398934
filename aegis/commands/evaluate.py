"""``aegis evaluate``: measures the model of a finished run on labelled rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from aegis.studies import RowsEvaluation


@click.command(epilog="\b\nExample: aegis evaluate study/runs/latest test.csv --group hospital --plots plots")
@click.argument("run", metavar="RUN", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("rows", metavar="ROWS", type=click.Path(exists=True, path_type=Path))
@click.option("--group", metavar="COLUMN", help="Resample the values of this column as wholes, in place of persons.")
@click.option(
    "--samples", type=click.IntRange(1, 1_000_000), default=1000, show_default=True, help="Bootstrap resamples."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the resampling.")
@click.option("--plots", metavar="DIR", type=click.Path(file_okay=False, path_type=Path), help="Draw pictures there.")
@click.option(
    "--image-column",
    metavar="COLUMN",
    help="A folder of images: its table's column of file names.  [default: as in the data dictionary]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def evaluate(
    run: Path,
    rows: Path,
    group: str | None,
    samples: int,
    seed: int,
    plots: Path | None,
    image_column: str | None,
    as_json: bool,
) -> None:
    """Measure the model of a finished run on rows with labels: a CSV or Parquet file, or a folder of images.

    Intervals are 95 % percentile intervals of the bootstrap over persons (or --group, or rows without persons). The
    baseline ignores every feature and is computed from the same rows. The result is about these rows and not private.
    """
    from aegis.studies import evaluate_rows, load_trained, plot_evaluation

    trained = load_trained(run)
    found = evaluate_rows(trained, rows, group=group, samples=samples, seed=seed, image_column=image_column)
    files = [] if plots is None else plot_evaluation(found, trained.dictionary.label, plots)
    if as_json:
        drawn = {"plots": [str(file) for file in files]} if files else {}
        click.echo(json.dumps({"run": str(run), **found.document(), **drawn}, sort_keys=True, allow_nan=False))
        return
    _show(found)
    for file in files:
        click.echo(f"drawn: {file}")


def _show(found: RowsEvaluation) -> None:
    click.echo(f"{found.rows} rows, {found.groups} {found.resampled}; {found.kind}")
    click.echo(f"{'measure':<12} {'value':>10}  {'95 % interval':<24} {'baseline':>10}")
    for name, value in found.measures.items():
        bound = found.bounds.get(name)
        words = "-" if bound is None else f"{bound[0]:.4g} to {bound[1]:.4g}"
        base = f"{found.baseline[name]:.4g}" if name in found.baseline else "-"
        click.echo(f"{name:<12} {value:>10.4g}  {words:<24} {base:>10}")
    click.echo(f"intervals: bootstrap over {found.resampled}, {found.samples} resamples, seed {found.seed}")
    click.echo(f"baseline: {found.baseline_words}")
