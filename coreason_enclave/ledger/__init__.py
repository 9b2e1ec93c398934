"""The site's privacy ledger: the privacy spent on each data lineage, by any job, engine or process.

Enters: registrations, worst-case round plans, events that ran.
Leaves: reservations, claims, heads and exports, or a :class:`~coreason_enclave.errors.LedgerError`.
Never: refunds an uncommitted round; opens new budget for a registered lineage.

The ledger charges a round in full *before* the round reads a row; a commit records afterwards how much ran. An
uncommitted round stays spent. Recomputing a round from the same inputs costs no second charge.

>>> from dataclasses import replace
>>> from coreason_enclave.ledger import EphemeralLedger, LineageCaps, LineageRegistration, NoiseSource, RoundPlan
>>> from coreason_enclave.schemas import NeighboringRelation, PrivacyUnit
>>> ledger = EphemeralLedger()  # SqliteLedger(path) is the durable one
>>> ledger.register(LineageRegistration.with_best_order(
...     lineage="clinic/visits", unit=PrivacyUnit.PERSON, nominal_units=5_000, public=False,
...     neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE,
...     caps=LineageCaps(epsilon=8.0, delta=1e-5, job_epsilon=3.0, job_delta=1e-5)))
>>> plan = RoundPlan(
...     job_id="study-1", job_digest="ab" * 32, round_number=0, unit=PrivacyUnit.PERSON, noise_multiplier=1.0,
...     sample_rate=0.05, steps=50, total_steps=100, target_epsilon=3.0, delta=1e-5,
...     noise_source=NoiseSource.SITE_KEYSTREAM)
>>> first = ledger.reserve("clinic/visits", plan, binding="cd" * 32, require_all=True)
>>> ledger.commit(first.reservation_id, first.event, update_digest="ef" * 32)
>>> claim = ledger.job_claim("clinic/visits", "study-1")
>>> print(f"{claim.guarantee.epsilon:.2f} so far; {claim.steps_allowed} steps afford {claim.target_epsilon}")
2.67 so far; 68 steps afford 3.0

The next fifty steps do not fit under the job's own cap:

>>> second = replace(plan, round_number=1)
>>> ledger.reserve("clinic/visits", second, binding="12" * 32, require_all=False).step_limit
18
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
