"""The roll-call: every participant's own signed word that it takes part in a job, shown to all of them.

It lets a site check ``min_clients`` itself instead of believing a number. What it shows: that many distinct keys
*that this site knows* signed for this very job. What it cannot show: that a coordinator aggregates all of their
updates, or that two known keys belong to two institutions; the second is what a site's own list is for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from coreason_enclave.crypto.encoding import canonical_json, parse_json
from coreason_enclave.crypto.envelope import KeyRing, open_envelope, unverified_payload
from coreason_enclave.errors import EnclaveError, EnvelopeError, Reason
from coreason_enclave.wire.documents import ENROLMENT_TYPE, Enrolment, parse_enrolment

__all__ = ["MAX_ROLL_CALL_BYTES", "encode_roll_call", "open_enrolment", "read_roll_call"]

MAX_ROLL_CALL_BYTES = 1 << 24


def encode_roll_call(enrolments: Mapping[str, bytes]) -> bytes:
    """Canonical bytes of a roll-call from enrolment envelopes by site id; sorted, so that all sites get the same."""
    return canonical_json({"version": 1, "entries": [enrolments[site].decode() for site in sorted(enrolments)]})


def open_enrolment(envelope: bytes) -> Enrolment:
    """Verify one enrolment under the key that it names; raises :class:`EnvelopeError`.

    The signature shows that the holder of that key enrolled. Whose key it is, is not known from here.
    """
    claimed = parse_enrolment(unverified_payload(envelope))  # only to learn which key it claims
    opened = open_envelope(envelope, ENROLMENT_TYPE, KeyRing({claimed.site_id: claimed.public_key}))
    return parse_enrolment(opened.payload)


def read_roll_call(data: bytes, job_digest: str) -> tuple[Enrolment, ...]:
    """All entries of a roll-call for the job with this digest, each verified, sites and keys distinct.

    Raises:
        EnvelopeError: malformed, a signature that does not verify, an entry for another job, or a site or key twice
            (reason ``roll_call``).
    """
    document = parse_json(data, limit=MAX_ROLL_CALL_BYTES)
    version, entries = document.get("version"), document.get("entries")
    numbered = type(version) is int and version == 1  # True equals 1
    if document.keys() != {"version", "entries"} or not numbered or not isinstance(entries, list):
        raise EnvelopeError("not a roll-call: it must have version 1 and entries alone", reason=Reason.ROLL_CALL)
    try:
        enrolments = tuple(open_enrolment(_bytes(entry)) for entry in entries)
    except EnclaveError as error:
        raise EnvelopeError(f"an entry of the roll-call is refused: {error}", reason=Reason.ROLL_CALL) from error
    if any(entry.job_digest != job_digest for entry in enrolments):
        raise EnvelopeError("an entry of the roll-call is for another job", reason=Reason.ROLL_CALL)
    _require_distinct([entry.site_id for entry in enrolments], "site")
    _require_distinct([entry.public_key for entry in enrolments], "key")
    return enrolments


def _require_distinct(values: Iterable[str], what: str) -> None:
    values = list(values)
    if len(set(values)) != len(values):
        raise EnvelopeError(f"the roll-call names a {what} twice", reason=Reason.ROLL_CALL)


def _bytes(entry: object) -> bytes:
    if not isinstance(entry, str):
        raise EnvelopeError("an entry of a roll-call is the text of an envelope")
    return entry.encode()
