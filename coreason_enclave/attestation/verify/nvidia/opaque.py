"""The opaque data of a report: type-length-value fields in which the device describes itself, under its signature.

Field numbers follow NVIDIA's own verifiers (nvtrust, attestation-sdk).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from coreason_enclave.attestation.verify.verdict import Refusal, VerificationRefused

_KNOWN = frozenset({*range(1, 26), *range(32, 37)})
_VERSION = 1
_TEXT = re.compile(r"[A-Za-z0-9._-]{0,63}")
_SWITCHED_ON = b"\xaa"
_SWITCHED_OFF = b"\x55"


class Field:
    """Numbers of the fields in use here. For other known fields, the parser knows only the number."""

    DRIVER_VERSION = 3
    VBIOS_VERSION = 6
    NVDEC0_STATUS = 11
    BOARD_ID = 14
    CHIP_SKU = 15
    CHIP_SKU_MOD = 16
    PROJECT = 17
    PROJECT_SKU = 18
    PROJECT_SKU_MOD = 19
    FWID = 20
    PROTECTED_PCIE_STATUS = 21
    OPAQUE_DATA_VERSION = 34
    FEATURE_FLAG = 36


class GpuMode(StrEnum):
    """A GPU's mode of confidential computing.

    - ``single_gpu``: one GPU per machine.
    - ``multi_gpu``: several GPUs with encrypted links.
    - ``protected_pcie``: several GPUs with plain links, so the switches belong to the trusted base.
    """

    SINGLE_GPU = "single_gpu"
    MULTI_GPU = "multi_gpu"
    PROTECTED_PCIE = "protected_pcie"


_MODES = {0: GpuMode.SINGLE_GPU, 1: GpuMode.MULTI_GPU, 2: GpuMode.PROTECTED_PCIE}


@dataclass(frozen=True)
class OpaqueData:
    """Parsed opaque data. ``fields``: number to value, each number once."""

    fields: Mapping[int, bytes]

    @property
    def driver_version(self) -> str:
        """Driver version, such as ``550.144.03``; raises :class:`VerificationRefused` if the report has none."""
        text = self.text(Field.DRIVER_VERSION)
        if not text or not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6}){1,3}", text):
            raise VerificationRefused(Refusal.MALFORMED, "the report names no driver version")
        return text

    @property
    def vbios_version(self) -> str:
        """VBIOS version, such as ``96.00.A5.00.01``; raises :class:`VerificationRefused` if the report has none."""
        value = self.fields.get(Field.VBIOS_VERSION, b"")
        if len(value) != 8:
            raise VerificationRefused(Refusal.MALFORMED, "the report names no VBIOS version")
        return ".".join(f"{value[index]:02X}" for index in (3, 2, 1, 0, 4))

    @property
    def firmware_identity(self) -> bytes | None:
        """SHA-384 of the firmware that holds the attestation key. Old drivers (535) do not report it: None."""
        value = self.fields.get(Field.FWID)
        if value is not None and len(value) != 48:
            raise VerificationRefused(Refusal.MALFORMED, "the firmware identity of the report is not a SHA-384 digest")
        return value

    @property
    def mode(self) -> GpuMode | None:
        """Mode of confidential computing, or None if the driver reports no mode. Refuses an unknown mode."""
        flag = self.fields.get(Field.FEATURE_FLAG)
        if flag is None:
            on = self.fields.get(Field.PROTECTED_PCIE_STATUS) == _SWITCHED_ON
            return GpuMode.PROTECTED_PCIE if on else None
        mode = _MODES.get(int.from_bytes(flag, "little")) if 1 <= len(flag) <= 8 else None
        if mode is None:
            message = f"the GPU reports feature flag {flag[:8].hex()}, which is not a mode of confidential computing"
            raise VerificationRefused(Refusal.CONFIDENTIAL_COMPUTING_OFF, message)
        return mode

    @property
    def decoder_is_off(self) -> bool:
        """True if NVDEC0 is fused off on this chip, which makes its measurement meaningless."""
        return self.fields.get(Field.NVDEC0_STATUS) == _SWITCHED_OFF

    def text(self, number: int) -> str | None:
        """Return an ASCII field without trailing zeros, or None for an absent field."""
        value = self.fields.get(number)
        if value is None:
            return None
        text = value.rstrip(b"\0").decode("latin-1")
        if not _TEXT.fullmatch(text):
            raise VerificationRefused(Refusal.MALFORMED, f"field {number} of the report is not a short word")
        return text


def parse_opaque(data: bytes) -> OpaqueData:
    """Parse fields that fill ``data`` exactly; raises :class:`VerificationRefused`."""
    fields: dict[int, bytes] = {}
    for number, value in _fields(data):
        if number in fields or number not in _KNOWN:
            raise VerificationRefused(Refusal.MALFORMED, f"field {number} of the report is unknown, or occurs twice")
        fields[number] = value
    version = int.from_bytes(fields.get(Field.OPAQUE_DATA_VERSION, b""), "little")
    if version > _VERSION:
        raise VerificationRefused(Refusal.MALFORMED, f"the report's opaque data has version {version}, not {_VERSION}")
    return OpaqueData(fields)


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        start = at + 4
        at = start + int.from_bytes(data[at + 2 : start], "little")
        if start > len(data) or at > len(data):
            raise VerificationRefused(Refusal.MALFORMED, "the fields of the report do not fill the opaque data exactly")
        yield int.from_bytes(data[start - 4 : start - 2], "little"), data[start:at]
