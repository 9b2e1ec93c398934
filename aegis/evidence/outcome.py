"""The verdict of a command on evidence, in a stable form for scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from coreason_enclave.attestation import Accepted
from coreason_enclave.attestation.verify import Authentic, Refusal, VerificationRefused
from coreason_enclave.schemas import AttestationReport


@dataclass(frozen=True)
class EvidenceVerdict:
    """A verdict on one report, or on a host's GPUs together.

    Attributes:
        verdict: ``authentic`` or ``refused``; for an appraisal ``accepted`` or ``refused``.
        kind: ``sgx``, ``tdx``, ``snp`` or ``nvidia``.
        reason: the stable code of the first failed check; None without a failure.
        message: text for a person.
        report_data: the data covered by the report, hex.
        measurements, platform_id, claims, not_checked: see
            :class:`~coreason_enclave.attestation.verify.verdict.Authentic`.
        parts: the verdict on each GPU, in the evidence's order, if the evidence has GPUs.

    After a refusal, ``report_data`` and the fields of ``Authentic`` stay empty: a refused report proves none of them.
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
        """True unless a check refused."""
        return self.reason is None

    @classmethod
    def of(cls, authentic: Authentic) -> Self:
        """Return the verdict ``authentic``."""
        return cls(
            verdict="authentic",
            kind=authentic.kind,
            message=f"authentic; {_open(authentic.not_checked)}",
            report_data=authentic.report_data.hex(),
            platform_id=authentic.platform_id,
            claims=authentic.claims,
            measurements=authentic.measurements,
            not_checked=authentic.not_checked,
        )

    def accepted(self, by: Accepted) -> Self:
        """Return the same verdict after a policy accepted the report."""
        reference = {} if by.measurement is None else {"reference_value": by.measurement}
        return replace(
            self,
            verdict="accepted",
            message=f"accepted; {_open(by.not_checked)}",
            claims={**self.claims, **reference},
            not_checked=by.not_checked,
        )

    @classmethod
    def of_host(cls, result: AttestationReport) -> Self:
        """Return the verdict ``accepted`` for a whole host's evidence."""
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
        """Return the verdict ``refused``, with the code of the failed check."""
        return cls(verdict="refused", kind=kind, reason=error.refusal, message=str(error), parts=tuple(parts))

    @classmethod
    def together(cls, parts: Sequence[EvidenceVerdict]) -> EvidenceVerdict:
        """Return one verdict on several GPUs: the first refusal decides."""
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
        """Return JSON types, with the same fields for every verdict."""
        fields = {name: value for name, value in vars(self).items() if name != "parts"}
        parts = {"gpus": [part.document() for part in self.parts]} if self.parts else {}
        return {**fields, "not_checked": list(self.not_checked), **parts}


def _open(unchecked: Sequence[str]) -> str:
    return f"not checked: {', '.join(unchecked)}" if unchecked else "every item was checked"
