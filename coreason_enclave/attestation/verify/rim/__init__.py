"""Signed reference integrity manifests: the expected measurements of an NVIDIA driver or firmware version.

Enters: a manifest's bytes, a root and a time. Leaves: a verified manifest, or a refusal.
Never: reads content outside the signed bytes.

>>> from coreason_enclave.attestation.verify import VerificationRefused
>>> from coreason_enclave.attestation.verify.rim import parse_untrusted
>>> body, tag = parse_untrusted(b'<SoftwareIdentity name="driver"/>')
>>> tag.get("name")
'driver'
>>> parse_untrusted(b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><SoftwareIdentity/>')
Traceback (most recent call last):
coreason_enclave.attestation.verify.verdict.VerificationRefused: a manifest contains a document type, ...
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
