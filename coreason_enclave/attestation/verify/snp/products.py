"""Processor lines that sign reports, and their differences: TCB layout, chip id, CPU models, names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum

from coreason_enclave.attestation.verify.verdict import Refusal, VerificationRefused


class SnpProduct(StrEnum):
    """A root of AMD; ``Genoa`` also endorses Bergamo and Siena."""

    MILAN = "Milan"
    GENOA = "Genoa"
    TURIN = "Turin"


@dataclass(frozen=True)
class SnpTcb:
    """Security patch levels, 0 to 255 each; ``fmc`` exists on Turin only."""

    boot_loader: int
    tee: int
    snp: int
    microcode: int
    fmc: int | None = None

    def as_claim(self) -> dict[str, int]:
        """Return the levels as JSON types, without levels unknown to the line."""
        return {name: level for name, level in asdict(self).items() if level is not None}


@dataclass(frozen=True)
class ProductLine:
    """Properties of one line, from AMD 56860 and 57230.

    Attributes:
        tcb_layout: The component in each of TCB_VERSION's 8 bytes; empty for a reserved byte.
        struct_version: Version of the TCB extensions in a VCEK or VLEK certificate.
        chip_id_bytes: Number of CHIP_ID bytes that name the chip; the rest of the 64 are zero.
        cpus: CPUID family and range of models.
        names: Permitted product names in a certificate, stepping aside.
    """

    tcb_layout: tuple[str, ...]
    struct_version: int
    chip_id_bytes: int
    cpus: tuple[tuple[int, range], ...]
    names: tuple[str, ...]

    def has_cpu(self, family: int, model: int) -> bool:
        """Return True if the CPUID belongs to the line."""
        return any(family == known and model in models for known, models in self.cpus)

    def has_name(self, name: str) -> bool:
        """Return True if a certificate's product name (``Milan-B0``, ``Genoa``) belongs to the line."""
        return re.sub(r"-[A-Z][0-9]\Z", "", name) in self.names


_FIRST_LAYOUT = ("boot_loader", "tee", "", "", "", "", "snp", "microcode")
_TURIN_LAYOUT = ("fmc", "boot_loader", "tee", "snp", "", "", "", "microcode")

LINES: Mapping[SnpProduct, ProductLine] = {
    SnpProduct.MILAN: ProductLine(_FIRST_LAYOUT, 0, 64, ((0x19, range(0x10)),), ("Milan",)),
    SnpProduct.GENOA: ProductLine(
        _FIRST_LAYOUT,
        0,
        64,
        ((0x19, range(0x10, 0x20)), (0x19, range(0xA0, 0xB0))),
        ("Genoa", "Bergamo", "Siena"),
    ),
    SnpProduct.TURIN: ProductLine(_TURIN_LAYOUT, 1, 8, ((0x1A, range(0x12)),), ("Turin",)),
}


def decode_tcb(product: SnpProduct, raw: bytes) -> SnpTcb:
    """Parse TCB_VERSION (8 bytes) in the line's own layout; raises :class:`VerificationRefused` on reserved bits."""
    layout = LINES[product].tcb_layout
    if any(level and not name for name, level in zip(layout, raw, strict=True)):
        raise VerificationRefused(Refusal.MALFORMED, f"a TCB version {raw.hex()} has reserved bytes set for {product}")
    return SnpTcb(**{name: level for name, level in zip(layout, raw, strict=True) if name})
