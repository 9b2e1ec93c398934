"""Attesters: collect evidence on this host.

Enters: the context bytes to bind. Leaves: evidence with CPU and GPU reports, or ``attestation_unavailable``.
Never: vouches for evidence, since the relying party verifies; replaces a missing attester with another.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
