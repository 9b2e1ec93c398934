"""Combines the model deltas of one round so that hostile sites cannot decide the outcome.

Enters: updates of one round, with content of any kind. Leaves: one delta, and the reason for each update set aside.
Never: uses a clock, randomness or IO; falls back to a weaker rule.

>>> from aegis.aggregation import Contribution, aggregate
>>> import numpy as np
>>> from coreason_enclave.schemas import Aggregator
>>> def delta(*values):
...     return {"weight": np.array(values, dtype=np.float32)}
>>> updates = [
...     Contribution("ash", delta(1.0, 2.0)),
...     Contribution("birch", delta(1.5, 2.5)),
...     Contribution("cedar", delta(2.0, 3.0)),
...     Contribution("mallow", delta(-1000.0, 1000.0)),
...     Contribution("nettle", delta(float("nan"), 0.0)),
... ]
>>> result = aggregate(
...     updates, rule=Aggregator.TRIMMED_MEAN, num_byzantine=1, layout={"weight": (2,)}, max_norm=1e6)
>>> result.delta["weight"]
array([1.25, 2.75], dtype=float32)
>>> {site: reason.value for site, reason in result.quarantined.items()}
{'nettle': 'non_finite'}
>>> aggregate(updates, rule=Aggregator.KRUM, num_byzantine=1, layout={"weight": (2,)}, max_norm=1e6)
Traceback (most recent call last):
...
aegis.errors.TooFewUpdates: krum with num_byzantine=1 needs at least 5 admitted updates, got 4 \
(set aside: nettle (non_finite)): wait for more sites or repeat the round; \
the aggregator never falls back to a weaker rule

Guarantees, if at most f = ``num_byzantine`` of the n updates that pass screening are hostile:

============  ===========  ==============================================================================
rule          needs        guarantee
============  ===========  ==============================================================================
mean          f = 0        none against a hostile update; screening alone bounds its norm
trimmed mean  n >= 2f + 1  every coordinate lies within the range of the honest values
median        n >= 2f + 1  the same, and closer to the honest centre for large f
Krum          n >= 2f + 3  one update, whose nearest neighbours include a majority of honest ones
Multi-Krum    n >= 2f + 3  the mean of the n - f best by Krum's score: all but f are kept
============  ===========  ==============================================================================

All functions are pure. Neither the order of the updates nor the number of threads changes a bit of a result.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
