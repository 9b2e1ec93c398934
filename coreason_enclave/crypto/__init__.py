"""Cryptographic building blocks: canonical JSON, signatures, envelopes, logs, keystreams.

Enters: bytes and keys.
Leaves: signatures, ciphertexts and digests, or a typed error for input that fails verification.
Never: knows of jobs, rounds or sites; invents its own primitive.

>>> from coreason_enclave.crypto import KeyRing, Signer, open_envelope, seal
>>> site, stranger = Signer.generate(), Signer.generate()
>>> keys, kind = KeyRing({"ash": site.public_hex}), "application/vnd.aegis.example"
>>> open_envelope(seal(kind, b"{}", site), kind, keys).signer
'ash'
>>> open_envelope(seal(kind, b"{}", stranger), kind, keys)
Traceback (most recent call last):
coreason_enclave.errors.EnvelopeError: signed by unknown key ...
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
