"""``coreason-enclave attest``: collects evidence of this host over a verifier's nonce, outside any federation."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from coreason_enclave.errors import ConfigurationError
from coreason_enclave.hardware import HARDWARE, ThisHost
from coreason_enclave.system import create_file

if TYPE_CHECKING:
    from coreason_enclave.attestation import Evidence


def _nonce(context: click.Context, parameter: click.Parameter, value: str) -> bytes:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", value):
        raise click.BadParameter("32 bytes in hex: 64 digits of 0-9 and a-f", context, parameter)
    return bytes.fromhex(value)


@click.command(epilog=f"Example: coreason-enclave attest --nonce {'5a' * 32} --out evidence.json")
@click.option("--nonce", required=True, metavar="HEX", callback=_nonce, help="The verifier's 32 fresh bytes.")
@click.option("--attester", type=click.Choice(HARDWARE), help="Default: the hardware that this host has.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="A new file for the evidence.")
@click.option("--json", "as_json", is_flag=True, help="Print the evidence and its report data as one JSON document.")
def attest(nonce: bytes, attester: str | None, out: Path | None, as_json: bool) -> None:
    """Collect evidence of this host's hardware over a nonce, or say which devices were looked for.

    The evidence is bound to the nonce alone: its context is the frame of "aegis/attestation/manual", "1" and the nonce,
    each behind its length as eight big-endian bytes. It speaks for no site, no key and no job, and no federation takes
    it. The report data that is printed is what `aegis evidence verify --report-data` asks for.
    """
    from coreason_enclave.attestation import manual_context
    from coreason_enclave.crypto import canonical_json

    _require_new(out)
    host = ThisHost()
    context = manual_context(nonce)
    evidence = host.attester(attester or host.detected()).produce(context)
    if out is not None:
        _write_new(out, canonical_json(evidence.model_dump(mode="json")))
    covered = _covered(evidence, context)
    if as_json:
        click.echo(json.dumps({**covered, "evidence": evidence.model_dump(mode="json")}, sort_keys=True))
    else:
        click.echo(_page(evidence, covered, out))


def _covered(evidence: Evidence, context: bytes) -> dict[str, str | None]:
    from coreason_enclave.attestation import gpu_nonce, report_data

    return {
        "report_data": report_data(context, evidence.gpus).hex(),
        "gpu_nonce": gpu_nonce(context).hex() if evidence.gpus else None,
    }


def _page(evidence: Evidence, covered: dict[str, str | None], out: Path | None) -> str:
    lines = [f"collected {evidence.kind} evidence with {len(evidence.gpus)} GPUs; the evidence is not verified yet"]
    lines += [f"{name.replace('_', ' '):<11}  {value}" for name, value in covered.items() if value]
    lines.append("the evidence was not saved: --out writes it to a file" if out is None else f"wrote {out}")
    return "\n".join(lines)


def _require_new(out: Path | None) -> None:
    if out is None:
        return
    if os.path.lexists(out):
        raise ConfigurationError(f"{out} exists: evidence is written to a new file")
    if not out.parent.is_dir():
        raise ConfigurationError(f"folder {out.parent} does not exist")


def _write_new(path: Path, data: bytes) -> None:
    """Write the whole file or none of it; never replace a file that appeared meanwhile."""
    try:
        create_file(path, data)
    except FileExistsError as error:
        raise ConfigurationError(f"{path} exists: evidence is written to a new file") from error
