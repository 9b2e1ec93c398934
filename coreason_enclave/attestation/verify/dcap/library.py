"""The only caller of ``dcap-qvl``.

- Only ``QuoteVerifier.verify_with_policy`` serves here: the library's bare ``verify`` also returns for stale platforms.
- The library gives its reasons in prose. The table here turns the prose into stable codes and decides nothing else,
  since every error of the library leads to a refusal.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from coreason_enclave.attestation.verify.dcap.collateral import Collateral
from coreason_enclave.attestation.verify.dcap.quote import Quote
from coreason_enclave.attestation.verify.dcap.tcb_policy import DcapPlatformPolicy
from coreason_enclave.attestation.verify.verdict import Refusal, VerificationRefused
from coreason_enclave.schemas import explained

if TYPE_CHECKING:
    from types import ModuleType

_T = TypeVar("_T")

STATUSES_BY_ADVISORY = ("SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded")
STATUSES_BY_GRACE = (
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "TDRelaunchAdvised",
    "TDRelaunchAdvisedConfigurationNeeded",
)

_REASONS: tuple[tuple[str, Refusal], ...] = (
    ("Signature is invalid", Refusal.SIGNATURE),
    ("QE report hash mismatch", Refusal.SIGNATURE),
    ("ISV enclave report signature", Refusal.SIGNATURE),
    ("TCB status is invalid: Revoked", Refusal.REVOKED),
    ("No matching TCB level", Refusal.TCB_UNKNOWN),
    ("TDX module", Refusal.TCB_UNKNOWN),
    ("Failed to evaluate the current TDX TCB", Refusal.TCB_UNKNOWN),
    ("QE ISVSVN", Refusal.TCB_UNKNOWN),
    ("No TCB levels", Refusal.TCB_UNKNOWN),
    ("Debug mode", Refusal.DEBUG),
    ("TD profiling", Refusal.DEBUG),
    ("TD migration", Refusal.MIGRATION_AGENT),
    ("SERVTD_EXT", Refusal.MIGRATION_AGENT),
    ("Invalid MR service TD", Refusal.MIGRATION_AGENT),
    ("SEPT_VE_DISABLE", Refusal.PLATFORM),
    ("Reserved bits in TD attributes", Refusal.MALFORMED),
    *((f"TCB status {status} ", Refusal.TCB_OUT_OF_DATE) for status in STATUSES_BY_GRACE),
    ("TCB status", Refusal.TCB_UNKNOWN),
    ("Platform TCB too old", Refusal.TCB_OUT_OF_DATE),
    ("QE TCB too old", Refusal.TCB_OUT_OF_DATE),
    ("TCB eval data number", Refusal.TCB_OUT_OF_DATE),
    ("Dynamic platform", Refusal.PLATFORM),
    ("Cached keys", Refusal.PLATFORM),
    ("SMT", Refusal.PLATFORM),
    ("Collateral expired", Refusal.NOT_VALID_NOW),
)
_ADVICE = {
    "Dynamic platform": "; allow_dynamic_platform in the platform policy accepts it",
    "Cached keys": "; allow_cached_keys in the platform policy accepts them",
    "SMT": "; allow_smt in the platform policy accepts it",
    "TCB status OutOfDate": "; only a dated grace (out_of_date_until) in the platform policy accepts it",
}


class _Read(BaseModel):
    """Base of the library's output, parsed without coercion; ignores unused fields."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class Level(_Read):
    """A matched level of Intel's TCB info or QE identity."""

    tcb_date: str = Field(alias="tcbDate")
    status: str = Field(alias="tcbStatus")
    advisories: list[str] = Field(alias="advisoryIDs")


class _Verdict(_Read):
    status: str
    advisory_ids: list[str]
    eval_data_number: int


class _Pck(_Read):
    ppid: list[int]
    fmspc: list[int]
    sgx_type: int
    platform_instance_id: list[int] | None
    dynamic_platform: str
    cached_keys: str
    smt_enabled: str


class _Platform(_Read):
    tcb_level: Level
    current_tcb_level: Level | None
    pck: _Pck


class _Qe(_Read):
    tcb_level: Level


class Claims(_Read):
    """Facts that the library verified."""

    tee_type: int
    tcb: _Verdict
    platform: _Platform
    qe: _Qe
    earliest_expiration_date: int
    report: dict[str, Any]

    def levels(self) -> tuple[Level, ...]:
        """Return every matched level: platform at launch, platform now (TDX 1.5), quoting enclave."""
        current = self.platform.current_tcb_level
        return (self.platform.tcb_level, *([current] if current else []), self.qe.tcb_level)


def platform_of(quote: Quote) -> tuple[str, str]:
    """Return FMSPC and PCE id from the quote's certificate, hex; not yet authenticated."""
    extension = _guarded(lambda: _library().parse_quote(quote.raw).pck_extension())
    if extension is None:
        raise VerificationRefused(Refusal.CHAIN, "the platform's certificate does not identify the platform")
    return extension.fmspc.hex(), extension.pce_id.hex()


def verified_claims(quote: Quote, collateral: Collateral, root: bytes, policy: DcapPlatformPolicy, now: int) -> Claims:
    """Check every signature up to ``root``, revocation, and the platform against ``policy``.

    The library knows no list of accepted advisories. Statuses that depend on the list pass here, and
    :func:`~coreason_enclave.attestation.verify.dcap.platform.refuse_tcb` decides about them.
    """
    claims = _guarded(partial(_verify, _library(), quote, collateral, root, policy, now))
    about = "the installed dcap-qvl returns an unknown result format"
    with explained(lambda why: VerificationRefused(Refusal.LIBRARY_MISSING, f"{about}: {why[:300]}")):
        return Claims.model_validate_json(claims)


def _verify(
    library: ModuleType, quote: Quote, collateral: Collateral, root: bytes, policy: DcapPlatformPolicy, now: int
) -> str:
    document = collateral.document
    endorsements = library.QuoteCollateralV3(
        document.pck_crl_issuer_chain,
        bytes.fromhex(document.root_ca_crl),
        bytes.fromhex(document.pck_crl),
        document.tcb_info_issuer_chain,
        document.tcb_info,
        bytes.fromhex(document.tcb_info_signature),
        document.qe_identity_issuer_chain,
        document.qe_identity,
        bytes.fromhex(document.qe_identity_signature),
    )
    rules = _rules(library, policy, now)
    verified: str = library.QuoteVerifier(root).verify_with_policy(quote.raw, endorsements, now, rules).to_json()
    return verified


def _rules(library: ModuleType, policy: DcapPlatformPolicy, now: int) -> Any:
    rules = library.QuotePolicy.strict(now)
    for status in STATUSES_BY_ADVISORY:
        rules = rules.allow_status(status)
    if policy.tolerates_out_of_date(now):
        for status in STATUSES_BY_GRACE:
            rules = rules.allow_status(status)
        # The library's grace counts from a level's date. The policy's grace ends on a date: allow the longest period.
        rules = rules.platform_grace_period(now).qe_grace_period(now)
    return (
        rules.min_tcb_eval_data_number(policy.min_tcb_evaluation_data_number)
        .allow_dynamic_platform(policy.allow_dynamic_platform)
        .allow_cached_keys(policy.allow_cached_keys)
        .allow_smt(policy.allow_smt)
    )


def _library() -> ModuleType:
    try:
        import dcap_qvl
    except ImportError as error:
        raise VerificationRefused(Refusal.LIBRARY_MISSING, "SGX and TDX quotes need the package dcap-qvl") from error
    library: ModuleType = dcap_qvl
    return library


def _guarded(call: Callable[[], _T]) -> _T:
    try:
        return call()
    except VerificationRefused:
        raise
    except (ValueError, OverflowError, TypeError) as error:
        raise _refusal(str(error)) from error
    except BaseException as error:  # a Rust panic derives from BaseException directly
        if type(error).__name__ != "PanicException":
            raise
        raise VerificationRefused(Refusal.MALFORMED, "dcap-qvl crashed on this quote or collateral") from error


def _refusal(message: str) -> VerificationRefused:
    reason = message.removeprefix("Verification failed: ")
    refusal = next((code for prefix, code in _REASONS if reason.startswith(prefix)), Refusal.CHAIN)
    advice = next((more for prefix, more in _ADVICE.items() if reason.startswith(prefix)), "")
    return VerificationRefused(refusal, f"dcap-qvl: {reason[:300]}{advice}")
