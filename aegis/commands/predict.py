"""``aegis predict``: predicts rows with the model of a finished run."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command(epilog="\b\nExample: aegis predict study/runs/latest rows.csv --out predictions.csv")
@click.argument("run", metavar="RUN", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("rows", metavar="ROWS", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("predictions.csv"),
    show_default=True,
    help="The file to write, one line a row.",
)
@click.option(
    "--image-column",
    metavar="COLUMN",
    help="A folder of images: its table's column of file names.  [default: as in the data dictionary]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object about the file.")
def predict(run: Path, rows: Path, out: Path, image_column: str | None, as_json: bool) -> None:
    """Predict rows with the model of a finished run: a CSV or Parquet file, or a folder of images with a table.

    Columns are read as the run's data dictionary declares them; labels are not needed. A line has the row's number
    (from 1) and the probability of each class, the value in the label's own unit, the rate, or the chance to live past
    each cut. A history over the label needs the labels of a person's earlier rows.
    """
    from aegis.studies import load_trained, write_predictions

    if not out.parent.is_dir():
        raise click.UsageError(f"--out {out}: the folder {out.parent} does not exist")
    count = write_predictions(load_trained(run), rows, out, image_column=image_column)
    click.echo(json.dumps({"rows": count, "file": str(out)}) if as_json else f"{count} rows predicted: {out}")
