"""What could attest on this host. Looked for by its device files alone; nothing is asked of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from coreason_enclave.agent.doctor.findings import Examined, Finding, Verdict
from coreason_enclave.policy import Profile

__all__ = ["DEVICES", "attestation", "devices_found"]

DEVICES = {
    "Intel SGX": "dev/sgx_enclave",
    "Intel TDX": "dev/tdx_guest",
    "AMD SEV-SNP": "dev/sev-guest",
    "configfs-tsm": "sys/kernel/config/tsm/report",
    "NVIDIA GPU": "dev/nvidiactl",
}


def devices_found(root: Path = Path("/")) -> list[str]:
    """Names of the interfaces that are there."""
    return [name for name, path in DEVICES.items() if (root / path).exists()]


def attestation(site: Examined) -> Iterator[Finding]:
    """Which attester the site names, and which interfaces this host has."""
    there = devices_found()
    looked = ", ".join(f"{name}: {'there' if name in there else 'no'}" for name in DEVICES)
    yield Finding("attestation hardware", Verdict.OK if there else Verdict.WARN, looked, "" if there else _NO_HARDWARE)
    if site.config.attester != "simulated":
        found = f"attester {site.config.attester} is not available in this version"
        yield Finding("attester", Verdict.FAIL, found, "use a version that has it")
    elif site.config.profile is Profile.DEVELOPMENT:
        found = "SIMULATED: evidence proves nothing, and every log line, table and report says so"
        yield Finding("attester", Verdict.WARN, found, "for public data and tests only")
    else:
        found = f"attester simulated is refused under profile {site.config.profile}"
        yield Finding("attester", Verdict.FAIL, found, "name this host's hardware, or use profile development")


_NO_HARDWARE = "on this host nothing can be attested: simulated evidence only"
