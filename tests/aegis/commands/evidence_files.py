"""Evidence of vendors of our own, with what endorses it, written to files as a person would hold them."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from coreason_enclave.attestation.binding import gpu_nonce, report_data
from coreason_enclave.attestation.evidence import CpuKind, CpuReport, Evidence, GpuReport, to_base64
from coreason_enclave.crypto.encoding import canonical_json
from tests.coreason_enclave.attestation.dcap import hierarchy as intel
from tests.coreason_enclave.attestation.nvidia import hierarchy as nvidia
from tests.coreason_enclave.attestation.snp import hierarchy as amd

NOW = nvidia.NOW
MOMENTS = {"sgx": intel.NOW, "tdx": intel.NOW, "snp": NOW, "nvidia": NOW}
NONCE = bytes(range(7, 39))
INTEL = {kind: intel.Intel(kind=kind) for kind in ("sgx", "tdx")}


@dataclass(frozen=True)
class Files:
    """Writes into one folder, and names the files as options."""

    folder: Path

    def write(self, name: str, content: bytes | str | dict[str, Any] | list[Any]) -> Path:
        path = self.folder / name
        if isinstance(content, dict | list):
            content = json.dumps(content)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def toml(self, name: str, document: dict[str, Any]) -> Path:
        return self.write(name, tomli_w.dumps(document))

    def endorsements(self, kind: str) -> list[str]:
        """The options that name everything which endorses the evidence of ``kind``."""
        files = [self.write(name, content) for name, content in endorsing(kind).items()]
        return [word for file in files for word in ("--endorsements", str(file))]

    def question(self, kind: str, content: bytes | None = None) -> list[str]:
        """Options for evidence of ``kind``, endorsed, at a moment when everything is valid."""
        path = self.write(f"evidence.{kind}", bare(kind) if content is None else content)
        return [
            *("--kind", kind, "--evidence", str(path)),
            *self.endorsements("gpu" if kind == "nvidia" else kind),
            *("--now", str(MOMENTS[kind])),
        ]


def bare(kind: str, data: bytes | None = None) -> bytes:
    """A report in its vendor's own form; ``data``: what it covers."""
    if kind == "nvidia":
        return nvidia.report(nvidia.NONCE if data is None else data)
    if kind == "snp":
        return amd.Vendor().report(changes={} if data is None else {0x50: data})
    covered = intel.HELLO if data is None else data
    body = intel.sgx_report(report_data=covered) if kind == "sgx" else intel.td_report(report_data=covered)
    return INTEL[kind].quote(body)


def covered(kind: str) -> bytes:
    return {"nvidia": nvidia.NONCE, "snp": amd.DATA}.get(kind, intel.HELLO)


def endorsing(kind: str) -> dict[str, bytes]:
    """The files that endorse: ``gpu`` of a bare GPU report, ``nvidia`` of one that brings its chain."""
    if kind == "snp":
        vendor = amd.Vendor()
        return {"vcek.der": amd.leaf_of(vendor), "ask.der": amd.authority_of(vendor), "ark.der": amd.root_of(vendor)}
    if kind in INTEL:
        return {"collateral.json": INTEL[kind].endorsements().collateral or b""}
    manifests = {"driver.xml": nvidia.driver_manifest(), "vbios.xml": nvidia.vbios_manifest()}
    return manifests if kind == "nvidia" else {"chain.pem": nvidia.pem(nvidia.chain()), **manifests}


def gpu_list(*gpus: str, nonce: bytes = nvidia.NONCE) -> bytes:
    """NVIDIA's JSON list, one entry for each name."""
    entries = [
        {
            "arch": "HOPPER",
            "certificate": to_base64(nvidia.pem(nvidia.chain(who))),
            "evidence": to_base64(nvidia.report(nonce, who=who)),
            "nonce": nonce.hex(),
        }
        for who in gpus
    ]
    return json.dumps(entries).encode()


def host(context: bytes, *, kind: str = "snp", gpus: Sequence[str] = ("",), handed_over: bool = False) -> bytes:
    """A host's evidence over ``context``, as ``coreason-enclave attest`` and a site write it."""
    shown = tuple(
        GpuReport(
            arch="HOPPER",
            report=to_base64(nvidia.report(gpu_nonce(context), who=who)),
            certificate_chain=to_base64(nvidia.pem(nvidia.chain(who))),
        )
        for who in gpus
    )
    table = tuple(to_base64(der) for der in endorsing("snp").values()) if handed_over else ()
    report = bare(kind, report_data(context, shown))
    cpu = CpuReport(kind=CpuKind(kind), report=base64.b64encode(report).decode(), certificates=table)
    return canonical_json(Evidence(cpu=cpu, gpus=shown).model_dump(mode="json"))
