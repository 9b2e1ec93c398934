"""What a command concludes about evidence, in a form that a script can rely on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from coreason_enclave.attestation.acceptance_rules import Accepted
from coreason_enclave.attestation.verify.verdict import Authentic, Refusal, VerificationRefused
from coreason_enclave.schemas import AttestationReport

__all__ = ["EvidenceVerdict"]


@dataclass(frozen=True)
class EvidenceVerdict:
    """A verdict on one report, or on a host's GPUs together.

    Attributes:
        verdict: ``authentic`` or ``refused``; of an appraisal ``accepted`` or ``refused``.
        kind: ``sgx``, ``tdx``, ``snp`` or ``nvidia``.
        reason: the stable code of the first check that failed; None where none did.
        message: for a person.
        report_data: what the report covers, hex. measurements, platform_id, claims, not_checked: see
            :class:`~coreason_enclave.attestation.verify.verdict.Authentic`. All empty after a refusal, since then
            nothing of it is established.
        parts: the judgement on each GPU, in the evidence's order, where there are GPUs.
    """

    verdict: str
    kind: str
    reason: Refusal | None = None
    message: str = ""
    report_data: str | None = None
    platform_id: str | None = None
    claims: Mapping[str, object] = field(default_factory=dict)
    measurements: Mapping[str, str] = field(default_factory=dict)
    not_checked: tuple[str, ...] = ()
    parts: tuple[EvidenceVerdict, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing refused."""
        return self.reason is None

    @classmethod
    def of(cls, found: Authentic) -> Self:
        """Authentic."""
        return cls(
            verdict="authentic",
            kind=found.kind,
            message=f"authentic; {_open(found.not_checked)}",
            report_data=found.report_data.hex(),
            platform_id=found.platform_id,
            claims=found.claims,
            measurements=found.measurements,
            not_checked=found.not_checked,
        )

    def accepted(self, by: Accepted) -> Self:
        """The same, after a policy accepted it."""
        about = {} if by.measurement is None else {"reference_value": by.measurement}
        return replace(
            self,
            verdict="accepted",
            message=f"accepted; {_open(by.not_checked)}",
            claims={**self.claims, **about},
            not_checked=by.not_checked,
        )

    @classmethod
    def of_host(cls, result: AttestationReport) -> Self:
        """A whole host's evidence, accepted."""
        claims = result.model_dump(mode="json", exclude={"not_checked", "kind", "version"})
        return cls(
            verdict="accepted",
            kind=result.kind,
            message=f"accepted as {result.measurement}; {_open(result.not_checked)}",
            platform_id=result.platform_ids[0] if result.platform_ids else None,
            claims=claims,
            not_checked=result.not_checked,
        )

    @classmethod
    def refused(cls, kind: str, error: VerificationRefused, parts: Sequence[EvidenceVerdict] = ()) -> Self:
        """Refused, with the code of the check that did."""
        return cls(verdict="refused", kind=kind, reason=error.refusal, message=str(error), parts=tuple(parts))

    @classmethod
    def together(cls, parts: Sequence[EvidenceVerdict]) -> EvidenceVerdict:
        """One verdict on several GPUs: the first refusal decides."""
        for number, part in enumerate(parts):
            if part.reason is not None:
                return replace(part, message=f"GPU {number}: {part.message}", parts=tuple(parts))
        if len(parts) == 1:
            return replace(parts[0], parts=tuple(parts))
        unchecked = tuple(dict.fromkeys(name for part in parts for name in part.not_checked))
        return cls(
            verdict=parts[0].verdict,
            kind=parts[0].kind,
            message=f"all {len(parts)} GPUs are {parts[0].verdict}; {_open(unchecked)}",
            claims={"gpus": len(parts)},
            not_checked=unchecked,
            parts=tuple(parts),
        )

    def document(self) -> dict[str, object]:
        """JSON types; the same fields whatever the verdict."""
        parts = {"gpus": [part.document() for part in self.parts]} if self.parts else {}
        return {
            "verdict": self.verdict,
            "kind": self.kind,
            "reason": None if self.reason is None else self.reason.value,
            "message": self.message,
            "report_data": self.report_data,
            "platform_id": self.platform_id,
            "claims": dict(self.claims),
            "measurements": dict(self.measurements),
            "not_checked": list(self.not_checked),
            **parts,
        }


def _open(unchecked: Sequence[str]) -> str:
    return f"not checked: {', '.join(unchecked)}" if unchecked else "nothing was left unchecked"
