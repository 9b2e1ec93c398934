"""Simulated hostile participants and privacy attacks, to measure the strength of the defences.

Enters: an honest site's update, message or evidence.
Leaves: an attacker's version of the same.
Never: attacks anything real; every participant here is simulated.

Two honest sites and an attacker: the mean follows the attacker, the median stays with the honest sites.

>>> from aegis.aggregation import Contribution, aggregate
>>> from aegis.attacks.hostile import Attack, forge_of
>>> import numpy as np
>>> from coreason_enclave.schemas import Aggregator
>>> ash, birch = {"w": np.array([1.0], np.float32)}, {"w": np.array([4.0], np.float32)}
>>> hostile = forge_of(Attack.SCALED)(ash, [birch])
>>> updates = [Contribution("ash", ash), Contribution("birch", birch), Contribution("nettle", hostile)]
>>> for rule, byzantine in ((Aggregator.MEAN, 0), (Aggregator.MEDIAN, 1)):
...     result = aggregate(updates, rule=rule, num_byzantine=byzantine, layout={"w": (1,)}, max_norm=100.0)
...     print(rule, result.delta["w"].tolist())
mean [-5.0]
median [1.0]
"""

__all__: list[str] = []  # attackers are imported from their own room, ``hostile``
