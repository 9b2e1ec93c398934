"""FLARE's serialisation of a message passes; of anything else, or of nothing at all, it is told what is wrong."""

from __future__ import annotations

import io
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.fuel.utils import fobs
from nvflare.fuel.utils.fobs import lobs
from nvflare.private.admin_defs import Message as AdminMessage
from nvflare.private.fed.utils.fed_utils import nvflare_fobs_initialize

from aegis.runtimes.nvflare.plain_payloads import MAX_ITEMS, MAX_SECTIONS, NotPlain, require_plain

nvflare_fobs_initialize()

SHAREABLE = "nvflare.apis.shareable.Shareable"
DICT = "nvflare.fuel.utils.fobs.decomposer.DictDecomposer"
DATA = "nvflare.fuel.utils.fobs.decomposer.DataClassDecomposer"


def section(body: bytes, marker: int = lobs.MARKER_MAIN, dot: int = 0, size: int | None = None) -> bytes:
    return lobs.HEADER_STRUCT.pack(marker, dot, len(body) if size is None else size) + body


def main(value: Any) -> bytes:
    return section(msgpack.packb(value))


def an_object(name: Any, decomposer: Any = DATA, data: Any = None, **more: Any) -> dict[str, Any]:
    return {"__fobs_type__": name, "__fobs_data__": data, "__fobs_dc__": decomposer, **more}


def sealed(size: int = 3) -> Shareable:
    shareable = DXO(DataKind.APP_DEFINED, data={"envelope": b"\x00\xff" * size, "arrays": b""}).to_shareable()
    context = FLContext()
    context.set_prop("job", "study-1", private=False)
    shareable.set_peer_context(context)
    return shareable


PLAIN = {
    "a sealed message": sealed(),
    "one whose bytes are in a section of their own": sealed(6 << 20),
    "an answer of FLARE's administration": AdminMessage("topic", "body"),
    "nothing": Shareable(),
    "a mapping": {"job_id": "1", "code": 3},
}


@pytest.mark.parametrize("value", PLAIN.values(), ids=PLAIN)
def test_messages_pass(value: Any) -> None:
    require_plain(fobs.dumps(value))


words = st.text("aé_\x00", max_size=6)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), 1 << 63) | st.floats() | words | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=30)
@given(st.dictionaries(words, plain, max_size=4))
def test_any_plain_content_passes(content: dict[str, Any]) -> None:
    require_plain(fobs.dumps(Shareable(content)))


def pickled() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([{}], dtype=object), allow_pickle=True)
    return file.getvalue()


ARRAY = "nvflare.app_common.decomposers.numpy_decomposers.NumpyArrayDecomposer"
BLOB, FILE = lobs.MARKER_DATUM_BLOB, lobs.MARKER_DATUM_FILE
REFUSED = {
    "nothing": (b"", "cut short"),
    "no main section": (section(bytes(20), BLOB), "neither text nor bytes"),
    "a file": (main({}) + section(bytes(20), FILE), "neither text nor bytes"),
    "bytes that a decomposer takes": (main({}) + section(bytes(20), BLOB, dot=1), "neither text nor bytes"),
    "a second main section": (main({}) + main({}), "neither text nor bytes"),
    "a section that is longer than the rest": (section(b"\x80", size=1 << 40), "cut short"),
    "a section without content": (main({}) + section(bytes(16), BLOB), "cut short"),
    "the head of a section": (main({}) + b"\x66", "cut short"),
    "too many sections": (main({}) + section(bytes(20), BLOB) * MAX_SECTIONS, "too many sections"),
    "no msgpack": (section(b"\xc1"), "malformed"),
    "msgpack and a rest": (section(b"\x80\x80"), "malformed"),
    "text that is none": (section(b"\xa1\xff"), "malformed"),
    "an extension": (section(msgpack.packb(msgpack.ExtType(5, b"x"))), "malformed"),
    "a length without content": (section(b"\xdd\xff\xff\xff\xff"), "malformed"),
    "an array": (fobs.dumps(Shareable({"weights": np.ones(3)})), "an object of a class"),
    "pickled objects": (main(an_object("numpy.ndarray", ARRAY, pickled())), "an object of a class"),
    "a class of Python's": (main(an_object("subprocess.Popen", DATA, {})), "an object of a class"),
    "a class of FLARE's": (main(an_object("nvflare.apis.workspace.Workspace", DATA, {})), "an object of a class"),
    "another decomposer": (main(an_object(SHAREABLE, DATA, {})), "an object of a class"),
    "a name that is none": (main(an_object(["a"], DICT, {})), "an object of a class"),
    "more than an object has": (main(an_object(SHAREABLE, DICT, {}, more=1)), "an object of a class"),
    "an object deep inside": (main({"a": [an_object(SHAREABLE, DICT, {"b": an_object("os.system")})]}), "a class"),
    "many items": (main([0] * MAX_ITEMS + [0]), "malformed"),
    "many items in many lists": (main([[0] * 200] * 200), "items"),
    "many containers in each other": (section(b"\x91" * 200 + b"\xc0"), "nested containers"),
    "more containers than can be read": (section(b"\x91" * 5000 + b"\xc0"), "malformed"),
}


@pytest.mark.parametrize(("payload", "why"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_message_is_refused(payload: bytes, why: str) -> None:
    with pytest.raises(NotPlain, match=why):
        require_plain(payload)


@given(st.binary(max_size=200))
def test_any_bytes_pass_or_are_refused(payload: bytes) -> None:
    for each in (payload, section(payload)):
        try:
            require_plain(each)
        except NotPlain:
            continue


@settings(max_examples=100)
@given(st.data())
def test_a_message_with_flipped_bits_is_refused_or_names_no_other_class(data: st.DataObject) -> None:
    payload = bytearray(fobs.dumps(sealed()))
    for at in data.draw(st.lists(st.integers(0, len(payload) - 1), min_size=1, max_size=4)):
        payload[at] ^= data.draw(st.integers(1, 255))
    try:
        require_plain(bytes(payload))
    except NotPlain:
        return
    body = bytes(payload)[lobs.HEADER_LEN :]
    names: list[Any] = []
    msgpack.unpackb(body, strict_map_key=False, object_hook=lambda each: names.append(each.get("__fobs_type__")))
    allowed = {None, SHAREABLE, "nvflare.apis.fl_context.FLContext", "nvflare.apis.dxo.DataKind"}
    assert set(names) <= allowed
