"""Sealed messages in FLARE's own form, and the one table from reasons to return codes."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import Shareable
from nvflare.fuel.utils import fobs
from nvflare.private.fed.server.server_runner import ServerRunner

from coreason_enclave.errors import EnvelopeError, Reason
from coreason_enclave.federation.nvflare.messages import (
    REASON_HEADER,
    RETURN_CODES,
    message_in,
    nothing_to_tell,
    refusal,
    sealed_reply,
)
from coreason_enclave.wire.updates import SealedMessage


def test_every_reason_has_a_return_code_of_flares() -> None:
    known = {value for name, value in vars(ReturnCode).items() if name.isupper()}

    assert RETURN_CODES.keys() == set(Reason)
    assert set(RETURN_CODES.values()) <= known - {ReturnCode.OK}


def test_no_refusal_ends_the_whole_job() -> None:
    assert not set(RETURN_CODES.values()) & set(ServerRunner.ABORT_RETURN_CODES)


def test_the_codes_that_flare_itself_acts_on_mean_what_they_say() -> None:
    assert RETURN_CODES[Reason.ABORTED] == ReturnCode.TASK_ABORTED
    assert [reason for reason, code in RETURN_CODES.items() if code == ReturnCode.TASK_ABORTED] == [Reason.ABORTED]
    assert RETURN_CODES[Reason.UNSUPPORTED] == ReturnCode.TASK_UNSUPPORTED


@pytest.mark.parametrize("reason", Reason)
def test_a_refusal_is_a_code_and_a_reason_and_nothing_more(reason: Reason) -> None:
    reply = refusal(reason)

    assert dict(reply) == {"__headers__": {"__rc__": RETURN_CODES[reason], REASON_HEADER: reason.value}}


@settings(deadline=None)
@given(st.builds(SealedMessage, st.binary(max_size=200), st.binary(max_size=200), st.binary(max_size=200)))
def test_a_message_passes_flares_serialiser_byte_for_byte(message: SealedMessage) -> None:
    assert message_in(fobs.loads(fobs.dumps(sealed_reply(message)))) == message


def test_a_validation_tells_nothing() -> None:
    assert nothing_to_tell()["DXO"] == {"kind": DataKind.METRICS, "data": {}, "meta": {}}


PARTS = {"envelope": b"e", "arrays": b"a", "roll_call": b"r"}


@pytest.mark.parametrize(
    "shareable",
    [
        Shareable(),
        Shareable({"envelope": b"e", "arrays": b"a", "roll_call": b"r"}),
        DXO(DataKind.WEIGHTS, data=PARTS).to_shareable(),
        DXO(DataKind.APP_DEFINED, data={}).to_shareable(),
        DXO(DataKind.APP_DEFINED, data={**PARTS, "more": b""}).to_shareable(),
        DXO(DataKind.APP_DEFINED, data={**PARTS, "arrays": [1.0, 2.0]}).to_shareable(),
        DXO(DataKind.APP_DEFINED, data={**PARTS, "envelope": "e"}).to_shareable(),
        DXO(DataKind.APP_DEFINED, data=[1.0, 2.0]).to_shareable(),
    ],
    ids=["empty", "no DXO", "weights", "nothing", "surplus", "floats", "text", "a list"],
)
def test_what_is_no_sealed_message_is_refused(shareable: Shareable) -> None:
    with pytest.raises(EnvelopeError) as refused:
        message_in(shareable)
    assert refused.value.reason is Reason.MALFORMED


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["DXO", "__headers__", "x"]),
        st.one_of(st.none(), st.integers(), st.text(max_size=3), st.dictionaries(st.text(max_size=4), st.binary())),
    )
)
def test_whatever_a_task_holds_it_is_read_or_refused(content: dict[str, Any]) -> None:
    shareable = Shareable()
    shareable.update(content)
    if isinstance(shareable.get("__headers__"), dict):
        shareable.set_header("__content_type__", "DXO")
    with suppress(EnvelopeError):
        assert isinstance(message_in(shareable), SealedMessage)
