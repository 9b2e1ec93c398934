"""The agent's connection over Flower: the tunnel to the gateway, and the SuperNode that polls through the tunnel.

The link needs the site's keys and no framework. The agent therefore opens the link before it loads the training
frameworks, and the two waits overlap: a killed agent is back in about half the time.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from coreason_enclave.agent.logs import AgentLog
from coreason_enclave.agent.supervision import Supervision
from coreason_enclave.agent.tunnel import opened_tunnel
from coreason_enclave.crypto import load_or_create_secret
from coreason_enclave.federation.flower import SuperNode
from coreason_enclave.site import Connection, load_node_key
from coreason_enclave.system import Backoff, SupervisedProcess


@dataclass
class FlowerLink:
    """Tunnel and SuperNode of one site; :func:`opened_link` opens them.

    Attributes:
        secret: shared secret that the executor of the SuperNode's tasks must present.
        arrived: set when the SuperNode has received a whole message.
    """

    connection: Connection
    supernode: SuperNode
    supervision: Supervision
    secret: bytes = field(repr=False)
    arrived: threading.Event


@contextmanager
def opened_link(folder: Path, keys: Path, connection: Connection, log: AgentLog) -> Iterator[FlowerLink]:
    """Open the tunnel and start the SuperNode; end both on exit. Call from the main thread.

    Args:
        folder: the site's folder.
        keys: the folder of the site's keys.

    Raises:
        ConfigurationError: a key or the SuperNode's program is missing or unusable.
    """
    load_node_key(keys)
    flower, arrived = folder / "flower", threading.Event()
    with opened_tunnel(connection, flower, on_received=arrived.set) as tunnel:
        secret_file = flower / "superexec.secret"
        secret = load_or_create_secret(secret_file)
        supernode = SuperNode(
            home=flower,
            keys=keys,
            superlink=tunnel.address,
            root_certificate=tunnel.certificate.path,
            secret_file=secret_file,
            log=folder / "logs" / "supernode.log",
        )
        child = SupervisedProcess("supernode", supernode.start, Backoff(1.0, 30.0, random.random))
        supervision = Supervision(child, tunnel, None, log)
        try:
            supervision.ensure_running()
            yield FlowerLink(connection, supernode, supervision, secret, arrived)
        finally:
            supervision.end()
