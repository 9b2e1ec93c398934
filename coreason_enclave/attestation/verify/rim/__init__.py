"""Signed reference integrity manifests: which measurements a driver or firmware version of NVIDIA's should give."""

from __future__ import annotations

from coreason_enclave.attestation.verify.rim.manifest import Manifest, verify_manifest_under

__all__ = ["Manifest", "verify_manifest_under"]
