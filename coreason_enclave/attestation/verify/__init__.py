"""Verify that evidence is authentic and its platform in good state: pure functions, one package per kind.

Enters: bytes, endorsements, a platform policy and an explicit ``now``. Leaves: a verdict with its open checks, or a
refusal with the first failed check. Never: reads a clock, a file or the network; decides if an authentic report is
*acceptable*, which :mod:`coreason_enclave.attestation.appraisal` does.

>>> from coreason_enclave.attestation.verify import VerificationRefused, in_words, load_pem_chain
>>> try:
...     load_pem_chain(b"not a certificate", "a GPU's chain")
... except VerificationRefused as error:
...     print(f"{error.reason} ({in_words(error)})")
attestation_invalid (malformed: a GPU's chain is not a sequence of PEM certificates)
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
