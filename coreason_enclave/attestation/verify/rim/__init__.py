"""Signed reference integrity manifests: the expected measurements of an NVIDIA driver or firmware version.

Enters: a manifest's bytes, a root and a time. Leaves: a verified manifest, or a refusal.
Never: reads content outside the signed bytes.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
