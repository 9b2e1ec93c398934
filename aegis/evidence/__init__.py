"""Judges evidence in files: its authenticity (:func:`verify`), its acceptance by a policy (:mod:`.appraisal`), and its
unverified content (:func:`inspect`).

Enters: files with evidence, endorsements and a policy. Leaves: a verdict, or an unverified description.
Never: uses the network, or trusts a root other than the vendors' pinned roots.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
