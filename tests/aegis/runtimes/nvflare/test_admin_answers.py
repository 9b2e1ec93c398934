"""What a site answers to FLARE's administration either is what FLARE's own client says, or is taken for no answer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from nvflare.apis.shareable import Shareable
from nvflare.private.admin_defs import Message as AdminMessage
from nvflare.private.admin_defs import error_reply, ok_reply
from nvflare.private.defs import ERROR_MSG_PREFIX, TrainingTopic
from nvflare.private.scheduler_constants import ShareableHeader

from aegis.runtimes.nvflare.admin_answers import note_failures, without_unreadable
from aegis.runtimes.nvflare.violations import Violations


def resources(**headers: Any) -> Shareable:
    shareable = Shareable()
    for name, value in {"_is_resource_enough": True, "_resource_reserve_token": "token", **headers}.items():
        shareable.set_header(name, value)
    return shareable


def changed(**attributes: Any) -> AdminMessage:
    reply = ok_reply(body="started")
    vars(reply).update(attributes)
    return reply


def headless() -> Shareable:
    shareable = Shareable()
    shareable["__headers__"] = [1]
    return shareable


START, CHECK = TrainingTopic.START_JOB, TrainingTopic.CHECK_RESOURCE
READABLE = {
    "nothing": (START, None),
    "a start": (START, ok_reply(body="Start the client app...")),
    "a refusal": (START, error_reply("no")),
    "a refused start": (START, ok_reply(body=f"{ERROR_MSG_PREFIX}: no")),
    "resources": (CHECK, ok_reply(body=resources())),
    "no resources": (CHECK, ok_reply(body=resources(_is_resource_enough=False, _resource_reserve_token=""))),
    "a check that failed": (CHECK, error_reply("no")),
}
UNREADABLE = {
    "a mapping": (START, {"body": "started"}),
    "text": (START, "started"),
    "an answer with a method of its own": (START, changed(get_header="no method")),
    "an answer without a body": (START, AdminMessage.__new__(AdminMessage)),
    "headers that are a list": (START, changed(headers=[])),
    "headers without names": (START, changed(headers={1: 2})),
    "a return code that is none": (START, changed(headers={"_rtnCode": 3})),
    "a body that is an object": (START, changed(body=resources())),
    "resources as text": (CHECK, ok_reply(body="lots")),
    "resources as a number": (CHECK, ok_reply(body=resources(_is_resource_enough=1))),
    "a token that is a list": (CHECK, ok_reply(body=resources(_resource_reserve_token=[]))),
    "resources without headers": (CHECK, ok_reply(body=headless())),
}


def answered(topic: str, reply: Any) -> tuple[Any, list[tuple[str, str]]]:
    told = list[tuple[str, str]]()
    strikes = Violations()
    strikes.subscribe(lambda site, why: told.append((site, why)))
    each = SimpleNamespace(client_name="clinic-1", request=AdminMessage(topic, ""), reply=reply)
    without_unreadable([each], strikes)
    return each.reply, told


@pytest.mark.parametrize(("topic", "reply"), READABLE.values(), ids=READABLE)
def test_what_flares_own_client_answers_is_kept(topic: str, reply: Any) -> None:
    assert answered(topic, reply) == (reply, [])


@pytest.mark.parametrize(("topic", "reply"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_flare_could_not_read_is_no_answer(topic: str, reply: Any) -> None:
    assert answered(topic, reply) == (None, [("clinic-1", "answers FLARE's administration with an unreadable reply")])


def test_one_site_that_cannot_start_is_named_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    replies = [
        SimpleNamespace(client_name="clinic-1", reply=ok_reply(body=f"{ERROR_MSG_PREFIX}: a row of mine")),
        SimpleNamespace(client_name="clinic-2", reply=ok_reply(body="started")),
        SimpleNamespace(client_name="clinic-3", reply=None),
    ]

    assert note_failures(replies=replies, client_sites=["a", "b", "c"], command="start job (1)", strict=False) == []
    assert [record.getMessage() for record in caplog.records] == ["start job (1), 3 sites: clinic-1 failed"]


def test_the_headers_are_named_as_they_were() -> None:
    assert ShareableHeader.IS_RESOURCE_ENOUGH == "_is_resource_enough"
    assert ShareableHeader.RESOURCE_RESERVE_TOKEN == "_resource_reserve_token"
