"""Signed reference integrity manifests: the expected measurements of an NVIDIA driver or firmware version.

Enters: a manifest's bytes, a root and a time. Leaves: a verified manifest, or a refusal.
Never: reads content outside the signed bytes.
"""

from __future__ import annotations

from coreason_enclave.attestation.verify.rim.manifest import Manifest, verify_manifest_under

__all__ = ["Manifest", "verify_manifest_under"]
