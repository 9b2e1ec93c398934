"""Registry of the sites' nodes: limits each node to the messages delivered to this node.

Why: Flower's SuperLink checks only that a request's node id belongs to the signing key. Any node that knows an object's
id can read the object. The gateway adds two rules:

- a node reads only objects of messages delivered to this node;
- a node uploads only objects that SuperLink requested from this node.
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
from aegis.gateway.fleet_protocol import NodeRequest, Pulled, Pushed, UploadHead
from coreason_enclave.errors import Reason
from coreason_enclave.schemas import FormatVersion, SafeId, StrictModel, in_range
from coreason_enclave.system import replace_file
from coreason_enclave.wire import HealthStatement

_KEPT = 4
"""Messages remembered per node. Flower's node handles one at a time; the rest serve its retries."""
ANSWER_SLACK_BYTES = (1 << 20) + (1 << 16)
"""Bytes by which a reply may exceed its message: the envelope with evidence, and Flower's own framing."""

_log = logging.getLogger(__name__)
_Value = TypeVar("_Value")
_Count = Annotated[int, *in_range(0, (1 << 64) - 1)]


class KnownNode(StrictModel):
    """The part of a node's state that survives a restart of the gateway."""

    node_key: str
    node_id: _Count | None
    activations: _Count
    largest_message: _Count = 0


class _Book(StrictModel):
    version: FormatVersion = 1
    nodes: dict[SafeId, KnownNode]


@dataclass
class _Given:
    """A message delivered to a node, with the bytes fetched and the bytes answered, by object, as transmitted.

    Attributes:
        floor: assumed message size in bytes, where the actual size is unknown.
    """

    floor: int = 0
    fetched: dict[str, int] = field(default_factory=dict)
    answered: dict[str, int] = field(default_factory=dict)

    def left(self, object_id: str) -> int:
        """Return the maximum size in bytes of this object of the reply.

        Bound: a reply is no larger than its message, the envelope apart. An order carries the whole model, and its
        update has the same layout. A message without a model gets a reply without a model.
        """
        others = sum(size for name, size in self.answered.items() if name != object_id)
        return max(self.floor, sum(self.fetched.values())) + ANSWER_SLACK_BYTES - others


@dataclass(frozen=True)
class _Poll:
    """Reply objects that SuperLink requested from a node."""

    run_id: int
    reply_to: str
    pushed: Pushed


@dataclass
class NodeState:
    """The state of a site's node.

    Attributes:
        node_id: assigned by SuperLink.
        connected, last_poll, activations: see :class:`aegis.gateway.status.SiteStatus`.
        last_request: time of the node's last request, Unix seconds.
        delivery_uncertain: the node may hold a message unknown to the gateway.
        largest_message: bytes of the largest message ever fetched.
        oversized: ids of the latest messages with a reply above the size limit.
    """

    node_key: str
    node_id: int | None = None
    activations: int = 0
    delivery_uncertain: bool = False
    connected: bool = False
    last_poll: float | None = None
    last_request: float | None = None
    largest_message: int = 0
    oversized: OrderedDict[str, None] = field(default_factory=OrderedDict)
    _pulled: OrderedDict[str, Pulled] = field(default_factory=OrderedDict)
    _given: OrderedDict[str, _Given] = field(default_factory=OrderedDict)
    _pushed: OrderedDict[str, _Poll] = field(default_factory=OrderedDict)
    _open: str | None = None
    _expected_uploads: set[str] = field(default_factory=set)

    def check(self, request: NodeRequest, *, public_key: bytes) -> None:
        """Refuse a request in another node's name or for another node's objects.

        Args:
            public_key: the node key's bytes.
        """
        if request.public_key is not None and request.public_key != public_key:
            raise RequestRefused(Reason.UNKNOWN_SIGNER, "an activation for another node key")
        if request.node_id is not None:
            self._check_node(request.node_id)
        if request.object_id is not None and not self._was_given(request.run_id, request.object_id):
            raise RequestRefused(Reason.NOT_ADDRESSED_TO_ME, "an object of no message that this node was given")
        if request.reply_to is not None and request.reply_to not in self._given and not self.delivery_uncertain:
            raise RequestRefused(Reason.NOT_ADDRESSED_TO_ME, "an answer to no message that this node was given")

    def check_upload(self, head: UploadHead, size: int) -> None:
        """Refuse an unrequested object, or an object that makes the reply too large.

        Args:
            size: the upload's declared size in bytes.
        """
        self._check_node(head.node_id)
        asked = next((asked for asked in reversed(self._pushed.values()) if self._asks(asked, head)), None)
        if asked is None:
            raise RequestRefused(Reason.NOT_ADDRESSED_TO_ME, "an object that this node was not asked for")
        most = self._given[asked.reply_to].left(head.object_id) if asked.reply_to in self._given else 0
        if size > most:
            _keep(self.oversized, asked.reply_to, None)
            raise RequestRefused(Reason.OVERSIZED, f"{size} bytes in an answer with {most} left: the model is smaller")

    def check_session(self, head: UploadHead, session_id: str) -> None:
        """Refuse an object that belongs to another upload session."""
        asked = self._pushed.get(session_id)
        if asked is None or not self._asks(asked, head):
            raise RequestRefused(Reason.NOT_ADDRESSED_TO_ME, "an object for another session")

    def record_node_id(self, node_id: int | None) -> None:
        """Record a node id after SuperLink authenticated the node and accepted its request."""
        if node_id is not None:
            self.node_id = node_id

    def activate(self, node_id: int) -> None:
        """Record that the node joined, and forget all earlier deliveries."""
        self.node_id, self.delivery_uncertain, self._open = node_id, False, None
        self.activations += 1
        for known in (self._pulled, self._given, self._pushed, self._expected_uploads):
            known.clear()

    def ask(self) -> bool:
        """Record a poll. A node handles one message at a time, so any unanswered message is now lost.

        Returns:
            True if the node lost a message, which counts as an activation.
        """
        lost = self.delivery_uncertain or self._open is not None or bool(self._expected_uploads)
        self.delivery_uncertain, self._open = False, None
        self._expected_uploads.clear()
        self.activations += lost
        return lost

    def record_delivery(self, pulled: Pulled) -> None:
        """Record that the node received a message."""
        self._open = pulled.message_id
        _keep(self._pulled, pulled.message_id, pulled)
        _keep(self._given, pulled.message_id, _Given())

    def fetched(self, request: NodeRequest, size: int) -> bool:
        """Record a fetched object of ``size`` bytes.

        Returns:
            True if a message grew beyond the node's previous maximum, which the caller then saves.
        """
        for message_id, pulled in self._pulled.items():
            if pulled.run_id == request.run_id and request.object_id in pulled.object_ids and message_id in self._given:
                given = self._given[message_id]
                given.fetched[request.object_id] = max(size, given.fetched.get(request.object_id, 0))
        largest = max((sum(given.fetched.values()) for given in self._given.values()), default=0)
        grown = largest > self.largest_message
        self.largest_message = max(largest, self.largest_message)
        return grown

    def answer(self, request: NodeRequest, pushed: Pushed) -> None:
        """Record that SuperLink accepted the node's reply and requests the objects in ``pushed``."""
        if request.reply_to == self._open:
            self._open, self._expected_uploads = None, set(pushed.object_ids)
        reply_to = request.reply_to or ""
        if reply_to not in self._given:  # delivered before the gateway restarted
            _keep(self._given, reply_to, _Given(self.largest_message))
        _keep(self._pushed, pushed.session_id, _Poll(request.run_id or 0, reply_to, pushed))

    def record_upload(self, head: UploadHead, size: int) -> None:
        """Record that SuperLink accepted an object of ``size`` bytes."""
        self._expected_uploads.discard(head.object_id)
        for asked in self._pushed.values():
            if self._asks(asked, head) and asked.reply_to in self._given:
                self._given[asked.reply_to].answered[head.object_id] = size

    def _check_node(self, node_id: int) -> None:
        # While the gateway does not know the id, SuperLink alone decides: it maps the signing key to its id.
        if self.node_id is not None and node_id != self.node_id:
            raise RequestRefused(Reason.NOT_ADDRESSED_TO_ME, "a request in the name of another node")

    def _was_given(self, run_id: int | None, object_id: str) -> bool:
        return any(pulled.run_id == run_id and object_id in pulled.object_ids for pulled in self._pulled.values())

    @staticmethod
    def _asks(asked: _Poll, head: UploadHead) -> bool:
        return asked.run_id == head.run_id and head.object_id in asked.pushed.object_ids


class NodeRegistry:
    """The nodes of all sites. A small file keeps node ids, activation counts and message sizes over restarts.

    Args:
        path: the file. If missing or damaged, the registry starts empty; damage is logged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._nodes = {
            site_id: NodeState(
                known.node_key,
                known.node_id,
                known.activations,
                delivery_uncertain=True,
                largest_message=known.largest_message,
            )
            for site_id, known in _read(path).items()
        }
        self.health: dict[str, tuple[float, HealthStatement]] = {}

    def node(self, site_id: str, node_key: str) -> NodeState:
        """Return a site's node; a changed node key creates a new node."""
        known = self._nodes.get(site_id)
        if known is None or known.node_key != node_key:
            activations = 0 if known is None else known.activations
            known = self._nodes[site_id] = NodeState(node_key, activations=activations)
        return known

    def known(self, site_id: str) -> NodeState | None:
        """Return a site's node, or None if the site never connected."""
        return self._nodes.get(site_id)

    def save(self) -> None:
        """Write node ids, activation counts and message sizes to the file."""
        nodes = {
            site: KnownNode(
                node_key=node.node_key,
                node_id=node.node_id,
                activations=node.activations,
                largest_message=node.largest_message,
            )
            for site, node in self._nodes.items()
        }
        replace_file(self._path, _Book(nodes=nodes).canonical())


def _read(path: Path) -> Mapping[str, KnownNode]:
    try:
        return _Book.model_validate(json.loads(path.read_bytes())).nodes
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, ValidationError) as error:
        _log.warning("%s is not usable, so it starts empty: %s", path.name, type(error).__name__)
        return {}


def _keep(kept: OrderedDict[str, _Value], key: str, value: _Value) -> None:
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > _KEPT:
        kept.popitem(last=False)
