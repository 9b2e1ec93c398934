"""Offline verification of a run folder: checks the run's claims against its own records, and trusts no stated number.

Enters: a run folder and, from outside, facts that the folder cannot prove about itself. Leaves: findings, an exit code.
Never: writes, uses the network, or loads a framework except for a model architecture from outside the agent.

The conclusion about a run says

- *verified*;
- *not verified*: records contradict each other, or a record was removed;
- *cannot be verified*: a record kept by someone else is missing.

A run folder cannot vouch for itself. Facts from outside, such as the coordinator's key or an older checkpoint of its
log, come in a :class:`Reference`. The report lists every fact not given as not checked.

:func:`verify_run` returns a report. Here, a report by hand of a run whose folder lacks one site's ledger:

>>> from aegis.verification import Check, Finding, Verdict, VerificationReport
>>> audit = Finding(Check.AUDIT.label, Verdict.HOLDS, "12 entries")
>>> ledger = Finding(Check.LEDGERS.label, Verdict.MISSING, "ash has to export its ledger")
>>> report = VerificationReport((audit, ledger), failed=(), notices=())
>>> report.conclusion.value, report.exit_code, report.missing
('cannot be verified', 30, ('ash has to export its ledger',))
>>> VerificationReport((), failed=(Check.LEDGERS, Check.EPSILON), notices=()).exit_code  # the first check that failed
16
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
