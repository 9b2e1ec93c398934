"""Makes the sites' answers to FLARE's administration of a job (resources, deployment, start) safe for FLARE to read.

FLARE assumes the answer object of its own client. Two kinds of answer stop the server's only job runner for all jobs:

- an unreadable answer, which raises in the runner;
- an answer that reports a failed start at one site.

The filter drops an unreadable answer and tolerates a failed start; the job begins without the site.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import Any, Final

from nvflare.apis.shareable import Shareable
from nvflare.private.admin_defs import Message as AdminMessage
from nvflare.private.admin_defs import MsgHeader, ReturnCode
from nvflare.private.defs import ERROR_MSG_PREFIX, TrainingTopic
from nvflare.private.scheduler_constants import ShareableHeader

from aegis.runtimes.nvflare.violations import Violations

_FIELDS: Final = frozenset({"id", "topic", "body", "headers"})


def without_unreadable(replies: Sequence[Any], strikes: Violations) -> Sequence[Any]:
    """Return FLARE's ``ClientReply`` objects, with each unreadable answer removed and reported as a violation."""
    for each in replies:
        if each.reply is not None and not _is_readable(each.reply, each.request):
            strikes.report(each.client_name, "answers FLARE's administration with an unreadable reply")
            each.reply = None
    return replies


def note_failures(replies: Sequence[Any], client_sites: Collection[str], command: str, **_: Any) -> list[str]:
    """Log failed starts. Replaces FLARE's check, which ends the job for all sites after one site's failure."""
    for each in replies:
        body = getattr(each.reply, "body", None)
        if isinstance(body, str) and body.startswith(ERROR_MSG_PREFIX):
            logging.getLogger(__name__).warning("%s, %d sites: %s failed", command, len(client_sites), each.client_name)
    return []


def _is_readable(reply: Any, request: Any) -> bool:
    if type(reply) is not AdminMessage or vars(reply).keys() != _FIELDS:
        return False
    headers, body = reply.headers, reply.body
    if type(headers) is not dict or not all(isinstance(key, str) for key in headers):
        return False
    code = headers.get(MsgHeader.RETURN_CODE, ReturnCode.OK)
    if getattr(request, "topic", None) == TrainingTopic.CHECK_RESOURCE and code == ReturnCode.OK:
        return isinstance(body, Shareable) and _has_resource_reply(body)
    return isinstance(code, str) and type(body) in (type(None), str, bytes, dict, list)


def _has_resource_reply(body: Shareable) -> bool:
    """Return True if the body has a readable resource flag and token."""
    try:
        enough = body.get_header(ShareableHeader.IS_RESOURCE_ENOUGH, False)
        token = body.get_header(ShareableHeader.RESOURCE_RESERVE_TOKEN, "")
    except (AttributeError, TypeError, ValueError):  # the headers are not a mapping
        return False
    return isinstance(enough, bool) and isinstance(token, str)
