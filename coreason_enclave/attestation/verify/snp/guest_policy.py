"""Platform policy for SEV-SNP: the part of a relying party's policy that needs no reference values."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Self

from pydantic import Field, Strict, model_validator

from coreason_enclave.attestation.verify.snp.products import LINES, SnpProduct, SnpTcb
from coreason_enclave.attestation.verify.snp.report import (
    GUEST_POLICY_BITS,
    PLATFORM_BITS,
    SigningKey,
    SnpReport,
    bits_set,
)
from coreason_enclave.attestation.verify.verdict import Refusal, VerificationRefused
from coreason_enclave.schemas import StrictModel

_Level = Annotated[int, Strict(), Field(ge=0, le=255)]
_Vmpl = Annotated[int, Strict(), Field(ge=0, le=3)]


class SnpTcbFloor(StrictModel):
    """Minimum security patch levels of a product line; only Turin has ``fmc``, and requires it.

    One microcode level can mean different things on different steppings, so set the floor for the machines at hand.
    """

    boot_loader: _Level
    tee: _Level
    snp: _Level
    microcode: _Level
    fmc: _Level | None = None

    def is_met_by(self, tcb: SnpTcb) -> bool:
        """Return True if every component reaches its floor; a high level never makes up for a low one."""
        levels = asdict(tcb)
        return all((levels[name] or 0) >= (least or 0) for name, least in self.model_dump().items())


class SnpPlatformPolicy(StrictModel):
    """Required state of a SEV-SNP platform. Every policy refuses a debuggable or migratable guest.

    Attributes:
        tcb_floor: Minimum levels by product, for both the reported and the committed TCB. Without a floor for its
            product, a report can be authentic, and the verdict lists the floor as not checked.
        vmpls: Accepted privilege levels (VMPL) of reports.
        signing_keys: ``VCEK``, ``VLEK`` or both.
        required_platform: Names of PLATFORM_INFO bits that must be set (for example ``alias_check_complete``).
        forbidden_platform: Names of PLATFORM_INFO bits that must not be set (for example ``smt_enabled``).
    """

    tcb_floor: dict[SnpProduct, SnpTcbFloor] = Field(default_factory=dict)
    vmpls: tuple[_Vmpl, ...] = (0,)
    signing_keys: tuple[SigningKey, ...] = (SigningKey.VCEK, SigningKey.VLEK)
    required_platform: tuple[str, ...] = ()
    forbidden_platform: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        unknown = {*self.required_platform, *self.forbidden_platform} - PLATFORM_BITS.keys()
        if unknown:
            raise ValueError(f"unknown platform bits: {sorted(unknown)}")
        for product, floor in self.tcb_floor.items():
            if (floor.fmc is not None) != ("fmc" in LINES[product].tcb_layout):
                raise ValueError(f"a floor for {product} {'must not' if floor.fmc is not None else 'must'} name fmc")
        return self


def check_tcb(policy: SnpPlatformPolicy, product: SnpProduct, tcbs: dict[str, SnpTcb]) -> None:
    """Refuse a reported or committed TCB below the product's floor."""
    floor = policy.tcb_floor.get(product)
    for name in ("reported", "committed"):
        if floor is not None and not floor.is_met_by(tcbs[name]):
            raise VerificationRefused(
                Refusal.TCB_OUT_OF_DATE, f"the {name} TCB {tcbs[name].as_claim()} is below tcb_floor for {product}"
            )


def check_guest(policy: SnpPlatformPolicy, report: SnpReport) -> None:
    """Refuse debugging, migration, and any privilege level, signing key or platform state outside the policy."""
    guest = bits_set(report.policy, GUEST_POLICY_BITS)
    if guest["debug_allowed"]:
        raise VerificationRefused(Refusal.DEBUG, "the guest policy lets the host debug this guest and read its memory")
    if guest["migration_agent_allowed"] or report.has_migration_agent:
        raise VerificationRefused(Refusal.MIGRATION_AGENT, "the guest policy lets a migration agent move this guest")
    if report.vmpl not in policy.vmpls:
        raise VerificationRefused(Refusal.VMPL, f"the report comes from VMPL {report.vmpl}, not one of {policy.vmpls}")
    if report.signing_key not in policy.signing_keys:
        raise VerificationRefused(Refusal.PLATFORM, f"the policy accepts no report signed by a {report.signing_key}")
    platform = bits_set(report.platform_info, PLATFORM_BITS)
    wrong = [name for name in policy.required_platform if not platform[name]]
    wrong += [name for name in policy.forbidden_platform if platform[name]]
    if wrong:
        raise VerificationRefused(Refusal.PLATFORM, f"the platform's state differs from the policy: {wrong}")
