"""Interface of endorsement sources, and the assembly of single items into a verifier's input."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Protocol

from coreason_enclave.attestation.endorsements.collateral import Item, SnpAuthorities, SnpRevocationList
from coreason_enclave.attestation.endorsements.requirements import (
    answers_of,
    certificates_of,
    collateral_of,
    key_certificates_of,
    manifests_of,
)
from coreason_enclave.attestation.evidence import CpuReport, GpuReport
from coreason_enclave.attestation.verify import Refusal, VerificationRefused
from coreason_enclave.attestation.verify.dcap import DcapEndorsements
from coreason_enclave.attestation.verify.nvidia import NvidiaEndorsements, NvidiaRevocation
from coreason_enclave.attestation.verify.snp import SnpEndorsements
from coreason_enclave.attestation.verify.snp import parse_report as parse_snp_report
from coreason_enclave.errors import Reason


class EndorsementSource(Protocol):
    """A source of endorsements. ``now`` means Unix seconds: a source may prefer items valid at that time.

    For a missing item, every method raises :class:`~coreason_enclave.attestation.verify.verdict.VerificationRefused`
    (``endorsements_missing``) with advice. If a vendor's service did not answer, the reason is
    ``attestation_unavailable``.
    """

    def dcap(self, report: CpuReport, now: int) -> DcapEndorsements:
        """Return Intel's collateral for the platform that made an SGX or TDX quote."""
        ...

    def snp(self, report: CpuReport, now: int) -> SnpEndorsements:
        """Return AMD's certificates for the chip that made a SEV-SNP report, and revocation lists."""
        ...

    def nvidia(self, gpus: Sequence[GpuReport], now: int) -> tuple[NvidiaEndorsements, ...]:
        """Return, for each GPU in order, signed manifests of its versions and the vendor's revocation answers."""
        ...


class ItemwiseSource(ABC):
    """An :class:`EndorsementSource` of single items, each found by its name (see :mod:`.collateral`).

    Revocation lists and answers may be missing; the verifier then lists revocation as unchecked. A service that should
    have them but did not answer still causes a failure: blocked access proves no absence of a revocation.

    Attributes:
        called: Name of the source, for messages.
    """

    called = "a source of endorsements"

    @abstractmethod
    def get(self, item: Item, now: int) -> bytes:
        """Return the item's content as the vendor made it; raises like :class:`EndorsementSource`."""

    def dcap(self, report: CpuReport, now: int) -> DcapEndorsements:
        """See :class:`EndorsementSource`."""
        return DcapEndorsements(self.get(collateral_of(report.report_bytes()), now))

    def snp(self, report: CpuReport, now: int) -> SnpEndorsements:
        """See :class:`EndorsementSource`. Fetches only items missing from the host's certificate table.

        Revocation lists never come from the host, which could show an old list.
        """
        parsed = parse_snp_report(report.report_bytes())
        own = certificates_of(report)
        failures: list[VerificationRefused] = []
        for requirement in key_certificates_of(parsed):
            try:
                leaf = own.leaf(requirement, now)
                certificates = (leaf, *own.authorities) if leaf else (self.get(requirement, now),)
            except VerificationRefused as error:
                if error.refusal is not Refusal.ENDORSEMENTS_MISSING:
                    raise
                failures.append(error)  # expected: a service does not know a chip of another line
                continue
            if len(certificates) == 1:
                chain = self.get(SnpAuthorities(requirement.product, parsed.signing_key), now)
                certificates += SnpEndorsements.from_files([chain]).certificates
            crl = self._if_any(SnpRevocationList(requirement.product, parsed.signing_key), now)
            return SnpEndorsements(certificates, SnpEndorsements.from_files(crl).revocation_lists)
        raise next((one for one in failures if one.reason is Reason.ATTESTATION_UNAVAILABLE), failures[0])

    def nvidia(self, gpus: Sequence[GpuReport], now: int) -> tuple[NvidiaEndorsements, ...]:
        """See :class:`EndorsementSource`."""
        return tuple(self._gpu(gpu, now) for gpu in gpus)

    def _gpu(self, gpu: GpuReport, now: int) -> NvidiaEndorsements:
        manifests = tuple(self.get(requirement, now) for requirement in manifests_of(gpu))
        answers = [answer for requirement in answers_of(gpu, manifests) for answer in self._if_any(requirement, now)]
        return NvidiaEndorsements(
            manifests=manifests, revocation=NvidiaRevocation.of_responses(*answers) if answers else None
        )

    def _if_any(self, item: Item, now: int) -> Iterator[bytes]:
        try:
            yield self.get(item, now)
        except VerificationRefused as error:
            if error.refusal is not Refusal.ENDORSEMENTS_MISSING or error.reason is Reason.ATTESTATION_UNAVAILABLE:
                raise


class FirstOf(ItemwiseSource):
    """A sequence of sources. Returns the first readable item that is valid now.

    Returns an expired item only if no source has a valid one; the verifier then reports the problem.
    """

    def __init__(self, sources: Sequence[ItemwiseSource]) -> None:
        self._sources = tuple(sources)

    def get(self, item: Item, now: int) -> bytes:
        """See :meth:`ItemwiseSource.get`."""
        name, outdated = item.name, list[bytes]()
        failures: list[VerificationRefused] = []
        for source in self._sources:
            try:
                content = source.get(item, now)
                if item.is_current(content, now):
                    return content
                outdated.append(content)
            except VerificationRefused as error:
                failures.append(
                    error if error.refusal is Refusal.ENDORSEMENTS_MISSING else _as_unusable(name, source, error)
                )
        if outdated:
            return outdated[0]
        raise _all_of(failures) if failures else missing(f"no source of endorsements is configured for {item.name}")


class NoEndorsements(ItemwiseSource):
    """An empty source. Its error says how to configure a source.

    A SEV-SNP report may still bring the certificates of its own chip.
    """

    def get(self, item: Item, now: int) -> bytes:
        """Always raise."""
        raise missing(f"{item.name} has no source: set bundle (a folder) or fetch = true in the table of endorsements")


def missing(message: str, *, unavailable: bool = False) -> VerificationRefused:
    """Return the error for missing endorsements. ``unavailable``: a service did not answer."""
    reason = Reason.ATTESTATION_UNAVAILABLE if unavailable else None
    return VerificationRefused(Refusal.ENDORSEMENTS_MISSING, message, reason=reason)


def _as_unusable(name: str, source: ItemwiseSource, error: VerificationRefused) -> VerificationRefused:
    """Return the error about an unusable item, with the names of the item and its source."""
    message = f"{name} of {source.called} cannot be used: {error}"
    return VerificationRefused(error.refusal, message, reason=Reason.ATTESTATION_UNAVAILABLE)


def _all_of(failures: Sequence[VerificationRefused]) -> VerificationRefused:
    """Combine the errors of all sources.

    - Code: of the first unusable item; otherwise ``endorsements_missing``.
    - Reason: ``attestation_unavailable`` after an unusable item or a service without answer, since no site is at fault.
    """
    message = "; ".join(str(failure) for failure in failures)
    unusable = [one for one in failures if one.refusal is not Refusal.ENDORSEMENTS_MISSING]
    if unusable:
        return VerificationRefused(unusable[0].refusal, message, reason=unusable[0].reason)
    return missing(message, unavailable=any(one.reason is Reason.ATTESTATION_UNAVAILABLE for one in failures))
