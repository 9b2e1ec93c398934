"""``coreason-enclave doctor``: checks whether a site can take part in a federation, and how to fix each problem.

Enters: a site's folder and configuration. Leaves: findings with a verdict and a remedy.
Never: changes keys, data or ledger; prints a count of rows; stops at the first broken check.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
