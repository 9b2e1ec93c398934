"""Checks for attestation hardware on this host, by device files alone; the check never opens a device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from coreason_enclave.agent.doctor.findings import Diagnosis, DiagnosisLevel, Examined
from coreason_enclave.hardware import DEVICES, HostDevices, ThisHost
from coreason_enclave.schemas import Profile


def devices_found(root: Path = Path("/")) -> list[str]:
    """Return the names of the interfaces present on this host."""
    return [
        looked.name for looked in ThisHost(HostDevices(root)).looked_for() if looked.name in DEVICES and looked.there
    ]


def attestation(site: Examined) -> Iterator[Diagnosis]:
    """Report the site's configured attester and this host's attestation interfaces."""
    there = devices_found()
    looked = ", ".join(f"{name}: {'there' if name in there else 'no'}" for name in DEVICES)
    yield Diagnosis(
        "attestation hardware",
        DiagnosisLevel.OK if there else DiagnosisLevel.WARN,
        looked,
        "" if there else _NO_HARDWARE,
    )
    match site.config.attester:
        case "simulated":
            yield _simulated(site)
        case "unattested":
            found = "NOT ATTESTED, by profile unattested: no evidence shows which code trains here"
            yield Diagnosis("attester", DiagnosisLevel.WARN, found, "every log line, table and report says so")
        case name:
            yield _on_hardware(name)


def _simulated(site: Examined) -> Diagnosis:
    if site.config.profile is Profile.DEVELOPMENT:
        found = "SIMULATED: evidence proves nothing, and every log line, table and report says so"
        return Diagnosis("attester", DiagnosisLevel.WARN, found, "use simulation only for public data and tests")
    found = f"site.toml: attester simulated is refused under profile {site.config.profile}"
    return Diagnosis("attester", DiagnosisLevel.FAIL, found, "set attester to the hardware, or use profile development")


def _on_hardware(name: str) -> Diagnosis:
    if missing := ThisHost().missing(name):
        found = ", ".join(f"{looked.name} is missing ({looked.where})" for looked in missing)
        return Diagnosis("attester", DiagnosisLevel.FAIL, f"{name}: {found}", "run on the hardware named in site.toml")
    return Diagnosis("attester", DiagnosisLevel.OK, f"{name}: its interfaces exist", "")


_NO_HARDWARE = "this host has no attestation hardware: only profiles development and unattested are possible"
