"""NVIDIA's two root certificates, public and pinned by the SHA-256 of their DER."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from cryptography import x509

from coreason_enclave.attestation.verify.nvidia_chain import pin

_DEVICE_ROOT = "102bf659d5419614c9d8e6aecebc80454eb26b1df6a769ac720b9a690b167b48"
_MANIFEST_ROOT = "12977b5115acb0381179279fffeb5a8c4d264971ebb32298023a465fa41df5d1"


@dataclass(frozen=True)
class NvidiaRoots:
    """The trust anchors.

    Attributes:
        devices: Root of the GPUs' certificates.
        manifests: Root of the reference manifests.
    """

    devices: x509.Certificate
    manifests: x509.Certificate


@cache
def pinned_roots() -> NvidiaRoots:
    """Return NVIDIA Device Identity CA and NVIDIA CoRIM signing Root CA from this package."""
    folder = files(__package__)
    return NvidiaRoots(
        devices=pin(folder.joinpath("device_root.crt").read_bytes(), _DEVICE_ROOT),
        manifests=pin(folder.joinpath("rim_root.crt").read_bytes(), _MANIFEST_ROOT),
    )
