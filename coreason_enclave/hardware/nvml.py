"""Adapter to NVIDIA's management library (NVML) through the optional Python binding ``nvidia-ml-py``.

The dynamic linker decides which shared library the binding loads. No answer of the library counts until the relying
party has verified the GPU's signature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from coreason_enclave.hardware.collectors import unavailable

BINDING = "pynvml"
"""Module name of the package ``nvidia-ml-py``."""


def _import() -> Any:
    try:
        import pynvml
    except ImportError as error:
        raise unavailable("nvidia-ml-py is not installed: pip install 'aegis-fl[nvidia]'") from error
    return pynvml


class PythonNvml:
    """NVML on this host.

    Args:
        load: Returns the binding; only tests replace the default.
    """

    def __init__(self, load: Callable[[], Any] = _import) -> None:
        self._load = load

    @contextmanager
    def opened(self) -> Iterator[_Session]:
        """See :meth:`.nvidia.Nvml.opened`."""
        binding = self._load()
        try:
            binding.nvmlInit()
            try:
                yield _Session(binding)
            finally:
                binding.nvmlShutdown()
        except (binding.NVMLError, binding.NVMLLibraryMismatchError) as error:
            raise unavailable(f"NVIDIA's management library (libnvidia-ml.so.1) says: {error}") from error


class _Session:
    def __init__(self, binding: Any) -> None:
        self._binding = binding

    def confidential_computing(self) -> bool:
        state = self._binding.nvmlSystemGetConfComputeState()
        return bool(state.ccFeature == self._binding.NVML_CC_SYSTEM_FEATURE_ENABLED)

    def gpus(self) -> int:
        return int(self._binding.nvmlDeviceGetCount())

    def architecture(self, gpu: int) -> str:
        number = self._binding.nvmlDeviceGetArchitecture(self._handle(gpu))
        return "HOPPER" if number == self._binding.NVML_DEVICE_ARCH_HOPPER else f"architecture {number}"

    def report(self, gpu: int, nonce: bytes) -> bytes:
        answer = self._binding.nvmlDeviceGetConfComputeGpuAttestationReport(self._handle(gpu), nonce)
        return _content(answer.attestationReport, answer.attestationReportSize)

    def certificates(self, gpu: int) -> bytes:
        answer = self._binding.nvmlDeviceGetConfComputeGpuCertificate(self._handle(gpu))
        return _content(answer.attestationCertChain, answer.attestationCertChainSize).rstrip(b"\0")  # a C string

    def _handle(self, gpu: int) -> Any:
        return self._binding.nvmlDeviceGetHandleByIndex(gpu)


def _content(buffer: Any, size: int) -> bytes:
    data = bytes(buffer)
    if size > len(data):
        raise unavailable(f"NVIDIA's management library reports {size} bytes in a buffer of {len(data)}")
    return data[:size]
