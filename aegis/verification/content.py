"""Checks whether the sites' rows stayed the same within the job, and whether every record names the changes."""

from __future__ import annotations

from aegis.stores import content_changes
from aegis.verification.findings import Answer, Answers, Reference, fails, holds, require, stays_open
from aegis.verification.ledgers import SiteLedger
from aegis.verification.records import Records


def check_content(records: Records, _: Reference) -> Answers:
    """Check the sites' signed statements about their content against ledgers, job, state and outcome:

    1. a site's ledger and its signed statements name the same rounds with changed content
    2. no content changed in a job whose lineages may not grow
    3. state and outcome name the same sites and rounds as the log
    """
    for site, ledger in records.ledgers.items():
        yield _content_of(records, site, ledger)
    logged = {
        each.number: sorted(site for site, update in each.admitted.items() if update.content_changed)
        for each in records.trail.rounds
    }
    kept = {each.round_number: sorted(each.content_changed) for each in records.state.history}
    require(logged == kept, "state/state.json and the log name different sites with changed content")
    require(
        records.outcome.content_changed == content_changes(records.state.history),
        "outcome.json and the log name different sites and rounds with changed content",
    )


def _content_of(records: Records, site: str, ledger: SiteLedger | str) -> Answer:
    updates = records.updates_of(site)
    changed = sorted({update.round_number for update in updates if update.content_changed})
    if changed and not records.job.lineages_may_grow:
        return fails(f"{site}: its rows changed before round {_list(changed)}, but the job sets no lineages_may_grow")
    if isinstance(ledger, str):
        return stays_open(f"{site}: {_describe(changed)} according to its signed updates; no ledger here to compare")
    claim = ledger.claim(records.job.digest())
    noted = set() if claim is None else set(claim.content_changed)
    for update in updates:
        if update.content_changed != (update.round_number in noted):
            record = "records changed content" if update.round_number in noted else "records unchanged content"
            return fails(f"{site}, round {update.round_number} (line {update.line}): ledger {record}, update differs")
    return holds(f"{site}: {_describe(changed)}")


def _describe(changed: list[int]) -> str:
    if not changed:
        return "the same content in every round"
    return f"CONTENT CHANGED between rounds, before round {_list(changed)}; the job allows it (lineages_may_grow)"


def _list(rounds: list[int]) -> str:
    return ", ".join(map(str, rounds))
