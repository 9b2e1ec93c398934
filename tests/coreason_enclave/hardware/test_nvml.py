"""NVIDIA's management library behind its own Python binding."""

from __future__ import annotations

import sys

import pytest

from coreason_enclave.attestation.evidence import GpuReport
from coreason_enclave.errors import AttestationError, Reason
from coreason_enclave.hardware.nvidia import NvidiaCollector
from coreason_enclave.hardware.nvml import BINDING, PythonNvml
from tests.coreason_enclave.hardware.binding import Binding, NVMLLibraryMismatchError
from tests.coreason_enclave.hardware.hosts import verified_gpu

NONCE = bytes(range(32))
CALLS = [name for name in dir(Binding) if name.startswith("nvml")]


def collect(binding: Binding) -> tuple[GpuReport, ...]:
    return NvidiaCollector(PythonNvml(lambda: binding)).collect(NONCE)


def refused(binding: Binding) -> str:
    with pytest.raises(AttestationError) as error:
        collect(binding)
    assert error.value.reason is Reason.ATTESTATION_UNAVAILABLE
    return str(error.value)


def test_every_gpus_report_and_certificates_verify_over_the_nonce() -> None:
    binding = Binding()
    reports = collect(binding)

    verdicts = [verified_gpu(report, NONCE) for report in reports]

    assert [verdict.report_data for verdict in verdicts] == [NONCE, NONCE]
    assert binding.initialised == 0


def test_a_missing_binding_is_a_failure_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, BINDING, None)

    with pytest.raises(AttestationError, match="nvidia-ml-py is not installed") as error:
        NvidiaCollector(PythonNvml()).collect(NONCE)

    assert error.value.reason is Reason.ATTESTATION_UNAVAILABLE


@pytest.mark.parametrize("call", CALLS)
def test_an_error_of_the_library_is_told(call: str) -> None:
    assert "libnvidia-ml.so.1) says: Insufficient Permissions" in refused(Binding(failing=call))


def test_a_library_older_than_its_binding_is_a_failure() -> None:
    class Old(Binding):
        def nvmlInit(self) -> None:
            raise NVMLLibraryMismatchError("mismatch")

    assert "mismatch" in refused(Old())


def test_confidential_computing_that_is_off_is_a_failure() -> None:
    assert "not in confidential-computing mode" in refused(Binding(on=0))


def test_another_architecture_is_a_failure() -> None:
    assert "architecture 10" in refused(Binding(arch=10))


def test_no_gpu_is_a_failure() -> None:
    assert "sees no GPU" in refused(Binding(gpus=0))


def test_a_size_beyond_the_buffer_is_a_failure() -> None:
    assert "in a buffer of 8192" in refused(Binding(extra=8192))
