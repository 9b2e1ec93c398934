"""``aegis verify``: a run's claims against its own records."""

from __future__ import annotations

import json
from pathlib import Path

import click

from aegis.verification import Check, Reference, Report, Verdict, verify_run

__all__ = ["verify"]

_EXIT_CODES = "\b\nExit codes (the first check that fails decides):\n  0   every check holds\n" + "\n".join(
    f"  {check.value}  {check.label:<11} {check.question}" for check in Check
)
_MARKS = {Verdict.HOLDS: "ok", Verdict.FAILS: "FAILS", Verdict.NOT_CHECKED: "open"}


@click.command(epilog=f"{_EXIT_CODES}\n\n\b\nExample: aegis verify runs/latest --json")
@click.argument("run_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--coordinator-key", metavar="HEX", help="The coordinator's Ed25519 key, from elsewhere.")
@click.option(
    "--checkpoint",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="An older signed checkpoint of this log, kept elsewhere.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def verify(
    ctx: click.Context, run_dir: Path, coordinator_key: str | None, checkpoint: Path | None, as_json: bool
) -> None:
    """Check the claims of the finished run in RUN_DIR against its own records.

    Chain and signature of the audit log, every site's ledger, every admitted privacy event, every epsilon (composed
    again), model and job. Offline, read-only, and without any of the frameworks that made the run. Says as well what
    it could not check.
    """
    reference = Reference(coordinator_key, None if checkpoint is None else checkpoint.read_bytes())
    report = verify_run(run_dir, reference)
    click.echo(_document(run_dir, report) if as_json else _page(run_dir, report))
    if not report.ok:
        first = next(finding for finding in report.findings if finding.verdict is Verdict.FAILS)
        click.echo(f"error: {run_dir} does not verify: {first.subject}: {first.detail}", err=True)
        ctx.exit(report.exit_code)


def _document(run_dir: Path, report: Report) -> str:
    findings = [
        {"subject": each.subject, "verdict": each.verdict.value, "detail": each.detail} for each in report.findings
    ]
    document = {
        "run": str(run_dir),
        "ok": report.ok,
        "exit_code": report.exit_code,
        "failed": [check.label for check in report.failed],
        "notices": list(report.notices),
        "findings": findings,
    }
    return json.dumps(document, indent=2)


def _page(run_dir: Path, report: Report) -> str:
    width = max(len(finding.subject) for finding in report.findings)
    lines = [f"! {notice}" for notice in report.notices]
    lines += [
        f"{_MARKS[finding.verdict]:<5}  {finding.subject:<{width}}  {finding.detail}" for finding in report.findings
    ]
    open_questions = sum(finding.verdict is Verdict.NOT_CHECKED for finding in report.findings)
    verdict = "verified" if report.ok else f"NOT VERIFIED ({', '.join(check.label for check in report.failed)})"
    return "\n".join([*lines, f"{run_dir}: {verdict}; {open_questions} questions stay open"])
