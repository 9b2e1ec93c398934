"""Verify that evidence is authentic and its platform in good state: pure functions, one package per kind.

Enters: bytes, endorsements, a platform policy and an explicit ``now``. Leaves: a verdict with its open checks, or a
refusal with the first failed check. Never: reads a clock, a file or the network; decides if an authentic report is
*acceptable*, which :mod:`coreason_enclave.attestation.appraisal` does.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
