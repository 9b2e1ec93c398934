"""Decides which messages a FLARE client or administrator may send to FLARE's server; the gate refuses all others.

FLARE connects its processes by cells, which address each other by name: ``server``, ``server.<job>``, ``<site>``,
``<site>.<job>``. A request names a channel and a topic; a streamed request names both in the stream's headers.

FLARE itself only authenticates connections. From a connected peer it accepts nearly every message that any of its cells
understands: events that end a job, commands of the server's own processes, bulk messages with nested messages.

A message passes if

1. its origin lies at or below the sender: the administrator's cell, or the site's own top cell;
2. its name fits its certificate: an administrator's bears an e-mail address, a site's does not (as provisioned);
3. its destination is the server, one of the server's jobs, or a cell of the sender's own;
4. its payload is not encrypted for the cell, because encryption would hide the payload from this check;
5. its request appears in the lists here; an answer must belong to a request that FLARE's server sends to sites.

The rules exempt the server's own processes. A violation carries the site's name, so that the coordinator can
quarantine the site.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from nvflare.apis.fl_constant import ReservedTopic, ServerCommandNames
from nvflare.fuel.f3.cellnet.defs import CellChannel, CellChannelTopic, MessageHeaderKey, MessagePropKey, MessageType
from nvflare.fuel.f3.endpoint import Endpoint
from nvflare.fuel.f3.message import Message
from nvflare.fuel.f3.streaming.download_service import OBJ_DOWNLOADER_CHANNEL
from nvflare.fuel.f3.streaming.stream_const import (
    STREAM_ACK_TOPIC,
    STREAM_CHANNEL,
    STREAM_DATA_TOPIC,
    STREAM_ERROR_TOPIC,
    StreamHeaderKey,
)
from nvflare.fuel.utils.admin_name_utils import is_valid_admin_client_name
from nvflare.private.stream_runner import TOPIC_STREAM_ABORT, TOPIC_STREAM_REQUEST

SERVER: Final = "server"

_ANY: Final = "*"
_Topics = frozenset[tuple[str, str]]

_MEMBERSHIP: Final[_Topics] = frozenset(
    {
        (CellChannel.SERVER_MAIN, CellChannelTopic.Challenge),
        (CellChannel.SERVER_MAIN, CellChannelTopic.Register),
        (CellChannel.CELLNET, CellChannelTopic.Bye),
    }
)
_SITE_ASKS_SERVER: Final[_Topics] = _MEMBERSHIP | {
    (CellChannel.SERVER_MAIN, CellChannelTopic.Quit),
    (CellChannel.SERVER_MAIN, CellChannelTopic.HEART_BEAT),
    (CellChannel.SERVER_MAIN, CellChannelTopic.REPORT_JOB_FAILURE),
}
_SITE_STREAMS_TO_JOB: Final[_Topics] = frozenset(
    {
        (CellChannel.SERVER_COMMAND, ServerCommandNames.GET_TASK),
        (CellChannel.SERVER_COMMAND, ServerCommandNames.SUBMIT_UPDATE),
        (CellChannel.AUX_COMMUNICATION, ReservedTopic.SYNC_RUNNER),
        (CellChannel.AUX_COMMUNICATION, ReservedTopic.JOB_HEART_BEAT),
        (CellChannel.AUX_COMMUNICATION, ReservedTopic.TASK_CHECK),
    }
)
_ADMIN_STREAMS_TO_SERVER: Final[_Topics] = frozenset(
    {
        (CellChannel.HCI, _ANY),
        (CellChannel.AUX_COMMUNICATION, TOPIC_STREAM_REQUEST),
        (CellChannel.AUX_COMMUNICATION, TOPIC_STREAM_ABORT),
        (OBJ_DOWNLOADER_CHANNEL, _ANY),
    }
)
_SITE_ANSWERS: Final = frozenset({CellChannel.CLIENT_MAIN, CellChannel.CELLNET})
"""Channels of the server's requests to sites: FLARE's administration of a job, and a cell's goodbye."""


@dataclass(frozen=True)
class Refused:
    """A refused message.

    Attributes:
        sender: the site, or the administrator's address; None if the connection names no peer.
        why: reason for the log and the site's record, free of text from the sender.
    """

    sender: str | None
    why: str


def sender_of(message: Message) -> str | None:
    """Return the cell that answers for a message, by its connection; None for the server's own processes.

    A job's cell is connected only to the server's cell, which has checked the origin of each forwarded message.
    """
    endpoint = message.get_prop(MessagePropKey.ENDPOINT)
    connected = endpoint.name if isinstance(endpoint, Endpoint) else ""
    if not _is_servers(connected):
        return connected
    origin = message.get_header(MessageHeaderKey.ORIGIN)
    return None if not isinstance(origin, str) or _is_servers(origin) else origin


def refused(message: Message) -> Refused | None:
    """Return the refusal of a message; None if the message may pass."""
    sender = sender_of(message)
    if sender is None:
        return None
    is_admin = bool(is_valid_admin_client_name(sender))
    common_name = message.get_prop(MessagePropKey.COMMON_NAME)
    name = common_name if is_admin and isinstance(common_name, str) else _root(sender)
    why = _identity(message, sender, is_admin, common_name) or (_of_admin if is_admin else _of_site)(message, sender)
    return None if why is None else Refused(name or None, why)


def disarm(message: Message) -> None:
    """Remove headers from a passing message that make FLARE's server connect elsewhere, read on, or end its job:

    - an address to connect to;
    - a request to fetch large parts from a cell of the sender's choice;
    - the error type on which a job's process exits when a stream's receiver reports it.
    """
    for header in (MessageHeaderKey.CONN_URL, MessageHeaderKey.PASS_THROUGH, StreamHeaderKey.ERROR_TYPE):
        message.remove_header(header)


def _identity(message: Message, sender: str, is_admin: bool, common_name: Any) -> str | None:
    if not sender:
        return "the connection names no cell"
    if isinstance(common_name, str) and ("@" in common_name) != is_admin:
        return "the certificate does not match the kind of cell"
    if not _is_within(message.get_header(MessageHeaderKey.ORIGIN), sender if is_admin else _root(sender)):
        return "the origin is not the sender's"
    if message.get_header(MessageHeaderKey.ENCRYPTED, False):
        return "the payload is encrypted for the cell"
    return None


def _of_admin(message: Message, sender: str) -> str | None:
    del sender
    if message.get_header(MessageHeaderKey.DESTINATION) != SERVER:
        return "an administrator's message to another cell than the server"
    if message.get_header(MessageHeaderKey.MSG_TYPE) != MessageType.REQ:
        return None if message.get_header(MessageHeaderKey.MSG_TYPE) == MessageType.REPLY else "is no request or reply"
    return _unlisted(message, _MEMBERSHIP, _ADMIN_STREAMS_TO_SERVER)


def _of_site(message: Message, sender: str) -> str | None:
    destination, kind = (message.get_header(key) for key in (MessageHeaderKey.DESTINATION, MessageHeaderKey.MSG_TYPE))
    if _is_within(destination, _root(sender)):
        return None
    is_job = isinstance(destination, str) and destination.startswith(f"{SERVER}.") and destination.count(".") == 1
    if not is_job and destination != SERVER:
        return "a message to a cell of another site"
    if kind == MessageType.REQ:
        return (
            _unlisted(message, frozenset(), _SITE_STREAMS_TO_JOB) if is_job else _unlisted(message, _SITE_ASKS_SERVER)
        )
    if kind == MessageType.RETURN:
        return _undeliverable(message, sender)
    if kind == MessageType.REPLY and message.get_header(MessageHeaderKey.CHANNEL) in _SITE_ANSWERS:
        return None
    return "a reply without a request"


def _undeliverable(message: Message, sender: str) -> str | None:
    """Return a reason unless a site's cell returns a message that it could not pass to a cell below."""
    headers = message.get_header(MessageHeaderKey.ORIGINAL_HEADERS)
    meant_for = headers.get(MessageHeaderKey.DESTINATION) if isinstance(headers, dict) else None
    return None if _is_within(meant_for, _root(sender)) else "returns a message that was not sent to the site"


def _unlisted(message: Message, requested: _Topics, streamed: _Topics = frozenset()) -> str | None:
    channel, topic = message.get_header(MessageHeaderKey.CHANNEL), message.get_header(MessageHeaderKey.TOPIC)
    if channel != STREAM_CHANNEL:
        return None if _listed(channel, topic, requested) else _named("asks", channel, topic)
    if topic in (STREAM_ACK_TOPIC, STREAM_ERROR_TOPIC):
        return None
    channel, inner = message.get_header(StreamHeaderKey.CHANNEL), message.get_header(StreamHeaderKey.TOPIC)
    if topic == STREAM_DATA_TOPIC and _listed(channel, inner, streamed):
        return None
    return _named("streams", channel, inner)


def _listed(channel: Any, topic: Any, those: _Topics) -> bool:
    if not (isinstance(channel, str) and isinstance(topic, str)):
        return False
    return (channel, topic) in those or (channel, _ANY) in those


def _named(verb: str, channel: Any, topic: Any) -> str:
    """Return a reason that quotes channel and topic only if short and printable: a sender chooses both freely."""
    known = f"{channel}:{topic}"
    return (
        f"{verb} {known}"
        if len(known) <= 80 and known.isascii() and known.isprintable()
        else f"{verb} an unknown channel or topic"
    )


def _is_servers(name: str) -> bool:
    return name == SERVER or name.startswith(f"{SERVER}.")


def _root(name: str) -> str:
    return name.split(".", 1)[0]


def _is_within(name: Any, family: str) -> bool:
    return isinstance(name, str) and bool(family) and (name == family or name.startswith(f"{family}."))
