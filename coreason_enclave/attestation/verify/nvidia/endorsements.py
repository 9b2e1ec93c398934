"""Endorsements of a GPU's report, as plain bytes: certificates, manifests, a revocation result."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import ValidationError

from coreason_enclave.attestation.verify.nvidia.revocation import NvidiaRevocation
from coreason_enclave.attestation.verify.verdict import Refusal, VerificationRefused
from coreason_enclave.crypto import parse_json
from coreason_enclave.errors import EnvelopeError
from coreason_enclave.system import explain


@dataclass(frozen=True)
class NvidiaEndorsements:
    """Unverified endorsements; the verifier checks each.

    Attributes:
        chain: The GPU's certificates (PEM, leaf first); required with a bare report.
        manifests: Signed reference integrity manifests (XML) of the driver and of the VBIOS.
        revocation: Answers of the vendor's OCSP responder.
    """

    chain: bytes | None = None
    manifests: tuple[bytes, ...] = ()
    revocation: NvidiaRevocation | None = None

    @classmethod
    def from_files(cls, files: Iterable[bytes]) -> NvidiaEndorsements:
        """Sort the contents of files by format: PEM, XML, a JSON revocation result, OCSP answers in DER.

        Raises:
            VerificationRefused: ``malformed``: a file has another format, or the files hold two revocation results.
        """
        pem: list[bytes] = []
        manifests: list[bytes] = []
        results: list[NvidiaRevocation] = []
        answers: list[bytes] = []
        for content in files:
            start = content.lstrip()[:11]
            if start.startswith(b"-----BEGIN "):
                pem.append(content)
            elif start.startswith(b"<"):
                manifests.append(content)
            elif start.startswith(b"{"):
                results.append(parse_revocation(content))
            elif start.startswith(b"\x30"):
                answers.append(content)
            else:
                raise VerificationRefused(Refusal.MALFORMED, "an endorsement is neither PEM, XML, JSON nor DER")
        if answers:
            results.append(NvidiaRevocation.of_responses(*answers))
        if len(results) > 1:
            raise VerificationRefused(Refusal.MALFORMED, "more than one revocation result")
        return cls(b"\n".join(pem) or None, tuple(manifests), results[0] if results else None)


def parse_revocation(content: bytes) -> NvidiaRevocation:
    """Parse a revocation result from JSON; raises :class:`VerificationRefused`."""
    try:
        return NvidiaRevocation.model_validate(parse_json(content))
    except (EnvelopeError, ValidationError) as error:
        raise VerificationRefused(Refusal.MALFORMED, f"not a revocation result: {explain(error)}") from error
