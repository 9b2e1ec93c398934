"""Verify AMD SEV-SNP reports: signed by a genuine AMD processor, on a platform in good state.

Enters: a report, endorsements, a platform policy and a time. Leaves: a verdict with its open checks, or a refusal.
Never: reads a clock or the network; trusts a root other than AMD's pinned roots (:func:`verify_snp`).

Supported: reports of versions 2, 3 and 5 from Milan, Genoa and Turin processors, signed by the chip's own key (VCEK) or
by a key loaded for a cloud provider (VLEK). Formats: AMD 56860 (SEV-SNP firmware ABI) for the report, AMD 57230 (VCEK
certificate and KDS interface) for the certificates.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
