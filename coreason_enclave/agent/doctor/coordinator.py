"""Checks this site's attestation policy for coordinators: whether any evidence could ever meet the policy."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from datetime import date

from coreason_enclave.agent.doctor.findings import Diagnosis, DiagnosisLevel, Examined
from coreason_enclave.attestation import IDENTIFYING, AttestationPolicy, CpuKind
from coreason_enclave.attestation.endorsements import EndorsementSettings, opened
from coreason_enclave.schemas import Profile
from coreason_enclave.system import DAY_S, as_datetime, end_of
from coreason_enclave.wire import COORDINATOR

_DAYS_WARN = 21
_DCAP = (CpuKind.SGX, CpuKind.TDX)
_WHERE = "[policy.coordinator_attestation] of site.toml"


def evidence_of_coordinators(site: Examined) -> Iterator[Diagnosis]:
    """Check that evidence can meet the policy, that verifiers are installed, and that endorsements have a source."""
    if site.config.profile is Profile.UNATTESTED:
        yield _unattested(site)
        return
    required = site.config.policy.coordinator_attestation
    if required is None:
        yield _without_policy(site)
        return
    if problems := [*_unmet(required, site), *_expired(required, _today(site))]:
        yield Diagnosis("coordinator evidence", DiagnosisLevel.FAIL, "; ".join(problems), f"complete {_WHERE}")
    else:
        yield _met_today(required, _today(site))
    yield _endorsements(required, site)


def _without_policy(site: Examined) -> Diagnosis:
    if site.config.profile is Profile.DEVELOPMENT:
        return Diagnosis("coordinator evidence", DiagnosisLevel.OK, "no evidence is required under profile development")
    found = "UNSAFE: no evidence is required: anyone who operates the coordinator's host can read every update"
    return Diagnosis("coordinator evidence", DiagnosisLevel.WARN, found, f"write {_WHERE}")


def _unattested(site: Examined) -> Diagnosis:
    name, accepted = "coordinator evidence", site.config.policy.unattested_coordinators
    if not accepted:
        found = "unattested_coordinators is empty: every coordinator is refused"
        return Diagnosis(name, DiagnosisLevel.FAIL, found, "list each accepted coordinator's key in [policy]")
    found = (
        f"NOT ATTESTED: {', '.join(f'{key[:16]}…' for key in accepted)} accepted by name; anyone who operates the "
        "coordinator's host can read every update"
    )
    return Diagnosis(
        name, DiagnosisLevel.WARN, found, "accept only coordinators whose operators you trust with updates"
    )


def _unmet(required: AttestationPolicy, site: Examined) -> Iterator[str]:
    """Yield required entries that are missing; an empty entry accepts no evidence."""
    if not _acceptable(required, site):
        yield "kinds names nothing that this profile accepts"
    if not _hardware(required):
        return
    if not required.platforms.get(COORDINATOR):
        yield f"platforms lists no machine of {COORDINATOR!r}"
    if CpuKind.SNP in required.kinds and not required.snp.tcb_floor:
        yield "snp.tcb_floor names no product, so that the TCB floor is unchecked"


def _acceptable(required: AttestationPolicy, site: Examined) -> list[CpuKind]:
    development = site.config.profile is Profile.DEVELOPMENT
    return [kind for kind in required.kinds if kind is not CpuKind.SIMULATED or development]


def _hardware(required: AttestationPolicy) -> list[CpuKind]:
    return [kind for kind in required.kinds if kind in IDENTIFYING]


def _expired(required: AttestationPolicy, today: date) -> Iterator[str]:
    for kind in _hardware(required):
        days = [value.not_after for value in required.reference_values if value.kind is kind]
        if not days:
            yield f"no reference value of kind {kind}"
        elif all(day is not None and day < today for day in days):
            yield f"every reference value of kind {kind} has expired"


def _met_today(required: AttestationPolicy, today: date) -> Diagnosis:
    """Report a policy that evidence can meet today; warn if some kind has no valid reference value in three weeks."""
    state = f"accepts {', '.join(required.kinds)}"
    if soon := [*_expired(required, as_datetime(end_of(today) + (_DAYS_WARN - 1) * DAY_S).date())]:
        found = f"{state}; in {_DAYS_WARN} days {'; '.join(soon)}"
        return Diagnosis("coordinator evidence", DiagnosisLevel.WARN, found, "renew the values: see docs/OPERATIONS.md")
    return Diagnosis("coordinator evidence", DiagnosisLevel.OK, state)


def _endorsements(required: AttestationPolicy, site: Examined) -> Diagnosis:
    """Check settings, folder and libraries, without contacting a vendor."""
    name, settings = "coordinator endorsements", site.config.endorsements
    if missing := _libraries(required):
        found = f"{', '.join(missing)} is not installed: evidence that needs it is refused"
        return Diagnosis(name, DiagnosisLevel.FAIL, found, "pip install 'aegis-fl[attestation]'")
    opened(settings, site.folder)
    if settings.bundle is None and not settings.fetch and _hardware(required):
        verdict = (
            DiagnosisLevel.FAIL
            if required.gpus or any(kind in _DCAP for kind in required.kinds)
            else DiagnosisLevel.WARN
        )
        to_do = "set bundle, or fetch = true, in [endorsements]"
        return Diagnosis(name, verdict, "no source: only endorsements that a host sends itself are used", to_do)
    return Diagnosis(name, DiagnosisLevel.OK, _sources(settings))


def _libraries(required: AttestationPolicy) -> list[str]:
    needed = ["dcap_qvl"] if any(kind in _DCAP for kind in required.kinds) else []
    needed += ["signxml"] if required.gpus else []
    return [module for module in needed if importlib.util.find_spec(module) is None]


def _sources(settings: EndorsementSettings) -> str:
    named = [*([f"bundle {settings.bundle}"] if settings.bundle else []), *(["vendors"] if settings.fetch else [])]
    return ", then ".join(named) or "no source needed"


def _today(site: Examined) -> date:
    return as_datetime(site.now()).date()
