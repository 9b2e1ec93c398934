"""Reference values: the measured code that a relying party accepts, by name.

A processor measures the code before it runs. The value for your own image comes from one of two sources:

- a computation from the image itself, done once;
- a host that you built and trust (``aegis evidence inspect --reference``).
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Annotated, Self

from pydantic import AfterValidator, model_validator

from coreason_enclave.attestation.evidence import CpuKind
from coreason_enclave.attestation.verify.dcap import MEASURED_BYTES as OF_QUOTES
from coreason_enclave.attestation.verify.snp import MEASURED_BYTES as OF_REPORTS
from coreason_enclave.schemas import SafeId, StrictModel, of_form
from coreason_enclave.system import end_of

IDENTIFYING: Mapping[CpuKind, frozenset[str]] = {
    CpuKind.SGX: frozenset({"mr_enclave"}),
    CpuKind.TDX: frozenset({"mr_td", "rt_mr1", "rt_mr2"}),
    CpuKind.SNP: frozenset({"measurement"}),
}
"""Measurements that identify code, by kind. Names match the output of ``aegis evidence verify``.

A TD's ``mr_td`` covers the firmware alone; ``rt_mr1`` and ``rt_mr2`` cover kernel, initial file system and command
line.
"""

MEASURED_BYTES: Mapping[str, Mapping[str, int]] = {**OF_QUOTES, CpuKind.SNP.value: OF_REPORTS}
"""Names of the measurements and their sizes in bytes, by kind."""

Measured = Annotated[str, AfterValidator(of_form(re.compile(r"(?:[0-9a-f]{2}){1,64}"), "1 to 64 lower-case hex bytes"))]


class ReferenceValue(StrictModel):
    """Accepted code. Evidence matches if every measurement named here has the stated value.

    Validation refuses a value that identifies no code:

    - a name unknown for the kind;
    - a wrong length;
    - zeros in an identifying measurement (:data:`IDENTIFYING`).

    Attributes:
        name: Name of the code in results, logs and reports.
        not_after: Last day (UTC) of acceptance; None: until someone removes the line.
    """

    name: SafeId
    kind: CpuKind
    measurements: dict[SafeId, Measured]
    not_after: date | None = None

    @model_validator(mode="after")
    def _measurements_identify_code(self) -> Self:
        if self.kind not in IDENTIFYING:
            raise ValueError(f"evidence of kind {self.kind} measures nothing: it has no reference values")
        if missing := sorted(IDENTIFYING[self.kind] - self.measurements.keys()):
            raise ValueError(f"measurements must name {', '.join(missing)}: otherwise the value identifies no code")
        for name, value in self.measurements.items():
            self._require_meaning(name, value)
        return self

    def _require_meaning(self, name: str, value: str) -> None:
        """Refuse a typing error: a value that no evidence can have, or zeros where the value should identify code."""
        known = MEASURED_BYTES[self.kind]
        if name not in known:
            raise ValueError(f"measurements: {self.kind} has no {name}, only {', '.join(sorted(known))}")
        if len(value) != 2 * known[name]:
            raise ValueError(f"measurements: {name} must have {known[name]} bytes, got {len(value) // 2}")
        if name in IDENTIFYING[self.kind] and not value.strip("0"):
            raise ValueError(f"measurements: {name} is all zeros, which means that no code was measured")

    def matches(self, kind: str, measurements: Mapping[str, str], now: int) -> bool:
        """Return True if the measurements match this code, and the code is still accepted at ``now`` (Unix seconds)."""
        return (
            kind == self.kind
            and (self.not_after is None or now < end_of(self.not_after))
            and all(hmac.compare_digest(measurements.get(name, ""), value) for name, value in self.measurements.items())
        )


def matching(values: Sequence[ReferenceValue], kind: str, measurements: Mapping[str, str], now: int) -> str | None:
    """Return the name of the first value that matches the measurements, or None."""
    return next((value.name for value in values if value.matches(kind, measurements, now)), None)
