"""Turn a quote and its endorsements into a verdict: the order of the checks."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from functools import partial

from cryptography import x509

from coreason_enclave.attestation.verify.dcap.collateral import (
    Collateral,
    DcapEndorsements,
    read_chain,
    read_collateral,
)
from coreason_enclave.attestation.verify.dcap.intel_root import INTEL_SGX_ROOT
from coreason_enclave.attestation.verify.dcap.library import Claims, platform_of, verified_claims
from coreason_enclave.attestation.verify.dcap.platform import (
    advisories,
    declares_debug,
    refuse_another_report,
    refuse_state,
    refuse_tcb,
)
from coreason_enclave.attestation.verify.dcap.quote import FIELD_BYTES, Quote, parse_quote
from coreason_enclave.attestation.verify.dcap.tcb_policy import DcapPlatformPolicy
from coreason_enclave.attestation.verify.verdict import Authentic, Refusal, VerificationRefused

_NUMBERS = frozenset({"isv_prod_id", "isv_svn", "config_svn", "misc_select"})
_NOT_MEASURED = frozenset({"report_data", "cpu_svn", "tee_tcb_svn", "tee_tcb_svn2"})

MEASURED_BYTES: Mapping[str, Mapping[str, int]] = {
    kind: {name: size for name, size in fields.items() if name not in _NOT_MEASURED}
    for kind, fields in FIELD_BYTES.items()
}
"""Names in the result of :func:`measurements_of`, and the size of each value in bytes, by kind."""


class DcapVerifier:
    """A verifier of quotes under one root certificate. The product uses Intel's root only.

    Args:
        root: The root certificate, DER.
    """

    def __init__(self, root: bytes) -> None:
        self._root = root

    def verify(
        self,
        kind: str,
        evidence: bytes,
        endorsements: DcapEndorsements,
        policy: DcapPlatformPolicy,
        now: int,
        *,
        report_data: bytes | None = None,
    ) -> Authentic:
        """Verify a quote under the root, and its platform under ``policy``.

        Args:
            kind: ``sgx`` (quotes of version 3) or ``tdx`` (version 4 or 5, TDX 1.0 or 1.5).
            evidence: The quote; only zeros may follow.
            endorsements: Intel's collateral for the quote's platform, revocation lists included.
            policy: Accepted state of the platform.
            now: Unix seconds; certificates, lists and TCB info must all be valid at this time.
            report_data: The 64 bytes that the report must cover. None skips the comparison and adds ``report_data`` to
                ``not_checked``.

        Raises:
            VerificationRefused: Carries the code of the first failed check.
        """
        quote = parse_quote(evidence)
        if quote.kind != kind:
            raise VerificationRefused(Refusal.WRONG_KIND, f"a quote of kind {quote.kind} instead of {kind}")
        if report_data is not None and not hmac.compare_digest(quote.report_data, report_data):
            raise VerificationRefused(Refusal.REPORT_DATA, "the quote's report data is not the requested report data")
        chain = read_chain(quote.pck_chain, self._root, length=3, what="the quote's own chain")
        collateral = self._collateral_of(quote, chain, endorsements)
        collateral.refuse_outside_validity(chain, now)
        collateral.refuse_unissued()
        collateral.refuse_revoked(chain)
        claims = verified_claims(quote, collateral, self._root, policy, now)
        refuse_another_report(quote, claims)
        refuse_tcb(claims, policy, now)
        refuse_state(quote)
        return _authentic(quote, claims, echoed=report_data is not None)

    def _collateral_of(
        self, quote: Quote, chain: tuple[x509.Certificate, ...], endorsements: DcapEndorsements
    ) -> Collateral:
        """Return the collateral, which must match the quote's platform.

        Without matching collateral, verification ends here. A quote that declares debug is refused for debug instead:
        no collateral fetched later could change that reason.
        """
        try:
            return self._matching(quote, chain, endorsements)
        except VerificationRefused:
            if declares_debug(quote):
                refuse_state(quote)
            raise

    def _matching(
        self, quote: Quote, chain: tuple[x509.Certificate, ...], endorsements: DcapEndorsements
    ) -> Collateral:
        if endorsements.collateral is None:
            raise VerificationRefused(Refusal.ENDORSEMENTS_MISSING, "a quote cannot be verified without its collateral")
        collateral = read_collateral(endorsements.collateral, self._root)
        collateral.refuse_another_platform(quote.kind, chain[0], *platform_of(quote))
        own = collateral.document.pck_certificate_chain
        if own is not None and own.encode().rstrip(b"\0\n") != quote.pck_chain.rstrip(b"\n"):
            raise VerificationRefused(Refusal.ENDORSEMENTS_MISMATCH, "certificates of collateral and quote differ")
        return collateral


_INTEL = DcapVerifier(INTEL_SGX_ROOT)
verify_sgx = partial(_INTEL.verify, "sgx")
"""Verify an SGX quote under Intel's root: see :meth:`DcapVerifier.verify`."""
verify_tdx = partial(_INTEL.verify, "tdx")
"""Verify a TDX quote under Intel's root: see :meth:`DcapVerifier.verify`."""


def _authentic(quote: Quote, claims: Claims, *, echoed: bool) -> Authentic:
    return Authentic(
        kind=quote.kind,
        report_data=quote.report_data,
        measurements=measurements_of(quote),
        platform_id=bytes(claims.platform.pck.ppid).hex(),
        claims=_claims_of(quote, claims),
        not_checked=("measurements",) if echoed else ("report_data", "measurements"),
    )


def measurements_of(quote: Quote) -> Mapping[str, str]:
    """Return identity of the code and its settings, hex; integers are big-endian, as people write them."""
    return {
        name: (value[::-1] if name in _NUMBERS else value).hex()
        for name, value in quote.fields.items()
        if name not in _NOT_MEASURED
    }


def _claims_of(quote: Quote, claims: Claims) -> dict[str, object]:
    pck = claims.platform.pck
    instance = pck.platform_instance_id
    return {
        "quote_version": quote.version,
        "tcb_status": claims.tcb.status,
        "tcb_date": claims.platform.tcb_level.tcb_date,
        "tcb_evaluation_data_number": claims.tcb.eval_data_number,
        "advisories": sorted(advisories(claims)),
        "qe_tcb_status": claims.qe.tcb_level.status,
        "fmspc": bytes(pck.fmspc).hex(),
        "sgx_type": pck.sgx_type,
        "platform_instance_id": None if instance is None else bytes(instance).hex(),
        "dynamic_platform": pck.dynamic_platform,
        "cached_keys": pck.cached_keys,
        "smt_enabled": pck.smt_enabled,
        "collateral_expires_at": claims.earliest_expiration_date,
    }
