"""The entries that a ledger consists of. Each type and version means for ever what it means today.

Numbers that were derived when an entry was written (a budget, a cost, the last affordable step) are stored
with it: reading a ledger needs no accountant, and a later accountant cannot change what was decided.
Verification derives them again and compares (:mod:`coreason_enclave.ledger.export`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, PlainSerializer, PlainValidator, TypeAdapter, ValidationError

from coreason_enclave.accounting.events import Event, event_from_dict, event_to_dict
from coreason_enclave.crypto.encoding import parse_json
from coreason_enclave.errors import EnclaveError, LedgerCorrupted
from coreason_enclave.ledger.records import LineageRegistration, NonPrivatePlan, RoundPlan
from coreason_enclave.schemas import HexDigest, SafeId, SafePath, StrictModel, explain

__all__ = [
    "MAX_PICO",
    "Acknowledged",
    "Committed",
    "ContentNoted",
    "Entry",
    "Founded",
    "Registered",
    "Reserved",
    "ReservedNonPrivate",
    "parse_entry",
]

MAX_PICO = 2**53 - 1  # every JSON reader keeps whole numbers up to here
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
    """The first entry. ``ledger_id`` is random; ``durable`` is False for a ledger in memory."""

    type: Literal["founded"] = "founded"
    ledger_id: HexDigest
    durable: bool


class Registered(_Entry):
    """A lineage and its budget in 1e-12 of Rényi divergence at the registered order, rounded down."""

    type: Literal["registered"] = "registered"
    registration: LineageRegistration
    budget_pico: _Positive


class ContentNoted(_Entry):
    """What the lineage held when a reserved round drew from it, and under which key: marks, see :class:`Draw`."""

    type: Literal["content_noted"] = "content_noted"
    lineage: SafePath
    job_id: SafeId
    round_number: _Count
    content_mark: HexDigest
    key_mark: HexDigest


class Reserved(_Entry):
    """The worst case of one round, charged.

    ``allowed_steps`` is the most that the job may ever run within its own target; ``step_cost_pico`` is what
    one step costs at the lineage's order, rounded up. Both are the same in every entry of a job.
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
    """What a reserved round ran, and SHA-256 of the update that it released, if it did."""

    type: Literal["committed"] = "committed"
    lineage: SafePath
    job_id: SafeId
    round_number: _Count
    reservation_id: HexDigest
    event: _AnEvent
    update_digest: HexDigest | None


class Acknowledged(_Entry):
    """A head that this site signed and this history lacks: who goes on without what was forgotten, and why."""

    type: Literal["acknowledged"] = "acknowledged"
    head_seq: _Count
    head_hash: HexDigest
    by: Annotated[str, Field(min_length=1, max_length=120, pattern=_ONE_LINE)]
    why: Annotated[str, Field(min_length=1, max_length=1000, pattern=_ONE_LINE)]


Entry = Founded | Registered | ContentNoted | Reserved | ReservedNonPrivate | Committed | Acknowledged
_ENTRY: TypeAdapter[Entry] = TypeAdapter(Annotated[Entry, Field(discriminator="type")])


def parse_entry(payload: bytes) -> Entry:
    """Read stored bytes; an unknown type, version or field, NaN or a number out of range is refused."""
    try:
        parse_json(payload)
        return _ENTRY.validate_json(payload)
    except ValidationError as error:
        raise LedgerCorrupted(f"the ledger holds an entry that is not understood: {explain(error)}") from error
    except (EnclaveError, TypeError, ValueError) as error:
        raise LedgerCorrupted(f"the ledger holds an entry that is not understood: {error}") from error
