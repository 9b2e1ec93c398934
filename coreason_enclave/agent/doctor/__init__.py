"""``coreason-enclave doctor``: checks whether a site can take part in a federation, and how to fix each problem.

Enters: a site's folder and configuration. Leaves: findings with a verdict and a remedy.
Never: changes keys, data or ledger; prints a count of rows; stops at the first broken check.

>>> from coreason_enclave.agent.doctor import Diagnosis, DiagnosisLevel, examined_safely
>>> def disk(site):
...     yield Diagnosis("disk", DiagnosisLevel.OK, "20.0 GiB free")
...     raise PermissionError(13, "Permission denied", "ledger.sqlite")
>>> for finding in examined_safely("disk", disk, site=None):
...     print(finding.verdict, finding.check, "-", finding.found)
ok disk - 20.0 GiB free
FAIL disk - ledger.sqlite: Permission denied
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
