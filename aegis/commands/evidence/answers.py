"""Turns a command's files into printed output and an exit code."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aegis.commands.evidence.text import printable, verdict_page
from coreason_enclave.command_line import ExitCode
from coreason_enclave.system import from_here

if TYPE_CHECKING:
    from aegis.evidence import EvidenceVerdict

EXITS = """\b
Exit codes:
  0  {0}
  2  an unusable option, an unreadable file, or an invalid policy
  3  refused; also evidence or endorsements that are malformed, too large, missing or of another kind
"""

Judge = Callable[[bytes, tuple[bytes, ...]], "EvidenceVerdict"]
"""Maps the contents of the evidence file and of the endorsement files to a verdict."""


def answer(
    ctx: click.Context, kind: str, path: Path, endorsements: Sequence[Path], judge: Judge, *, as_json: bool
) -> None:
    """Print the verdict on the evidence in ``path``, and exit with its code; raises :class:`ConfigurationError`."""
    judged = _judged(kind, path, endorsements, judge)
    click.echo(json.dumps(judged.document(), indent=2) if as_json else verdict_page(judged))
    if not judged.ok:
        line = f"{path} is refused: {judged.reason}: {judged.message}"
        click.echo(printable(f"error: {from_here(line)}"), err=True)
        ctx.exit(ExitCode.REFUSED)


def moment(now: int | None) -> int:
    """Return the moment to judge at, Unix seconds: ``now``, or the present if None."""
    return int(time.time()) if now is None else now


def _judged(kind: str, path: Path, endorsements: Sequence[Path], judge: Judge) -> EvidenceVerdict:
    from aegis.evidence import EvidenceVerdict, read_capped
    from coreason_enclave.attestation.verify import VerificationRefused

    try:
        content, *files = (read_capped(file) for file in (path, *endorsements))
    except VerificationRefused as error:
        return EvidenceVerdict.refused(kind, error)
    judged = judge(content, tuple(files))
    return judged if judged.ok else _naming(judged, kind, endorsements, files)


def _naming(
    judged: EvidenceVerdict, kind: str, endorsements: Sequence[Path], files: Sequence[bytes]
) -> EvidenceVerdict:
    """Return the verdict, naming the first unreadable endorsement file in its message, if any."""
    from aegis.evidence import unreadable

    for path, content in zip(endorsements, files, strict=True):
        error = unreadable(content, kind)
        if error is not None:
            return replace(judged, message=f"{judged.message} ({path} cannot be used: {error})")
    return judged
