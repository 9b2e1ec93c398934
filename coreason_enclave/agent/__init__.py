"""The site agent: the long-lived process with data, keys, ledger and session, one SuperNode, one tunnel, one socket.

Enters: sealed orders, over Flower or the site's socket. Leaves: sealed answers, refusals, health statements, log lines.
Never: runs twice in one site folder; answers two messages at a time; logs a row, a weight or a key.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
