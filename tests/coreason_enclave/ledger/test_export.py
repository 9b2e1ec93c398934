"""An export proves itself, and an auditor notices what a site could have written into it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from coreason_enclave.crypto.encoding import canonical_json
from coreason_enclave.errors import LedgerCorrupted
from coreason_enclave.ledger import LedgerHead, SqliteLedger, verify_export
from coreason_enclave.ledger.chain import make_link

LINEAGE = "clinic/visits"


def rewritten(data: bytes, change: Callable[[list[dict[str, Any]]], None]) -> bytes:
    """The export of a site that rewrote its history and hashed it anew."""
    payloads = [json.loads(row["payload"]) for row in json.loads(data)["entries"]]
    change(payloads)
    head, rows = None, []
    for payload in payloads:
        link = make_link(head, canonical_json(payload))
        head = link.head
        rows.append({"seq": link.seq, "prev": link.prev, "payload": link.payload.decode(), "hash": link.hash})
    document = {"format": "coreason.ledger.export/1", "entries": rows, "head": {"seq": head.seq, "hash": head.hash}}
    return canonical_json(document)


def test_an_export_is_verified_from_its_bytes_alone(used: SqliteLedger) -> None:
    findings = verify_export(used.export(), expected_head=used.head())
    assert findings.entries == used.head().seq + 1
    assert findings.lineages[0].lineage == LINEAGE
    assert [job.job_id for job in findings.jobs] == ["study-1"]
    assert not any("cut off" in gap for gap in findings.not_checked)
    assert any("cut off" in gap for gap in verify_export(used.export()).not_checked)


def test_an_untouched_rewrite_is_the_same_export(used: SqliteLedger) -> None:
    assert rewritten(used.export(), lambda payloads: None) == used.export()


SPOILED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a byte of a payload": lambda d: d["entries"][1].update(payload=d["entries"][1]["payload"].replace("8.0", "9.0")),
    "a hash": lambda d: d["entries"][1].update(hash="00" * 32),
    "a gap": lambda d: d["entries"].pop(1),
    "two entries swapped": lambda d: d["entries"].insert(1, d["entries"].pop(2)),
    "the end cut off": lambda d: d["entries"].pop(),
    "everything cut off": lambda d: d["entries"].clear(),
    "another head": lambda d: d["head"].update(hash="00" * 32),
    "another format": lambda d: d.update(format="coreason.ledger.export/2"),
    "an additional field": lambda d: d.update(note="all is well"),
    "no head": lambda d: d.pop("head"),
    "numbers as text": lambda d: d["head"].update(seq="4"),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED.keys())
def test_a_spoiled_export_is_refused(used: SqliteLedger, spoil: Callable[[dict[str, Any]], Any]) -> None:
    document = json.loads(used.export())
    spoil(document)
    with pytest.raises(LedgerCorrupted):
        verify_export(canonical_json(document))


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b"\xff", b"[" * 100_000], ids=repr)
def test_bytes_that_are_no_export_are_refused(data: bytes) -> None:
    with pytest.raises(LedgerCorrupted):
        verify_export(data)


def test_a_head_seen_before_that_is_not_in_the_history_reveals_a_rollback(used: SqliteLedger) -> None:
    shorter = json.loads(used.export())
    shorter["entries"].pop()
    last = shorter["entries"][-1]
    shorter["head"] = {"seq": last["seq"], "hash": last["hash"]}
    data = canonical_json(shorter)
    verify_export(data)
    for seen in (used.head(), LedgerHead(seq=1, hash="00" * 32)):
        with pytest.raises(LedgerCorrupted, match="rolled back"):
            verify_export(data, expected_head=seen)


def test_an_acknowledged_rollback_verifies_and_is_named_with_person_and_reason(used: SqliteLedger) -> None:
    lost = LedgerHead(seq=9, hash="9f" * 32)
    used.acknowledge(lost, "A. Ito", "the disk failed")
    findings = verify_export(used.export(), expected_head=lost)
    (gap,) = [gap for gap in findings.not_checked if "A. Ito" in gap]
    assert "entry 9" in gap
    assert "A. Ito continued without them (the disk failed)" in gap
    with pytest.raises(LedgerCorrupted, match="rolled back"):
        verify_export(used.export(), expected_head=LedgerHead(seq=8, hash="9f" * 32))


def test_the_same_head_acknowledged_twice_is_no_history_that_a_ledger_writes(used: SqliteLedger) -> None:
    used.acknowledge(LedgerHead(seq=9, hash="9f" * 32), "A. Ito", "the disk failed")
    with pytest.raises(LedgerCorrupted, match="already acknowledged"):
        verify_export(rewritten(used.export(), lambda payloads: payloads.append(payloads[-1])))


def _scale(field: str, factor: float) -> Callable[[list[dict[str, Any]]], None]:
    def change(payloads: list[dict[str, Any]]) -> None:
        for payload in payloads:
            if field in payload:
                payload[field] = int(payload[field] * factor)

    return change


# Rewritten consistently, hashed correctly: only accounting can tell.
LOOSENED = {
    "a larger budget": (_scale("budget_pico", 2), "larger budget"),
    "cheaper steps": (_scale("step_cost_pico", 0.5), "lower cost"),
    "more steps than the target affords": (_scale("allowed_steps", 1.2), "more steps"),
}


@pytest.mark.parametrize(("change", "match"), LOOSENED.values(), ids=LOOSENED.keys())
def test_a_history_with_looser_numbers_than_accounting_gives_is_refused(
    used: SqliteLedger, change: Callable[[list[dict[str, Any]]], None], match: str
) -> None:
    with pytest.raises(LedgerCorrupted, match=match):
        verify_export(rewritten(used.export(), change))


def test_stricter_numbers_are_a_sites_own_choice(used: SqliteLedger) -> None:
    verify_export(rewritten(used.export(), _scale("budget_pico", 0.9)))
    verify_export(rewritten(used.export(), _scale("step_cost_pico", 1.1)))


def test_spending_beyond_the_budget_is_refused_even_if_well_hashed(used: SqliteLedger) -> None:
    with pytest.raises(LedgerCorrupted, match="affordable"):
        verify_export(rewritten(used.export(), _scale("budget_pico", 0.01)))
