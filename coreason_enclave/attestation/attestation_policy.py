"""A relying party's policy for evidence, as written in TOML. Accepts only what a line lists.

::

    [attestation]
    kinds = ["tdx"]
    gpus = 1
    accept_unchecked = []

    [attestation.dcap]
    accepted_advisories = []

    [[attestation.reference_values]]
    name = "site-agent-0.4.0"
    kind = "tdx"
    measurements = { mr_td = "…", rt_mr1 = "…", rt_mr2 = "…" }

    [attestation.platforms]
    hospital-a = ["<the processor's id, hex>", "<a GPU's id>"]
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from coreason_enclave.attestation.evidence import MAX_GPUS, CpuKind
from coreason_enclave.attestation.reference_values import ReferenceValue
from coreason_enclave.attestation.verify.dcap import DcapPlatformPolicy
from coreason_enclave.attestation.verify.nvidia import NvidiaPlatformPolicy
from coreason_enclave.attestation.verify.snp import SnpPlatformPolicy
from coreason_enclave.schemas import SafeId, StrictModel, in_range, of_form

LIFETIME_S = 600
"""Maximum lifetime of an appraisal, in seconds."""


class Unchecked(StrEnum):
    """Checks that a policy may waive: revocation, which needs the vendor's answer of the day.

    No policy can waive another open check.
    """

    SNP_REVOCATION = "snp.revocation"
    NVIDIA_REVOCATION = "nvidia.revocation"
    NVIDIA_DRIVER_MANIFEST_REVOCATION = "nvidia.driver_manifest_revocation"
    NVIDIA_VBIOS_MANIFEST_REVOCATION = "nvidia.vbios_manifest_revocation"


_PLATFORM = re.compile(r"[0-9A-Za-z:._-]{8,256}")


def _require_platform_id(machine: str) -> str:
    if not machine.strip("0:._-"):
        raise ValueError("must not be all zeros, the id of every host that masks its id")
    return machine


PlatformId = Annotated[
    str,
    AfterValidator(of_form(_PLATFORM, "8 to 256 letters, digits, ':', '.', '_' or '-'")),
    AfterValidator(_require_platform_id),
]
"""A chip id, PPID or device identity in the form that ``aegis evidence verify`` prints."""


_ATTESTER = re.compile(r"simulated|unattested|(?:sgx|tdx|snp)(?:\+nvidia)?")
AttesterName = Annotated[
    str, AfterValidator(of_form(_ATTESTER, "simulated, unattested, or sgx, tdx, snp, perhaps with +nvidia"))
]
"""Name of a host's attester: a kind of processor, optionally with the host's GPUs."""


class AttestationPolicy(StrictModel):
    """The evidence that a relying party accepts. Empty lists accept nothing.

    Attributes:
        kinds: Accepted kinds of processor report. Only the profile ``development`` accepts ``simulated``, and only the
            profile ``unattested`` accepts ``unattested``.
        gpus: Minimum number of attested GPUs next to the processor; a host may show more.
        lifetime_s: Lifetime of an appraisal in seconds; renewal happens at 0.8 of the lifetime.
        accept_unchecked: Names of checks that may stay open (:class:`Unchecked`).
        dcap, snp, nvidia: Required platform state of each kind.
        reference_values: Accepted measured code.
        platforms: Enrolled machines by subject: ids of the processor and of each GPU. Validation refuses one machine
            under two subjects, because either subject could answer for the other.
        unsafe_shared_platforms: Machines that may nevertheless stand under several subjects.
    """

    kinds: tuple[CpuKind, ...]
    gpus: Annotated[int, *in_range(0, MAX_GPUS)] = 0
    lifetime_s: Annotated[int, *in_range(30, LIFETIME_S)] = LIFETIME_S
    accept_unchecked: tuple[Unchecked, ...] = ()
    dcap: DcapPlatformPolicy = Field(default_factory=DcapPlatformPolicy)
    snp: SnpPlatformPolicy = Field(default_factory=SnpPlatformPolicy)
    nvidia: NvidiaPlatformPolicy = Field(default_factory=NvidiaPlatformPolicy)
    reference_values: tuple[ReferenceValue, ...] = ()
    platforms: dict[SafeId, tuple[PlatformId, ...]] = Field(default_factory=dict)
    unsafe_shared_platforms: tuple[PlatformId, ...] = ()

    @model_validator(mode="after")
    def _one_meaning_each(self) -> Self:
        names = [value.name for value in self.reference_values]
        if len(set(names)) != len(names):
            raise ValueError("reference_values: two values have the same name")
        return self

    @model_validator(mode="after")
    def _one_subject_each(self) -> Self:
        owner: dict[str, str] = {}
        for subject, machines in self.platforms.items():
            for machine in machines:
                other = owner.setdefault(machine, subject)
                if other != subject and machine not in self.unsafe_shared_platforms:
                    raise ValueError(
                        f"platforms: {machine} is listed for {other} and for {subject}, so that either could attest "
                        "for the other: name the machine in unsafe_shared_platforms if that is intended"
                    )
        return self

    @classmethod
    def simulated_only(cls) -> Self:
        """Return the policy of a development federation, which accepts simulated evidence only."""
        return cls(kinds=(CpuKind.SIMULATED,))

    @classmethod
    def unattested_only(cls) -> Self:
        """Return the policy under profile ``unattested``, which accepts no evidence of any hardware."""
        return cls(kinds=(CpuKind.UNATTESTED,))
