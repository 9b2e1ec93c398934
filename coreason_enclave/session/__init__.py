"""Everything a site does with one order, in the only allowed sequence.

Enters: a sealed message from the coordinator.
Leaves: a sealed update, or a refusal with a reason code.
Never: releases an update before charging the ledger; lets the text of a user's error out.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
