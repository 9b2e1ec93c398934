"""``coreason-enclave explain``: what a reason code means, and who can do what."""

from __future__ import annotations

import click

from coreason_enclave.system import explanation


@click.command(epilog="\b\nExample: coreason-enclave explain round_conflict")
@click.argument("code", metavar="[CODE]", required=False)
def explain(code: str | None) -> None:
    """Say what a reason code means, who can do what, and whether waiting helps; without CODE, list all codes."""
    click.echo(explanation(code))
