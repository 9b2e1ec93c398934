"""The roll-call: every participant's signed enrolment in a job, shown to all participants.

With the roll-call, a site checks ``min_clients`` itself instead of believing a number. The roll-call

- shows that a number of distinct keys, *known to this site*, signed for this very job;
- cannot show that a coordinator aggregates all of their updates;
- cannot show that two known keys belong to two institutions: for this, a site keeps its own list.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from coreason_enclave.crypto import KeyRing, canonical_json, open_envelope, parse_json, unverified_payload
from coreason_enclave.errors import EnclaveError, EnvelopeError, Reason
from coreason_enclave.wire.documents import ENROLMENT_TYPE, Enrolment

MAX_ROLL_CALL_BYTES = 1 << 24


def encode_roll_call(enrolments: Mapping[str, bytes]) -> bytes:
    """Return the canonical bytes of a roll-call, from enrolment envelopes by site id.

    Entries are sorted, so all sites get the same bytes.
    """
    return canonical_json({"version": 1, "entries": [enrolments[site].decode() for site in sorted(enrolments)]})


def open_enrolment(envelope: bytes) -> Enrolment:
    """Verify one enrolment under the key that the enrolment names; raise :class:`EnvelopeError` on failure.

    The signature shows that the holder of the key enrolled, not who holds the key.
    """
    claimed = Enrolment.from_payload(unverified_payload(envelope))  # only to learn the claimed key
    opened = open_envelope(envelope, ENROLMENT_TYPE, KeyRing({claimed.site_id: claimed.public_key}))
    return Enrolment.from_payload(opened.payload)


def read_roll_call(data: bytes, job_digest: str) -> tuple[Enrolment, ...]:
    """Return all entries of a roll-call for the job with this digest: each verified, sites and keys distinct.

    Raises:
        EnvelopeError: oversized, or not a JSON object. With reason ``roll_call``: another form, an entry that does not
            verify, an entry for another job, or a site or key twice.
    """
    document = parse_json(data, limit=MAX_ROLL_CALL_BYTES)
    version, entries = document.get("version"), document.get("entries")
    numbered = type(version) is int and version == 1  # True equals 1
    if document.keys() != {"version", "entries"} or not numbered or not isinstance(entries, list):
        raise EnvelopeError("not a roll-call: a document must have only version 1 and entries", reason=Reason.ROLL_CALL)
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
        raise EnvelopeError("an entry of a roll-call must be the text of an envelope")
    return entry.encode()
