"""``aegis evidence inspect``: shows the content of an evidence file without verifying it."""

from __future__ import annotations

import json
from pathlib import Path

import click

from aegis.commands.evidence.options import FILE, json_option
from aegis.commands.evidence.text import NOT_VERIFIED, inspection_page, printable


@click.command(
    short_help="Show the content of an evidence file. Verifies nothing.",
    epilog="Example: aegis evidence inspect evidence.json --reference >> policy.toml",
)
@click.argument("path", metavar="FILE", type=FILE)
@click.option("--reference", is_flag=True, help="Print the reference value of the measured code as TOML.")
@json_option
def inspect(path: Path, reference: bool, as_json: bool) -> None:
    """What does a file of evidence say? Nothing is verified, and the first line says so.

    Reads what `verify` reads, and finds out by itself which kind it is. With --reference: the lines for an appraisal
    policy that accept this very code. Take them from a host that you built and started yourself, or after `verify`.
    """
    from aegis.evidence import inspect as inspect_evidence
    from aegis.evidence import read_capped, reference_values
    from coreason_enclave.attestation.verify import VerificationRefused

    if reference and as_json:
        raise click.UsageError("--reference prints TOML: leave out --json")
    try:
        inspection = inspect_evidence(read_capped(path))
    except VerificationRefused as error:
        raise VerificationRefused(error.refusal, printable(f"{path}: {error}")) from error
    if reference:
        click.echo(f"# {NOT_VERIFIED}\n{reference_values(inspection)}")
    else:
        click.echo(json.dumps(inspection.document(), indent=2) if as_json else inspection_page(inspection))
