"""The rules of a federation: which sites to ask, which answers count, what happens next.

Enters: state, messages and a clock reading. Leaves: decisions, or refusals with reason codes.
Never: does IO of its own; reads a clock.

Every function depends on its arguments alone. Tests can therefore check each decision as a row of a table, and an
auditor can recompute it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
