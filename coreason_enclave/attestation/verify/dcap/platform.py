"""Rules for a verified platform and its report, beyond the library's own checks."""

from __future__ import annotations

from typing import Any

from coreason_enclave.attestation.verify.dcap.library import STATUSES_BY_ADVISORY, STATUSES_BY_GRACE, Claims, Level
from coreason_enclave.attestation.verify.dcap.quote import Quote
from coreason_enclave.attestation.verify.dcap.tcb_policy import DcapPlatformPolicy
from coreason_enclave.attestation.verify.verdict import Refusal, VerificationRefused

_SGX_INITIALISED, _SGX_DEBUG = 0x01, 0x02
_TD_UNDER_DEBUG = 0xFF
_TD_RESERVED = sum(1 << bit for bit in (*range(8, 16), *range(23, 27), *range(32, 62)))
_TD_SERVICE_TD, _TD_SEPT_VE_DISABLE, _TD_MIGRATABLE = 1 << 17, 1 << 28, 1 << 29


def refuse_tcb(claims: Claims, policy: DcapPlatformPolicy, now: int) -> None:
    """Raise unless every matched level is up to date, or excused by ``policy`` at ``now`` (Unix seconds).

    The quoting enclave's level follows the same rules as the platform's, because the merged verdict of Intel's rules
    leaves some of its statuses out.
    """
    graced = policy.tolerates_out_of_date(now)
    for status in (claims.tcb.status, *(level.status for level in claims.levels())):
        _refuse_status(status, graced)
    _refuse_unnamed(claims, policy)
    if claims.tcb.eval_data_number < policy.min_tcb_evaluation_data_number:
        raise VerificationRefused(Refusal.TCB_OUT_OF_DATE, f"TCB recovery {claims.tcb.eval_data_number} is too old")


def _refuse_status(status: str, graced: bool) -> None:
    if status == "Revoked":
        raise VerificationRefused(Refusal.REVOKED, "Intel revoked this platform's TCB")
    if status in STATUSES_BY_GRACE:
        if not graced:
            raise VerificationRefused(Refusal.TCB_OUT_OF_DATE, f"{status} needs a grace period (out_of_date_until)")
    elif status != "UpToDate" and status not in STATUSES_BY_ADVISORY:
        raise VerificationRefused(Refusal.TCB_UNKNOWN, f"an unknown TCB status: {status[:60]}")


def _refuse_unnamed(claims: Claims, policy: DcapPlatformPolicy) -> None:
    unnamed = sorted(advisories(claims) - set(policy.accepted_advisories))
    if unnamed:
        raise VerificationRefused(
            Refusal.TCB_ADVISORY, f"{claims.tcb.status}: {', '.join(unnamed)[:300]} not in accepted_advisories"
        )
    for level in claims.levels():
        _refuse_nothing_to_name(level)


def _refuse_nothing_to_name(level: Level) -> None:
    if level.status in STATUSES_BY_ADVISORY and not level.advisories:
        raise VerificationRefused(Refusal.TCB_ADVISORY, f"{level.status}, but Intel names no advisory to accept")


def advisories(claims: Claims) -> set[str]:
    """Return every advisory of every matched level."""
    return {*claims.tcb.advisory_ids, *(name for level in claims.levels() for name in level.advisories)}


def declares_debug(quote: Quote) -> bool:
    """Return True if the report declares its memory readable from outside; counts even before authentication."""
    if quote.kind == "sgx":
        return bool(quote.fields["attributes"][0] & _SGX_DEBUG)
    return bool(quote.fields["td_attributes"][0] & _TD_UNDER_DEBUG)


def refuse_state(quote: Quote) -> None:
    """Raise for debug, profiling, migration, service TDs, and reserved or missing attributes."""
    if declares_debug(quote):
        raise VerificationRefused(Refusal.DEBUG, f"the {quote.kind.upper()} debug flag is on: the host can read memory")
    if quote.kind == "sgx":
        if not quote.fields["attributes"][0] & _SGX_INITIALISED:
            raise VerificationRefused(Refusal.MALFORMED, "the report comes from an enclave that was never initialised")
        return
    _refuse_td_state(quote)


def _refuse_td_state(quote: Quote) -> None:
    attributes = int.from_bytes(quote.fields["td_attributes"], "little")
    if attributes & _TD_RESERVED:
        raise VerificationRefused(Refusal.MALFORMED, f"reserved TD attributes are set: {attributes:#018x}")
    if attributes & (_TD_MIGRATABLE | _TD_SERVICE_TD) or any(quote.fields.get("mr_service_td", b"")):
        raise VerificationRefused(Refusal.MIGRATION_AGENT, "the TD can be migrated, or is bound to a service TD")
    if not attributes & _TD_SEPT_VE_DISABLE:
        raise VerificationRefused(Refusal.PLATFORM, "the host can inject exceptions into the TD (SEPT_VE_DISABLE off)")


def refuse_another_report(quote: Quote, claims: Claims) -> None:
    """Raise if the library and the exact parser read different reports, since one of the two must be wrong."""
    claimed = _flat(claims.report)
    names = [name for name in quote.fields if isinstance(claimed.get(name), str)]
    measured = "mr_enclave" if quote.kind == "sgx" else "mr_td"
    complete = {measured, "report_data"} <= set(names) and claims.tee_type == {"sgx": 0x00, "tdx": 0x81}[quote.kind]
    if not complete or any(claimed[name] != quote.fields[name].hex() for name in names):
        raise VerificationRefused(Refusal.MALFORMED, "dcap-qvl read another report in this quote")


def _flat(report: dict[str, Any]) -> dict[str, Any]:
    """Return field names to values, however deep the library nests them."""
    flat: dict[str, Any] = {}
    for name, value in report.items():
        flat |= _flat(value) if isinstance(value, dict) else {name: value}
    return flat
