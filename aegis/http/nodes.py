"""What each site's node may ask for, from what it was given before; and how it fares.

Flower's SuperLink checks that a request's node id belongs to the key that signed it, and no more: whoever knows an
object's id can read the object. Here a node reads only what belongs to messages that it was given itself, and sends
only what it was asked for.
"""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import ValidationError

from aegis.errors import RequestRefused
from aegis.http.inspection import NodeRequest, Pulled, Pushed, UploadHead
from coreason_enclave.errors import Reason
from coreason_enclave.files import replace_file
from coreason_enclave.orders import HealthStatement
from coreason_enclave.schemas import FormatVersion, SafeId, StrictModel, in_range

__all__ = ["NodeBook", "NodeState"]

_KEPT = 4
"""Messages a node: Flower's node handles one at a time, the others are for its retries."""

_log = logging.getLogger(__name__)
_Value = TypeVar("_Value")
_Count = Annotated[int, *in_range(0, (1 << 64) - 1)]


class KnownNode(StrictModel):
    """What is kept of a node over a restart of the gateway."""

    node_key: str
    node_id: _Count | None
    activations: _Count


class _Book(StrictModel):
    version: FormatVersion = 1
    nodes: dict[SafeId, KnownNode]


@dataclass
class NodeState:
    """One site's node.

    Attributes:
        node_id: by SuperLink's word. connected, last_poll, last_seen, activations: as in
            :class:`aegis.http.status.SiteStatus`.
        doubtful: it may have been given a message of which nothing is known here.
    """

    node_key: str
    node_id: int | None = None
    activations: int = 0
    doubtful: bool = False
    connected: bool = False
    last_poll: float | None = None
    last_request: float | None = None
    _pulled: OrderedDict[str, Pulled] = field(default_factory=OrderedDict)
    _pushed: OrderedDict[str, tuple[int, Pushed]] = field(default_factory=OrderedDict)
    _open: str | None = None
    _owed: set[str] = field(default_factory=set)

    def check(self, request: NodeRequest, *, public_key: bytes) -> None:
        """Refuse a request in another's name, or for another's objects.

        Args:
            public_key: the node key's bytes.
        """
        if request.public_key is not None and request.public_key != public_key:
            raise RequestRefused(Reason.UNKNOWN_SIGNER, "an activation for another node key")
        if request.node_id is not None:
            self._check_node(request.node_id)
        if request.object_id is not None and not self._was_given(request.run_id, request.object_id):
            raise RequestRefused(Reason.NOT_ADDRESSED_TO_ME, "an object of no message that this node was given")

    def check_upload(self, head: UploadHead) -> None:
        """Refuse an object that this node was not asked for."""
        self._check_node(head.node_id)
        if not any(self._asks(pushed, head) for pushed in self._pushed.values()):
            raise RequestRefused(Reason.NOT_ADDRESSED_TO_ME, "an object that this node was not asked for")

    def check_session(self, head: UploadHead, session_id: str) -> None:
        """Refuse an object for another session than the one that it was asked for in."""
        pushed = self._pushed.get(session_id)
        if pushed is None or not self._asks(pushed, head):
            raise RequestRefused(Reason.NOT_ADDRESSED_TO_ME, "an object for another session")

    def learn(self, node_id: int | None) -> None:
        """SuperLink accepted a request in this id's name, and it had authenticated the node."""
        if node_id is not None:
            self.node_id = node_id

    def activate(self, node_id: int) -> None:
        """It joined: what it was given before is forgotten."""
        self.node_id, self.doubtful, self._open = node_id, False, None
        self.activations += 1
        for known in (self._pulled, self._pushed, self._owed):
            known.clear()

    def ask(self) -> bool:
        """It asks for a message. A node handles one at a time, so what it has not answered by now is lost to it.

        Returns:
            whether something was lost, which counts as an activation.
        """
        lost = self.doubtful or self._open is not None or bool(self._owed)
        self.doubtful, self._open = False, None
        self._owed.clear()
        self.activations += lost
        return lost

    def give(self, pulled: Pulled) -> None:
        """It is given a message."""
        self._open = pulled.message_id
        _keep(self._pulled, pulled.message_id, pulled)

    def answer(self, request: NodeRequest, pushed: Pushed) -> None:
        """SuperLink took its answer and asks for these objects."""
        if request.reply_to == self._open:
            self._open, self._owed = None, set(pushed.object_ids)
        _keep(self._pushed, pushed.session_id, (request.run_id or 0, pushed))

    def uploaded(self, head: UploadHead) -> None:
        """SuperLink took an object."""
        self._owed.discard(head.object_id)

    def _check_node(self, node_id: int) -> None:
        # While the id is not known, SuperLink alone decides: it knows which id belongs to the key that signed.
        if self.node_id is not None and node_id != self.node_id:
            raise RequestRefused(Reason.NOT_ADDRESSED_TO_ME, "a request in the name of another node")

    def _was_given(self, run_id: int | None, object_id: str) -> bool:
        return any(pulled.run_id == run_id and object_id in pulled.object_ids for pulled in self._pulled.values())

    @staticmethod
    def _asks(pushed: tuple[int, Pushed], head: UploadHead) -> bool:
        run_id, asked = pushed
        return run_id == head.run_id and head.object_id in asked.object_ids


class NodeBook:
    """Every site's node. Node ids and counts of activations outlive the gateway, in one small file.

    Args:
        path: of that file; missing is a first start, damaged is one too, and said in the log.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._nodes = {
            site_id: NodeState(known.node_key, known.node_id, known.activations, doubtful=True)
            for site_id, known in _read(path).items()
        }
        self.health: dict[str, tuple[float, HealthStatement]] = {}

    def node(self, site_id: str, node_key: str) -> NodeState:
        """The node of a site; a new one where its key has changed."""
        known = self._nodes.get(site_id)
        if known is None or known.node_key != node_key:
            activations = 0 if known is None else known.activations
            known = self._nodes[site_id] = NodeState(node_key, activations=activations)
        return known

    def known(self, site_id: str) -> NodeState | None:
        """The node of a site, if it was ever heard of."""
        return self._nodes.get(site_id)

    def save(self) -> None:
        """Make ids and counts durable."""
        nodes = {
            site: KnownNode(node_key=node.node_key, node_id=node.node_id, activations=node.activations)
            for site, node in self._nodes.items()
        }
        replace_file(self._path, _Book(nodes=nodes).canonical())


def _read(path: Path) -> Mapping[str, KnownNode]:
    try:
        return _Book.model_validate(json.loads(path.read_bytes())).nodes
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, ValidationError) as error:
        _log.warning("%s is not usable and begins anew: %s", path.name, type(error).__name__)
        return {}


def _keep(kept: OrderedDict[str, _Value], key: str, value: _Value) -> None:
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > _KEPT:
        kept.popitem(last=False)
