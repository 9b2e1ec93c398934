"""One document, one spelling: two spellings of a signed document would have two digests."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from coreason_enclave.errors import EnvelopeError
from coreason_enclave.wire.documents import Enrolment, HealthStatement

ENROLMENT = Enrolment(
    site_id="a", public_key="ab" * 32, profile="production", job_id="j", job_digest="cd" * 32, enrolled_at=1
)
HEALTH = HealthStatement(site_id="a", agent_version="1", sent_at=1, round_trip_s=0.5)


@pytest.mark.parametrize(
    ("document", "parse"), [(ENROLMENT, Enrolment.from_payload), (HEALTH, HealthStatement.from_payload)]
)
def test_a_document_is_read_back_from_its_canonical_bytes(document: Any, parse: Callable[[bytes], Any]) -> None:
    assert parse(document.canonical()) == document


@pytest.mark.parametrize(
    "spell",
    [
        lambda data: json.dumps(json.loads(data), indent=1).encode(),
        lambda data: data.replace(b'"enrolled_at":1', b'"enrolled_at":1.0'),
        lambda data: json.dumps(dict(reversed(json.loads(data).items())), separators=(",", ":")).encode(),
        lambda data: data.replace(b',"version":1', b""),
    ],
    ids=["with spaces", "a whole number with a fraction", "in another order", "a default left out"],
)
def test_the_same_document_spelled_otherwise_is_refused(spell: Callable[[bytes], bytes]) -> None:
    other = spell(ENROLMENT.canonical())
    assert other != ENROLMENT.canonical()
    with pytest.raises(EnvelopeError):
        Enrolment.from_payload(other)
