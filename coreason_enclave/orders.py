"""The documents that travel inside envelopes: a coordinator's order for one round, a site's statement about its update."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from coreason_enclave.encoding import parse_json
from coreason_enclave.errors import EnvelopeError
from coreason_enclave.schemas import FederationJob, HexDigest, SafeId, StrictModel, explain

__all__ = [
    "ORDER_TYPE",
    "UPDATE_TYPE",
    "LedgerHeadStatement",
    "RoundOrder",
    "UpdateStatement",
    "parse_order",
    "parse_statement",
]

ORDER_TYPE = "application/vnd.aegis.round-order.v1+json"
UPDATE_TYPE = "application/vnd.aegis.update.v1+json"

UnixSeconds = Annotated[int, Field(ge=0, le=1 << 53)]
Round = Annotated[int, Field(ge=1, le=100_000)]


class RoundOrder(StrictModel):
    """What one site is asked to do in one round. Times are Unix seconds; the nonce is used once."""

    version: Literal[1] = 1
    job: FederationJob
    round_number: Round
    site_id: SafeId
    nonce: HexDigest
    base_model_digest: HexDigest
    issued_at: UnixSeconds
    expires_at: UnixSeconds


class LedgerHeadStatement(StrictModel):
    """The site's ledger after this round: an older head later reveals a restored copy."""

    seq: Annotated[int, Field(ge=0)]
    hash: HexDigest


class UpdateStatement(StrictModel):
    """What a site signs over: which update, for which order, under which privacy event, from where.

    Everything here is data-independent or has passed the mechanism: ``nominal_units`` is the declared, public
    size, never a count of rows.
    """

    version: Literal[1] = 1
    site_id: SafeId
    job_id: SafeId
    job_digest: HexDigest
    round_number: Round
    nonce: HexDigest
    base_model_digest: HexDigest
    update_digest: HexDigest
    event: dict[str, Any]
    noise_source: SafeId
    unit: SafeId
    delta: float
    epsilon: float | None
    nominal_units: Annotated[int, Field(ge=1)]
    metrics: dict[SafeId, float]
    evidence: dict[str, Any]
    ledger_head: LedgerHeadStatement


def parse_order(payload: bytes) -> RoundOrder:
    """Read a verified payload as an order; raises :class:`EnvelopeError`."""
    try:
        return RoundOrder.model_validate(parse_json(payload))
    except ValidationError as error:
        raise EnvelopeError(f"not a round order: {explain(error)}") from error


def parse_statement(payload: bytes) -> UpdateStatement:
    """Read a verified payload as an update statement; raises :class:`EnvelopeError`."""
    try:
        return UpdateStatement.model_validate(parse_json(payload))
    except ValidationError as error:
        raise EnvelopeError(f"not an update statement: {explain(error)}") from error
