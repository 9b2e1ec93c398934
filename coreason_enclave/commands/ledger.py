"""``coreason-enclave ledger``: shows, verifies, exports and backs up a ledger, or accepts a restored ledger.

No command here spends budget. The output shows only public facts: caps, claims, hashes. A ledger holds no key and no
row.
"""

from __future__ import annotations

import json
import re
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from coreason_enclave.command_line import content_of
from coreason_enclave.schemas import Profile
from coreason_enclave.system import as_datetime, replace_file

if TYPE_CHECKING:
    from coreason_enclave.ledger import ExportFindings, JobClaim, LedgerHead, LineageClaim

_SQLITE = b"SQLite format 3\x00"
_HEAD = re.compile(r"(\d{1,15}):([0-9a-f]{64})")


_existing = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(epilog="Example: coreason-enclave ledger show /var/lib/enclave/ledger.db")
def ledger() -> None:
    """Look at this site's privacy ledger, verify, export or back it up, or go on with one that was restored."""


@ledger.command(epilog="Example: coreason-enclave ledger show /var/lib/enclave/ledger.db")
@click.argument("path", type=_existing)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def show(path: Path, as_json: bool) -> None:
    """What was spent on each lineage, by which jobs, and what is left.

    PATH is a ledger or an export of one.
    """
    from coreason_enclave.ledger import verify_export

    with content_of(path, made_by="coreason-enclave ledger export"):
        findings = verify_export(_exported(path))
    click.echo(json.dumps(asdict(findings), indent=2) if as_json else _page(findings))


@ledger.command(epilog="Example: coreason-enclave ledger verify ledger.json --expect 41:9f2c…")
@click.argument("path", type=_existing)
@click.option("--expect", metavar="SEQ:HASH", help="A ledger head seen before; the ledger's history must contain it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def verify(path: Path, expect: str | None, as_json: bool) -> None:
    """Check the chain, every rule at every entry, and every recorded budget and cost.

    PATH is a ledger or an export of one. Exit code 3 if anything does not hold.
    """
    from coreason_enclave.ledger import verify_export

    known = None if expect is None else _parse_head(expect, "--expect")
    with content_of(path, made_by="coreason-enclave ledger export"):
        findings = verify_export(_exported(path), expected_head=known)
    if as_json:
        summary = {"ok": True, "entries": findings.entries, "head": asdict(findings.head)}
        click.echo(json.dumps({**summary, "not_checked": findings.not_checked}, indent=2))
        return
    click.echo(f"verified: {findings.entries} entries, head {findings.head.seq}:{findings.head.hash}")
    for gap in findings.not_checked:
        click.echo(f"not checked: {gap}")


@ledger.command(epilog="Example: coreason-enclave ledger export ledger.db --out ledger.json")
@click.argument("path", type=_existing)
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="File to write.")
def export(path: Path, out: Path) -> None:
    """Write all entries and the head to one JSON file that `verify` and any auditor can check offline."""
    from coreason_enclave.ledger import verify_export

    with content_of(path, made_by="coreason-enclave ledger export"):
        findings = verify_export(data := _exported(path))
    replace_file(out, data)
    click.echo(f"wrote {findings.entries} entries to {out}, head {findings.head.seq}:{findings.head.hash}")


@ledger.command(epilog="Example: coreason-enclave ledger backup ledger.sqlite --out /mnt/backup/ledger-41.sqlite")
@click.argument("path", type=_existing)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="New file to write.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def backup(path: Path, out: Path, as_json: bool) -> None:
    """Copy a ledger, also one in use, and verify the copy.

    PATH is the ledger itself. The copy holds every entry, is private to its owner, and never replaces a file. Keep
    its head, which is printed: a restored ledger that lacks it has forgotten what was spent.
    """
    from coreason_enclave.ledger import back_up

    _require_sqlite(path)
    findings = back_up(path, out)
    if as_json:
        summary = {"ok": True, "copy": str(out), "entries": findings.entries, "head": asdict(findings.head)}
        click.echo(json.dumps(summary, indent=2))
        return
    click.echo(f"wrote and verified {out}: {findings.entries} entries, head {findings.head.seq}:{findings.head.hash}")


@ledger.command(epilog='Example: coreason-enclave ledger acknowledge ledger.db --head 41:9f2c… --by "A. Ito" --why "…"')
@click.argument("path", type=_existing)
@click.option("--head", required=True, metavar="SEQ:HASH", help="The ledger head named in the refusal.")
@click.option("--by", required=True, metavar="NAME", help="Name of the person who takes responsibility.")
@click.option("--why", required=True, metavar="TEXT", help="Reason why the ledger lacks these entries.")
def acknowledge(path: Path, head: str, by: str, why: str) -> None:
    """Go on with a restored ledger that lacks entries which this site once signed.

    PATH is the ledger itself. What was spent in the lost entries stays spent on the data, and no claim of this
    ledger covers it: restore the newest copy instead wherever there is one. The entry that this writes, with name
    and reason, is part of the ledger for good and every verification shows it.
    """
    from coreason_enclave.ledger import SqliteLedger

    lost = _parse_head(head, "--head")
    _require_sqlite(path)
    with closing(SqliteLedger(path, must_exist=True)) as store:
        if store.knows(lost):
            click.echo(f"the ledger contains entry {lost.seq}: nothing to acknowledge; nothing was written")
            return
        store.acknowledge(lost, by, why)
        now = store.head()
    click.echo(f"acknowledged by {by}: this ledger lacks entry {lost.seq} and the lost entries before it ({why})")
    click.echo("this ledger does not count the privacy spent in the lost entries; no claim of this ledger covers it")
    click.echo(f"written as entry {now.seq}, head {now.seq}:{now.hash}; the site answers orders again")


def _require_sqlite(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(len(_SQLITE)) != _SQLITE:
            raise click.BadParameter(
                f"{path} is not the ledger itself: name the file that site.toml calls ledger", param_hint="PATH"
            )


def _exported(path: Path) -> bytes:
    """Return the export's bytes, from an export or from a ledger."""
    from coreason_enclave.ledger import SqliteLedger

    with path.open("rb") as file:
        if file.read(len(_SQLITE)) != _SQLITE:
            file.seek(0)
            return file.read()
    with closing(SqliteLedger(path, must_exist=True)) as store:
        return store.export()


def _parse_head(text: str, option: str) -> LedgerHead:
    from coreason_enclave.ledger import LedgerHead

    match = _HEAD.fullmatch(text)
    if match is None:
        raise click.BadParameter("must be an entry's number, ':' and its hash (64 hex digits)", param_hint=option)
    return LedgerHead(seq=int(match[1]), hash=match[2])


def _page(findings: ExportFindings) -> str:
    from coreason_enclave.ledger import DEFINITIONS, why_spent_differs

    lines = [f"ledger {findings.ledger_id[:16]}, {findings.entries} entries, head {findings.head.seq}"]
    if findings.unattested:
        lines.append(f"  {Profile.UNATTESTED.in_words()}: no evidence shows which code spent this budget")
    if not findings.durable:
        lines.append("  IN MEMORY ONLY: this ledger was never stored on disk")
    lines += [
        f"  INCOMPLETE: lacks lost entries up to entry {lost.head.seq}; {lost.by} continued without them ({lost.why})"
        for lost in findings.acknowledged
    ]
    for lineage in findings.lineages:
        lines += ["", *_lineage_lines(lineage)]
        for job in (job for job in findings.jobs if job.lineage == lineage.lineage):
            lines += [_job_line(job), *([f"    {why}"] if (why := why_spent_differs(job)) else [])]
    if any(job.spent is not None for job in findings.jobs):
        lines += ["", *(line.replace("*", "") for line in DEFINITIONS)]
    return "\n".join(lines)


def _lineage_lines(claim: LineageClaim) -> list[str]:
    kind = "public" if claim.public else "private"
    lines = [f"{claim.lineage} ({kind}, per {claim.unit}, {claim.nominal_units} declared)"]
    for raised in claim.raised:
        when = as_datetime(raised.time).date()
        lines.append(f"  CAP RAISED on {when} from epsilon {raised.former.epsilon:g}: {raised.why}")
    if claim.non_private:
        lines.append("  NON-PRIVATE training ran: no finite epsilon covers this lineage")
    cap = f"  cap epsilon {claim.caps.epsilon:g} at delta {claim.caps.delta:g}, by the RDP filter at order "
    used = claim.spent_pico / claim.budget_pico
    lines.append(
        f"{cap}{claim.filter_order}: {used:.1%} spent (epsilon {claim.spent_epsilon:.3f} by the filter, all jobs), "
        f"epsilon {claim.left_epsilon:.3f} ({claim.left_share:.1%}) left"
    )
    return lines


def _job_line(claim: JobClaim) -> str:
    from coreason_enclave.ledger import NoiseSource, job_in_words

    waiting = f", {claim.open_reservations} open" if claim.open_reservations else ""
    if claim.guarantee is None:
        return f"  job {claim.job_id}: NON-PRIVATE, {len(claim.rounds)} rounds{waiting}"
    unsafe = ", UNSAFE SEEDED NOISE" if NoiseSource.UNSAFE_SEEDED in claim.noise_sources else ""
    return (
        f"  job {claim.job_id}: {job_in_words(claim)} by {claim.guarantee.accountant}, {len(claim.rounds)} rounds, "
        f"{claim.steps_spent} of {claim.steps_allowed} steps{waiting}{unsafe}"
    )
