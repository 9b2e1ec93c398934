"""Certificates and the audit log.

Enters: certificate requests, and actions to record.
Leaves: certificates, and hash-chained log lines.
Never: decides who takes part in a federation; the registry does.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
