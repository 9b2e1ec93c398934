"""The deployed runtime: coordinator, SuperLink, gateway and sites run as processes, and Flower carries the messages.

Enters: sealed messages of a coordinator. Leaves: sealed replies and delivery failures by authenticated node.
Never: opens a sealed message, or runs app code from the network.

On the platform's side only this package, :mod:`aegis.runtimes.in_process` and :mod:`aegis.federated_coordinator` import
Flower. Each internal interface of Flower has one wrapper here, and one test that fails when an upgrade moves the
interface.

>>> from pathlib import Path
>>> from tempfile import TemporaryDirectory
>>> from aegis.federation import FederationFolder
>>> from aegis.runtimes.flower import FederationHost
>>> with TemporaryDirectory() as folder:
...     host = FederationHost(FederationFolder(Path(folder)))
...     host.running(), host.state(), host.gateway_answers()
(False, None, False)
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
