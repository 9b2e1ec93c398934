"""Simulated attackers for tests and demonstrations, labelled as simulated in every record.

Enters: an honest site's update, message or evidence.
Leaves: the attacker's replacement for it.
Never: runs in a federation that did not ask for an attack; reaches a real site's rows.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
