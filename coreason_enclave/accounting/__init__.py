"""Privacy accounting: composes the events that ran into a guarantee that may be claimed.

Enters: privacy events, a delta, targets and caps.
Leaves: bounds, guarantees, noise multipliers, step counts, or an :class:`~coreason_enclave.errors.AccountingError`.
Never: adds up epsilons; turns an estimate into a guarantee.

Describe the mechanisms that ran as frozen events. Compose the events, not their epsilons, and state the result together
with its unit, neighbouring relation and accountant:

>>> from coreason_enclave.accounting import PoissonSampledGaussian, compose_epsilon
>>> from coreason_enclave.schemas import NeighboringRelation, PrivacyUnit
>>> job = PoissonSampledGaussian(noise_multiplier=1.0, sample_rate=0.05, steps=68)
>>> answer = compose_epsilon([job, job], delta=1e-5)
>>> relation = NeighboringRelation.ADD_OR_REMOVE_ONE
>>> claim = answer.guarantee(unit=PrivacyUnit.PERSON, neighboring_relation=relation)
>>> print(f"{claim.epsilon:.2f} at delta {claim.delta:g} per {claim.unit}, by {claim.accountant}")
4.00 at delta 1e-05 per person, by PLD

Two jobs of epsilon 3 cost 4.0 together, not 6. The inverse questions:

>>> from coreason_enclave.accounting import calibrate_noise, last_affordable_step
>>> last_affordable_step(1.0, 0.05, target_epsilon=3.0, delta=1e-5)
68
>>> 0.99 < calibrate_noise(3.0, 1e-5, sample_rate=0.05, steps=68) <= 1.0
True
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
