"""Hosts with genuine reports of our own vendors: what is collected on them verifies under our own roots."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from uuid import UUID

from coreason_enclave.attestation.evidence import CpuKind, CpuReport, GpuReport
from coreason_enclave.attestation.verify.dcap import DcapPlatformPolicy
from coreason_enclave.attestation.verify.nvidia import NvidiaEndorsements, NvidiaPlatformPolicy
from coreason_enclave.attestation.verify.snp import SnpEndorsements, SnpPlatformPolicy
from coreason_enclave.attestation.verify.verdict import Authentic
from coreason_enclave.hardware.collectors import CpuCollector
from coreason_enclave.hardware.gramine import GramineCollector
from coreason_enclave.hardware.tsm import TsmCollector
from tests.coreason_enclave.attestation.dcap import hierarchy as intel
from tests.coreason_enclave.attestation.nvidia import hierarchy as nvidia
from tests.coreason_enclave.attestation.snp import hierarchy as amd
from tests.coreason_enclave.hardware.devices import GramineTree, TsmTree

VCEK, ASK, ARK, OTHER = (
    UUID(text).bytes
    for text in (
        "63da758d-e664-4564-adc5-f4b93be8accd",
        "4ab7b379-bbac-4fe4-a02f-05aef327c782",
        "c0b406a4-a803-4952-9743-3fb6014cd0ae",
        "ecae0c0f-9502-43b1-afa2-0ae2e0d565b6",
    )
)
KINDS = ("tdx", "snp", "sgx")
Tree = TsmTree | GramineTree


@cache
def world(kind: str) -> intel.Intel:
    return intel.Intel(kind=kind)


@cache
def vendor() -> amd.Vendor:
    return amd.Vendor()


def table(*entries: tuple[bytes, bytes], padding: int = 0) -> bytes:
    """A host's certificate table."""
    at = 24 * (len(entries) + 1)
    head = b""
    for guid, content in entries:
        head += guid + struct.pack("<II", at, len(content))
        at += len(content)
    return head + bytes(24) + b"".join(content for _, content in entries) + bytes(padding)


def certificates() -> tuple[bytes, bytes, bytes]:
    return amd.leaf_of(vendor()), amd.authority_of(vendor()), amd.root_of(vendor())


def full_table() -> bytes:
    """As a host gives it: in whole pages."""
    vcek, ask, ark = certificates()
    return table((VCEK, vcek), (ASK, ask), (ARK, ark), padding=4096)


def snp_report(data: bytes, level: int = 0) -> bytes:
    return vendor().report(changes={0x50: data.ljust(64, b"\0"), 0x30: level.to_bytes(4, "little")})


def tdx_quote(data: bytes, level: int = 0) -> bytes:
    return world("tdx").quote(intel.td_report(report_data=data.ljust(64, b"\0")))


def sgx_quote(data: bytes, level: int = 0) -> bytes:
    return world("sgx").quote(intel.sgx_report(report_data=data.ljust(64, b"\0")))


def tree_of(kind: str) -> Tree:
    if kind == "snp":
        return TsmTree("sev_guest", snp_report, full_table(), "0")
    return TsmTree("tdx_guest", tdx_quote) if kind == "tdx" else GramineTree(sgx_quote)


@dataclass
class Pauses:
    """How long a collector would have waited, seconds."""

    taken: list[float] = field(default_factory=list)

    def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)


def collector_of(kind: str, tree: Tree, pause: Callable[[float], None] | None = None) -> CpuCollector:
    if kind == "sgx":
        return GramineCollector(tree)
    return TsmCollector(tree, CpuKind(kind), pause=pause or Pauses())


def verified(report: CpuReport, data: bytes) -> Authentic:
    """The verdict of a relying party that trusts our own vendors, and has nothing but what the host handed over."""
    if report.kind is CpuKind.SNP:
        given = SnpEndorsements(tuple(blob_bytes(blob) for blob in report.certificates))
        policy = SnpPlatformPolicy()
        return amd.verifier().verify(report.report_bytes(), given, policy, amd.NOW, report_data=data)
    of = world(str(report.kind))
    raw = report.report_bytes()
    return of.verifier.verify(of.kind, raw, of.endorsements(), DcapPlatformPolicy(), intel.NOW, report_data=data)


def verified_gpu(report: GpuReport, nonce: bytes) -> Authentic:
    ends = NvidiaEndorsements(chain=report.chain_bytes())
    return nvidia.verifier().verify(report.report_bytes(), ends, NvidiaPlatformPolicy(), nvidia.NOW, nonce=nonce)


def blob_bytes(blob: str) -> bytes:
    return CpuReport(kind=CpuKind.SNP, report=blob).report_bytes()


@dataclass
class FakeNvml:
    """The management library of a host with these GPUs. It is its own session."""

    names: tuple[str, ...] = ("", "-second")
    on: bool = True
    arch: str = "HOPPER"
    asked_for: bytes | None = None
    empty: str = ""
    is_open: bool = False

    @contextmanager
    def opened(self) -> Iterator[FakeNvml]:
        self.is_open = True
        try:
            yield self
        finally:
            self.is_open = False

    def confidential_computing(self) -> bool:
        return self.on

    def gpus(self) -> int:
        return len(self.names)

    def architecture(self, gpu: int) -> str:
        return self.arch

    def report(self, gpu: int, nonce: bytes) -> bytes:
        assert self.is_open
        covered = nonce if self.asked_for is None else self.asked_for
        return b"" if self.empty == "report" else nvidia.report(covered, who=self.names[gpu])

    def certificates(self, gpu: int) -> bytes:
        assert self.is_open
        return b"" if self.empty == "certificates" else nvidia.pem(nvidia.chain(self.names[gpu]))
