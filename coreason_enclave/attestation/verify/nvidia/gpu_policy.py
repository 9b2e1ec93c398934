"""Platform policy for H100 GPUs."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

from coreason_enclave.attestation.verify.nvidia.opaque import GpuMode, OpaqueData
from coreason_enclave.attestation.verify.verdict import Refusal, VerificationRefused
from coreason_enclave.schemas import StrictModel, of_form

_Driver = Annotated[
    str,
    AfterValidator(of_form(re.compile(r"[0-9]{1,6}(\.[0-9]{1,6}){1,3}"), "a driver version such as 550.144.03")),
]
_Vbios = Annotated[
    str,
    AfterValidator(of_form(re.compile(r"[0-9A-F]{2}(\.[0-9A-F]{2}){4}"), "a VBIOS version such as 96.00.A5.00.01")),
]


class NvidiaPlatformPolicy(StrictModel):
    """Accepted modes and versions. No field accepts a revoked or held certificate.

    Attributes:
        modes: Accepted modes of confidential computing, for a GPU whose driver reports its mode. In ``protected_pcie``
            the NVSwitches need verification, too; ``not_checked`` then names them.
        min_driver_version: Oldest accepted driver (for example ``550.144.03``); None accepts any.
        min_vbios_version: Oldest accepted VBIOS (for example ``96.00.A5.00.01``); None accepts any.
    """

    modes: tuple[GpuMode, ...] = (GpuMode.SINGLE_GPU, GpuMode.MULTI_GPU, GpuMode.PROTECTED_PCIE)
    min_driver_version: _Driver | None = None
    min_vbios_version: _Vbios | None = None

    def check(self, opaque: OpaqueData) -> None:
        """Raise :class:`VerificationRefused` for the first rule that the report breaks."""
        floors = (
            ("driver", opaque.driver_version, self.min_driver_version, 10),
            ("VBIOS", opaque.vbios_version, self.min_vbios_version, 16),
        )
        for what, version, floor, base in floors:
            if floor is not None and _numbers(version, base) < _numbers(floor, base):
                message = f"the GPU runs {what} {version}, but the policy requires {floor} or newer"
                raise VerificationRefused(Refusal.TCB_OUT_OF_DATE, message)
        if opaque.mode is not None and opaque.mode not in self.modes:
            message = f"the GPU is in mode {opaque.mode}, which the platform policy does not list"
            raise VerificationRefused(Refusal.PLATFORM, message)


def _numbers(version: str, base: int) -> tuple[int, ...]:
    return tuple(int(part, base) for part in version.split("."))
