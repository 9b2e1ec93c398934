"""``aegis verify``: checks a run's claims against its own records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aegis.commands.terminal_text import visible
from aegis.verification import INCOMPLETE, Check, Conclusion, Verdict
from coreason_enclave.errors import EnclaveError
from coreason_enclave.system import from_here

if TYPE_CHECKING:
    from aegis.verification import VerificationReport

_EXIT_CODES = (
    "\b\nExit codes (the first check that fails decides):\n  0   verified: every check holds\n  2   an unusable "
    "option, or a file without read permission: the run was not verified\n"
    + "".join(f"  {check.value}  {check.label:<14} {check.question}\n" for check in Check)
    + f"  {INCOMPLETE}  cannot be verified: nothing contradicts the run, but a record is missing that a check needs"
)
_MARKS = {Verdict.HOLDS: "ok", Verdict.FAILS: "FAILS", Verdict.MISSING: "MISSING", Verdict.NOT_CHECKED: "open"}


def _key(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is not None:
        _require_key(value)
    return value


def _site_keys(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs = [value.partition("=") for value in values]
    for site, equals, key in pairs:
        if not site or not equals:
            raise click.BadParameter(f"expected SITE=HEX, got {f'{site}{equals}{key}'[:80]!r}")
        _require_key(key)
    return {site: key for site, _, key in pairs}


def _require_key(text: str) -> None:
    from coreason_enclave.crypto import public_key_from_hex

    try:
        public_key_from_hex(text)
    except EnclaveError as error:
        raise click.BadParameter(str(error)) from error
    if len(text) != 64 or text != text.lower():
        raise click.BadParameter("write the key as 64 hex digits in lower case")


def _checkpoint(_: click.Context, __: click.Parameter, path: Path | None) -> bytes | None:
    """Return the file's bytes if they have the form of a checkpoint. A later check decides on authenticity."""
    from aegis.security import CHECKPOINT_TYPE
    from coreason_enclave.crypto import parse_json

    if path is None:
        return None
    data = path.read_bytes()
    try:
        kind = parse_json(data).get("payloadType")
    except EnclaveError as error:
        raise click.BadParameter(f"{path} is not a signed checkpoint: {error}") from error
    if kind != CHECKPOINT_TYPE:
        raise click.BadParameter(f"{path} is not a signed checkpoint of a log: its payloadType is {kind!r:.80}")
    return data


@click.command(epilog=f"{_EXIT_CODES}\n\n\b\nExample: aegis verify runs/latest --json")
@click.argument("run_dir", metavar="RUN", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--coordinator-key", metavar="HEX", callback=_key, help="Coordinator's Ed25519 key, from outside the run folder."
)
@click.option(
    "--participant-key",
    "participants",
    metavar="SITE=HEX",
    multiple=True,
    callback=_site_keys,
    help="A site's Ed25519 key, obtained outside the run folder.",
)
@click.option(
    "--checkpoint",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    callback=_checkpoint,
    help="An older signed checkpoint of this log, kept outside the run folder.",
)
@click.option(
    "--witness",
    "witnesses",
    multiple=True,
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A site's record of the log that it received, written by `coreason-enclave checkpoints export`. Repeatable.",
)
@click.option("--files", "list_files", is_flag=True, help="List every file, and whether a signature covers the file.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def verify(
    ctx: click.Context,
    run_dir: Path,
    coordinator_key: str | None,
    participants: dict[str, str],
    checkpoint: bytes | None,
    witnesses: tuple[Path, ...],
    list_files: bool,
    as_json: bool,
) -> None:
    """Check the claims of the finished run in RUN, a folder or a bundle of one, against its own records.

    Chain and signature of the audit log; every site's ledger under its own signature; every admitted update, its
    privacy event, and every epsilon (composed again); each round's model, computed again from the updates that the
    sites signed; its utility, measured again; and every file of the folder. Offline, read-only, and without the
    frameworks that made the run. Says as well what it could not check.
    """
    from aegis.commands.witness import read_witness
    from aegis.runs import opened_run
    from aegis.verification import Reference, verify_run

    stated = tuple(read_witness(path) for path in witnesses)
    with opened_run(run_dir) as folder:
        report = verify_run(folder, Reference(coordinator_key, checkpoint, participants, stated))
    click.echo(_document(run_dir, report) if as_json else _page(run_dir, report, list_files))
    if not report.ok:
        click.echo(visible(f"error: {from_here(_in_one_line(run_dir, report))}"), err=True)
        ctx.exit(report.exit_code)


def _document(run_dir: Path, report: VerificationReport) -> str:
    findings = [
        {"subject": each.subject, "verdict": each.verdict.value, "detail": each.detail} for each in report.findings
    ]
    document: dict[str, Any] = {
        "run": str(run_dir),
        "ok": report.ok,
        "conclusion": report.conclusion.value,
        "exit_code": report.exit_code,
        "failed": [check.label for check in report.failed],
        "missing": list(report.missing),
        "notices": list(report.notices),
        "findings": findings,
        "files": dict(report.files),
    }
    return json.dumps(document, indent=2)


def _page(run_dir: Path, report: VerificationReport, list_files: bool) -> str:
    width = max(len(finding.subject) for finding in report.findings)
    lines = [f"! {notice}" for notice in report.notices]
    lines += [
        f"{_MARKS[finding.verdict]:<7}  {finding.subject:<{width}}  {finding.detail}" for finding in report.findings
    ]
    if list_files:
        lines += [f"{'covered' if covered else 'NOT COVERED':<11}  {name}" for name, covered in report.files.items()]
    return "\n".join(map(visible, [*lines, _conclusion(run_dir, report)]))


def _conclusion(run_dir: Path, report: VerificationReport) -> str:
    """Return the last line, worded for readers who do not program."""
    match report.conclusion:
        case Conclusion.VERIFIED:
            open_questions = sum(finding.verdict is Verdict.NOT_CHECKED for finding in report.findings)
            return (
                f"{run_dir}: VERIFIED. Every figure was recomputed and is right, every update is the one that its "
                f"site signed, and no file was changed. {open_questions} points could not be checked and rest on "
                "statements: they are marked open above."
            )
        case Conclusion.NOT_VERIFIED:
            return (
                f"{run_dir}: NOT VERIFIED. Do not rely on this run: its records were changed, are incomplete, or "
                f"contradict each other ({', '.join(check.label for check in report.failed)})."
            )
        case Conclusion.CANNOT_BE_VERIFIED:
            return f"{run_dir}: CANNOT BE VERIFIED. Nothing contradicts the run. Missing: {'; '.join(report.missing)}."


def _in_one_line(run_dir: Path, report: VerificationReport) -> str:
    if report.conclusion is Conclusion.CANNOT_BE_VERIFIED:
        return f"{run_dir} cannot be verified; missing: {report.missing[0]}"
    first = next(finding for finding in report.findings if finding.verdict is Verdict.FAILS)
    return f"{run_dir} does not verify: {first.subject}: {first.detail}"
