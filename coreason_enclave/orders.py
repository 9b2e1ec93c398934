"""What travels inside envelopes: a coordinator's order for one round, a site's statement about its update."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ValidationError

from coreason_enclave.encoding import parse_json
from coreason_enclave.errors import EnvelopeError
from coreason_enclave.schemas import (
    Delta,
    FederationJob,
    FormatVersion,
    HexDigest,
    SafeId,
    StrictModel,
    UnixSeconds,
    explain,
    in_range,
)

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

Round = Annotated[int, *in_range(1, 100_000)]


class RoundOrder(StrictModel):
    """What one site is asked to do in one round. Times are Unix seconds; the nonce is used once."""

    version: FormatVersion = 1
    job: FederationJob
    round_number: Round
    site_id: SafeId
    nonce: HexDigest
    base_model_digest: HexDigest
    issued_at: UnixSeconds
    expires_at: UnixSeconds


class LedgerHeadStatement(StrictModel):
    """The site's ledger after this round: an older head later reveals a restored copy."""

    seq: Annotated[int, *in_range(0, 1 << 53)]
    hash: HexDigest


class UpdateStatement(StrictModel):
    """What a site signs over: which update, for which order, under which privacy event, from where.

    Everything here is data-independent or has passed the mechanism: ``nominal_units`` is the declared, public
    size, never a count of rows.
    """

    version: FormatVersion = 1
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
    delta: Delta
    epsilon: Annotated[float, *in_range(0, 1e6)] | None
    nominal_units: Annotated[int, *in_range(1, 1 << 53)]
    metrics: dict[SafeId, Annotated[float, *in_range(-1e300, 1e300)]]
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
