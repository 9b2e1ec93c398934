"""Checkpoints of a log: signed by the coordinator that owns the log, shown to sites, and reported back by sites.

::

    LogCheckpoint      coordinator   size, chain head and tree root of the log with this origin
    LogProof           coordinator   proof that the log begins with the lines of an older size
    LogSeen            site          newest checkpoint of a run's log accepted by this site, in signed documents
    LogAnnouncement    coordinator   last checkpoint of a run, after the run has ended
    WitnessStatement   site          every checkpoint that this site holds, and every refused checkpoint

A log alone cannot reveal a complete rewrite, since its owner holds the key. Any site with an older checkpoint can,
because the owner signed the older checkpoint, too. A :class:`LogCheckpoint` has the fields of C2SP's tlog-checkpoint
(origin, size, root hash), plus the head of the hash chain.
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from coreason_enclave.crypto import (
    GENESIS,
    HashLog,
    KeyRing,
    LogCorrupted,
    LogHead,
    Signer,
    open_envelope,
    seal,
    sha256_hex,
    tree_of,
    unverified_payload,
    verify_consistency,
)
from coreason_enclave.errors import EnvelopeError, Reason
from coreason_enclave.schemas import (
    FormatVersion,
    HexDigest,
    SafeId,
    StrictModel,
    UnixSeconds,
    in_range,
    of_form,
)
from coreason_enclave.wire.addressed import SiteDocument, SiteJobDocument, SiteRequest

CHECKPOINT_TYPE = "application/vnd.aegis.log-checkpoint.v1+json"
ANNOUNCEMENT_TYPE = "application/vnd.aegis.log-announcement.v1+json"
WITNESS_TYPE = "application/vnd.aegis.witness-statement.v1+json"

Envelope = Annotated[str, Field(min_length=1, max_length=1 << 16)]
"""Text of a DSSE envelope inside another document; every reader verifies the envelope again."""

Origin = Annotated[str, AfterValidator(of_form(re.compile(r"[!-~]{1,255}"), "1 to 255 printable ASCII characters"))]
Size = Annotated[int, *in_range(0, 1 << 53)]
Words = Annotated[str, Field(min_length=1, max_length=1000)]


class LogCheckpoint(StrictModel):
    """A log at one moment: identity, number of lines, digest of the last line, and the tree's root."""

    described: ClassVar[str] = "a log checkpoint"

    version: FormatVersion = 1
    origin: Origin
    size: Size
    head: HexDigest
    root: HexDigest


class LogProof(StrictModel):
    """An RFC 9162 consistency proof from the first ``since`` lines; empty for trivial proofs."""

    since: Size
    hashes: Annotated[tuple[HexDigest, ...], Field(max_length=128)] = ()

    def shows(self, older: LogCheckpoint, newer: LogCheckpoint) -> bool:
        """Return True if the lines of ``older`` are the first lines of ``newer``."""
        path = [bytes.fromhex(each) for each in self.hashes]
        roots = bytes.fromhex(older.root), bytes.fromhex(newer.root)
        return self.since == older.size and verify_consistency(older.size, roots[0], newer.size, roots[1], path)


class LogSeen(StrictModel):
    """The newest checkpoint of a run's log that a site accepted."""

    size: Size
    root: HexDigest


class LogAnnouncement(SiteRequest, SiteJobDocument):
    """The last checkpoint of a run that has ended, addressed to one site that took part."""

    described: ClassVar[str] = "a log announcement"

    log: Envelope
    log_proof: LogProof


class RefusedLog(StrictModel):
    """A checkpoint that a site refused, with the checkpoint held at the time; one coordinator signed both."""

    held: Envelope
    shown: Envelope
    at: UnixSeconds


class AbandonedLog(StrictModel):
    """A checkpoint that a person at the site gave up for another checkpoint, with name and reason."""

    held: Envelope
    taken: Envelope
    by: Words
    why: Words
    at: UnixSeconds


class WitnessedLog(StrictModel):
    """All checkpoints that a site holds of one coordinator's log of one job."""

    job_id: SafeId
    coordinator_key: HexDigest
    origin: Origin
    last: Envelope
    refused: tuple[RefusedLog, ...] = ()
    abandoned: tuple[AbandonedLog, ...] = ()


class WitnessStatement(SiteDocument):
    """The statement that a site, acting as a witness, signs for an auditor."""

    described: ClassVar[str] = "a witness statement"

    public_key: HexDigest
    made_at: UnixSeconds
    logs: tuple[WitnessedLog, ...]


def origin_of_run(job_digest: str) -> str:
    """Return the identity of a run's log: one job has one log, in whatever folder.

    >>> origin_of_run("ab" * 32)[:14]
    'aegis/run/abab'
    """
    return f"aegis/run/{job_digest}"


def sign_log(log: HashLog, signer: Signer, origin: str) -> bytes:
    """Return the log's present checkpoint in an envelope, for storage next to the log and elsewhere.

    Args:
        origin: the log's identity, under which other parties keep its checkpoints.
    """
    return show_log(log, None, signer, origin)[0]


def show_log(log: HashLog, seen: LogSeen | None, signer: Signer, origin: str) -> tuple[bytes, LogProof]:
    """Return the log's present checkpoint, and the proof that the log continues the checkpoint ``seen``.

    If the log never had the checkpoint ``seen``, the result is the nearest existing proof, which convinces no one.
    """
    now = log.snapshot(0 if seen is None else seen.size)
    checkpoint = LogCheckpoint(origin=origin, size=now.head.size, head=now.head.head, root=now.root.hex())
    proof = LogProof(since=now.since, hashes=tuple(each.hex() for each in now.consistency))
    return seal(CHECKPOINT_TYPE, checkpoint.canonical(), signer), proof


def had_log(log: HashLog, seen: LogSeen) -> bool:
    """Return True if the log once had the size and root of ``seen``."""
    return log.had(seen.size, bytes.fromhex(seen.root))


def verify_checkpoint(data: bytes, checkpoint: bytes, keys: KeyRing) -> LogHead:
    """Check that the log begins with exactly the lines that a checkpoint signed; later lines may follow.

    Args:
        data: the log's bytes.
        checkpoint: an envelope.
        keys: keys whose signature counts.

    Returns:
        Size and head of the checkpoint.

    Raises:
        LogCorrupted: lines are missing or differ.
        EnvelopeError: the checkpoint itself is not authentic.
    """
    signed = LogCheckpoint.from_payload(open_envelope(checkpoint, CHECKPOINT_TYPE, keys).payload)
    lines = data.split(b"\n")[:-1]
    size, head = signed.size, signed.head
    if size > len(lines):
        raise LogCorrupted(f"the checkpoint covers {size} lines, but the log has {len(lines)}: lines were removed")
    if head != (sha256_hex(lines[size - 1]) if size else GENESIS) or signed.root != tree_of(data).root(size).hex():
        raise LogCorrupted("the log does not agree with its signed checkpoint: the log was rewritten")
    return LogHead(size, head)


def open_checkpoint(envelope: str, coordinator_key: str) -> LogCheckpoint:
    """Return the checkpoint in an envelope signed by ``coordinator_key`` (Ed25519, hex).

    Raises:
        EnvelopeError: not a checkpoint, or not signed by this key.
    """
    keys = KeyRing({"coordinator": coordinator_key})
    return LogCheckpoint.from_payload(open_envelope(envelope.encode(), CHECKPOINT_TYPE, keys).payload)


def seal_witness(statement: WitnessStatement, signer: Signer) -> bytes:
    """Return the envelope of ``statement``, signed by its site."""
    return seal(WITNESS_TYPE, statement.canonical(), signer)


def open_witness(envelope: bytes) -> WitnessStatement:
    """Verify a witness statement under the key that the statement itself names; readers must know the key's owner.

    Every checkpoint in the statement must bear the signature of the coordinator key stated next to the checkpoint, and
    the stated origin.

    Raises:
        EnvelopeError: not a witness statement, a signature that does not verify, or a wrong origin.
    """
    claimed = WitnessStatement.from_payload(unverified_payload(envelope))
    opened = open_envelope(envelope, WITNESS_TYPE, KeyRing({claimed.site_id: claimed.public_key}))
    statement = WitnessStatement.from_payload(opened.payload)
    for log in statement.logs:
        for text in _envelopes(log):
            if open_checkpoint(text, log.coordinator_key).origin != log.origin:
                raise EnvelopeError("a checkpoint is listed under another log's origin", reason=Reason.WRONG_DIGEST)
    return statement


def _envelopes(log: WitnessedLog) -> list[str]:
    refused = [text for each in log.refused for text in (each.held, each.shown)]
    return [log.last, *refused, *(text for each in log.abandoned for text in (each.held, each.taken))]
