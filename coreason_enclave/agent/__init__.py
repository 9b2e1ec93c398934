"""The site agent: the long-lived process with data, keys, ledger and session, one SuperNode, one tunnel, one socket.

Enters: sealed orders, over Flower or the site's socket. Leaves: sealed answers, refusals, health statements, log lines.
Never: runs twice in one site folder; answers two messages at a time; logs a row, a weight or a key.

>>> from pathlib import Path
>>> from tempfile import TemporaryDirectory
>>> from coreason_enclave.agent import run_agent
>>> from coreason_enclave.errors import ConfigurationError
>>> from coreason_enclave.system import file_lock
>>> with TemporaryDirectory() as site, file_lock(Path(site) / "agent.lock"):  # as a running agent does
...     try:
...         run_agent(Path(site))
...     except ConfigurationError as error:
...         print(str(error).replace(site, "SITE"))
an agent already runs for SITE: coreason-enclave status shows it
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
