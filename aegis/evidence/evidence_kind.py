"""The kinds of hardware that make reports, apart from all that reads one: an option names them before any file is read.

>>> EvidenceKind("snp").name
'SNP'
"""

from __future__ import annotations

from enum import StrEnum


class EvidenceKind(StrEnum):
    """The kind of hardware behind a report."""

    SGX = "sgx"
    TDX = "tdx"
    SNP = "snp"
    NVIDIA = "nvidia"
