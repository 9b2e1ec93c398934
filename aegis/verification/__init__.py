"""Offline verification of a run folder: checks the run's claims against its own records, and trusts no stated number.

Enters: a run folder and, from outside, facts that the folder cannot prove about itself. Leaves: findings, an exit code.
Never: writes, uses the network, or loads a framework except for a model architecture from outside the agent.

::

    report = verify_run(Path("runs/latest"))
    report.conclusion, report.exit_code
    for finding in report.findings: ...

The conclusion about a run says

- *verified*;
- *not verified*: records contradict each other, or a record was removed;
- *cannot be verified*: a record kept by someone else is missing.

A run folder cannot vouch for itself. Facts from outside, such as the coordinator's key or an older checkpoint of its
log, come in a :class:`Reference`. The report lists every fact not given as not checked.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
