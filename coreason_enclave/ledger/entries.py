"""The ledger's entries. Each type and version keeps its meaning for ever.

An entry stores the numbers derived at writing (a budget, a cost, the last affordable step). Two reasons:

* reading a ledger needs no accountant;
* a later accountant cannot change past decisions.

Verification derives the numbers again and compares them (:mod:`coreason_enclave.ledger.export`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, PlainSerializer, PlainValidator, TypeAdapter

from coreason_enclave.accounting import Event, event_from_dict, event_to_dict
from coreason_enclave.crypto import parse_json
from coreason_enclave.errors import EnclaveError, LedgerCorrupted
from coreason_enclave.ledger.records import LineageCaps, LineageRegistration, NonPrivatePlan, RoundPlan
from coreason_enclave.schemas import HexDigest, SafeId, SafePath, StrictModel
from coreason_enclave.system import explain

MAX_PICO = 2**53 - 1  # the largest whole number that every JSON reader keeps exactly
_ONE_LINE = r"^[^\x00-\x1f\x7f]+$"


def _event(value: Event | Mapping[str, Any]) -> Event:
    return event_from_dict(value) if isinstance(value, Mapping) else value


_AnEvent = Annotated[Event, PlainValidator(_event), PlainSerializer(event_to_dict)]
_Count = Annotated[int, Field(ge=0, le=MAX_PICO)]
_Positive = Annotated[int, Field(ge=1, le=MAX_PICO)]


class _Entry(StrictModel):
    model_config = ConfigDict(strict=True)

    version: Literal[1] = 1
    time: _Count


class Founded(_Entry):
    """The first entry, which creates the ledger. ``ledger_id`` is random; ``durable`` is False for a memory ledger."""

    type: Literal["founded"] = "founded"
    ledger_id: HexDigest
    durable: bool


class Unattested(_Entry):
    """The ledger of a site under profile ``unattested``, which is never opened under another profile."""

    type: Literal["unattested"] = "unattested"


class Registered(_Entry):
    """A lineage and its budget in 1e-12 of Rényi divergence at the registered order, rounded down."""

    type: Literal["registered"] = "registered"
    registration: LineageRegistration
    budget_pico: _Positive


class CapsRaised(_Entry):
    """Higher caps of a registered lineage at its unchanged order, the whole budget under them, and the reason."""

    type: Literal["caps_raised"] = "caps_raised"
    lineage: SafePath
    caps: LineageCaps
    budget_pico: _Positive
    why: Annotated[str, Field(min_length=1, max_length=1000, pattern=_ONE_LINE)]


class ContentNoted(_Entry):
    """Marks of the lineage's content and of the job's key at a reserved round's draw; see :class:`Draw`."""

    type: Literal["content_noted"] = "content_noted"
    lineage: SafePath
    job_id: SafeId
    round_number: _Count
    content_mark: HexDigest
    key_mark: HexDigest


class Reserved(_Entry):
    """The charged worst case of one round.

    ``allowed_steps``: the most steps that the job may ever run within its own target. ``step_cost_pico``: the cost of
    one step at the lineage's order, rounded up. Both stay the same in all entries of a job.
    """

    type: Literal["reserved"] = "reserved"
    lineage: SafePath
    reservation_id: HexDigest
    binding: HexDigest
    plan: RoundPlan
    step_limit: _Positive
    allowed_steps: _Positive
    step_cost_pico: _Positive


class ReservedNonPrivate(_Entry):
    """One non-private round on a public lineage."""

    type: Literal["reserved_non_private"] = "reserved_non_private"
    lineage: SafePath
    reservation_id: HexDigest
    binding: HexDigest
    plan: NonPrivatePlan


class Committed(_Entry):
    """The event that a reserved round ran, and SHA-256 of the released update, or None without a release."""

    type: Literal["committed"] = "committed"
    lineage: SafePath
    job_id: SafeId
    round_number: _Count
    reservation_id: HexDigest
    event: _AnEvent
    update_digest: HexDigest | None


class Acknowledged(_Entry):
    """A head that this site signed but this history lacks: the person who continues without those entries, and why."""

    type: Literal["acknowledged"] = "acknowledged"
    head_seq: _Count
    head_hash: HexDigest
    by: Annotated[str, Field(min_length=1, max_length=120, pattern=_ONE_LINE)]
    why: Annotated[str, Field(min_length=1, max_length=1000, pattern=_ONE_LINE)]


Entry = (
    Founded
    | Unattested
    | Registered
    | CapsRaised
    | ContentNoted
    | Reserved
    | ReservedNonPrivate
    | Committed
    | Acknowledged
)
_ENTRY: TypeAdapter[Entry] = TypeAdapter(Annotated[Entry, Field(discriminator="type")])


def parse_entry(payload: bytes) -> Entry:
    """Parse stored bytes into an entry.

    Raises:
        LedgerCorrupted: an unknown type, version or field, NaN, or a number out of range.
    """
    try:
        parse_json(payload)
        return _ENTRY.validate_json(payload)
    except (EnclaveError, TypeError, ValueError) as error:  # pydantic's error among them
        raise LedgerCorrupted(f"the ledger contains an invalid entry: {explain(error)}") from error
