"""``aegis run export``: writes a finished run to a file for an auditor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from aegis.runs import write_bundle


@click.command("export", epilog="\b\nExample: aegis run export runs/study-1 --out study-1.zip")
@click.argument("run_dir", metavar="RUN", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="New file to write.")
def export(run_dir: Path, out: Path) -> None:
    """Write the records of the finished run in RUN to one file that may be given away.

    Records and public halves of keys alone: no private file, no key, no federation. `aegis verify` takes the file in
    place of the folder. The same run gives the same bytes.
    """
    names = write_bundle(run_dir.resolve(), out)
    click.echo(f"wrote {len(names)} files to {out}, none of them private")
    click.echo(f"next: aegis verify {out}")


class RunCommand(click.Command):
    """``aegis run JOB.yaml``, and ``aegis run export RUN``. For a job file named ``export``, write ``./export``."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Hand over to :func:`export` if the first argument asks for it."""
        if args[:1] == [export.name]:
            return export.make_context(f"{info_name} {export.name}", args[1:], parent=parent, **extra)
        return super().make_context(info_name, args, parent=parent, **extra)
