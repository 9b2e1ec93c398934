"""``aegis run export`` writes a finished run to a file for an auditor; ``aegis run repair`` looks at a killed one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from aegis.errors import RunFolderError
from coreason_enclave.command_line import refuse_mistyped_command


@click.command("export", epilog="\b\nExample: aegis run export runs/study-1 --out study-1.zip")
@click.argument("run_dir", metavar="RUN", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="New file to write.")
def export(run_dir: Path, out: Path) -> None:
    """Write the records of the finished run in RUN to one file that may be given away.

    Records and public halves of keys alone: no private file, no key, no federation. `aegis verify` takes the file in
    place of the folder. The same run gives the same bytes.
    """
    from aegis.runs import write_bundle

    names = write_bundle(run_dir.resolve(), out)
    click.echo(f"wrote {len(names)} files to {out}, none of them private")
    click.echo(f"next: aegis verify {out}")


@click.command("repair", epilog="\b\nExample: aegis run repair runs/study-1")
@click.argument("run_dir", metavar="RUN", type=click.Path(exists=True, file_okay=False, path_type=Path))
def repair(run_dir: Path) -> None:
    """Say whether the state of the unfinished run in RUN can be read, or why it cannot be rebuilt from the log.

    The log alone never suffices: it names the enrolled sites, but not their signed enrolments, which every order shows
    to every site; and no open round's nonces, so that a second set would ask sites for a second release.
    """
    from aegis.runs import RunFolder

    folder = RunFolder(run_dir)
    if not folder.is_started:
        raise RunFolderError(f"{run_dir} is not a run folder: config.json is missing")
    if folder.is_finished:
        click.echo(f"{run_dir} is finished: nothing to repair; aegis verify {run_dir} checks its records")
        return
    try:
        state = folder.state()
    except RunFolderError as error:
        raise RunFolderError(
            f"{run_dir / 'state' / 'state.json'} cannot be rebuilt from {run_dir / 'audit.jsonl'} ({error}): the log "
            "lacks the sites' signed enrolments and the open round's nonces. Restore the whole run folder from a "
            "backup, or start the job under another job_id in another folder"
        ) from error
    click.echo(f"{run_dir}: state/state.json is readable after {state.completed_rounds} rounds: repeat aegis run")


class RunCommand(click.Command):
    """``aegis run JOB.yaml``, ``aegis run export RUN`` and ``aegis run repair RUN``.

    For a job file named ``export`` or ``repair``, write ``./export``.
    """

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Hand over to :func:`export` or :func:`repair` if the first argument asks for it."""
        for command in (export, repair):
            if args[:1] == [command.name]:
                return command.make_context(f"{info_name} {command.name}", args[1:], parent=parent, **extra)
        if args:
            here = click.Context(self, parent, info_name)
            refuse_mistyped_command(here, args[0], (str(export.name), str(repair.name)))
        return super().make_context(info_name, args, parent=parent, **extra)
