"""Simulated attackers for tests and demonstrations, labelled as simulated in every record.

Enters: an honest site's update, message or evidence.
Leaves: the attacker's replacement for it.
Never: runs in a federation that did not ask for an attack; reaches a real site's rows.

>>> from aegis.attacks.hostile import Attack, forge_of
>>> import numpy as np
>>> own = {"w": np.array([1.0, -0.5], np.float32)}
>>> forge_of(Attack.SIGN_FLIP)(own, [])
{'w': array([-1. ,  0.5], dtype=float32)}
>>> [attack.value for attack in Attack if attack.is_omniscient]  # these need the other sites' updates, too
['alie', 'ipm']
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
