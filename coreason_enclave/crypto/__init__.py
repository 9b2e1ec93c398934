"""Cryptographic building blocks: canonical JSON, signatures, envelopes, logs, keystreams.

Enters: bytes and keys.
Leaves: signatures, ciphertexts and digests, or a typed error for input that fails verification.
Never: knows of jobs, rounds or sites; invents its own primitive.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
