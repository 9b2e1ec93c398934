"""A binding of NVIDIA's management library, with the structures and names of nvidia-ml-py 13.615.71."""

from __future__ import annotations

from ctypes import Structure, c_uint, c_uint8
from typing import Any

from tests.coreason_enclave.attestation.nvidia import hierarchy as nvidia


class NVMLError(Exception):
    """What the binding raises for each code of the library."""


class NVMLLibraryMismatchError(Exception):
    """What it raises where the library is older than itself."""


class _State(Structure):
    _fields_ = (("environment", c_uint), ("ccFeature", c_uint), ("devToolsMode", c_uint))


class _Certificates(Structure):
    _fields_ = (
        ("certChainSize", c_uint),
        ("attestationCertChainSize", c_uint),
        ("certChain", c_uint8 * 0x1000),
        ("attestationCertChain", c_uint8 * 0x1400),
    )


class _Report(Structure):
    _fields_ = (
        ("isCecAttestationReportPresent", c_uint),
        ("attestationReportSize", c_uint),
        ("cecAttestationReportSize", c_uint),
        ("nonce", c_uint8 * 0x20),
        ("attestationReport", c_uint8 * 0x2000),
        ("cecAttestationReport", c_uint8 * 0x1000),
    )


class Binding:
    """The module. ``failing`` names a function that fails; ``sizes`` changes what the library says of its buffers."""

    NVMLError = NVMLError
    NVMLLibraryMismatchError = NVMLLibraryMismatchError
    NVML_CC_SYSTEM_FEATURE_ENABLED = 1
    NVML_DEVICE_ARCH_HOPPER = 9

    def __init__(self, *, failing: str = "", on: int = 1, arch: int = 9, gpus: int = 2, extra: int = 0) -> None:
        self.failing, self.on, self.arch, self.count, self.extra = failing, on, arch, gpus, extra
        self.initialised = 0

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("nvml") and name == self.failing:
            raise NVMLError("Insufficient Permissions")
        return super().__getattribute__(name)

    def nvmlInit(self) -> None:
        self.initialised += 1

    def nvmlShutdown(self) -> None:
        self.initialised -= 1

    def nvmlDeviceGetCount(self) -> int:
        return self.count

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        assert self.initialised == 1
        return ("", "-second")[index]

    def nvmlDeviceGetArchitecture(self, handle: str) -> int:
        return self.arch

    def nvmlSystemGetConfComputeState(self) -> _State:
        return _State(environment=2, ccFeature=self.on, devToolsMode=0)

    def nvmlDeviceGetConfComputeGpuCertificate(self, handle: str) -> _Certificates:
        chain = nvidia.pem(nvidia.chain(handle)) + b"\0"
        answer = _Certificates(attestationCertChainSize=len(chain) + self.extra)
        answer.attestationCertChain[: len(chain)] = chain
        return answer

    def nvmlDeviceGetConfComputeGpuAttestationReport(self, handle: str, nonce: bytes) -> _Report:
        report = nvidia.report(bytes((c_uint8 * len(nonce))(*nonce)), who=handle)
        answer = _Report(attestationReportSize=len(report) + self.extra)
        answer.attestationReport[: len(report)] = report
        return answer
