from __future__ import annotations

import threading

import numpy as np
import pytest

from aegis.attacks.hostile.eavesdropper import Overheard, round_of
from coreason_enclave.errors import EnclaveError, EnvelopeError, Reason
from coreason_enclave.wire.handler import AnswersByMethod, RequestKind
from coreason_enclave.wire.updates import SealedMessage, encode_arrays


def _update(value: float) -> dict[str, np.ndarray]:
    return {"w": np.array([value], np.float32)}


class _Answers(AnswersByMethod):
    """A site that answers with one number, or refuses."""

    def __init__(self, value: float | None) -> None:
        self.value = value

    def enrol(self, message: SealedMessage) -> SealedMessage:
        return message

    def attest(self, message: SealedMessage) -> SealedMessage:
        return message

    def revealed(self, message: SealedMessage) -> tuple[SealedMessage, dict[str, np.ndarray]]:
        if self.value is None:
            raise EnclaveError("not today", reason=Reason.POLICY)
        update = _update(self.value)
        return SealedMessage(b"{}", encode_arrays(update)), update


def _order(federation, round_number: int = 3) -> SealedMessage:
    return federation.order(federation.job(), round_number=round_number)


def test_an_attacker_is_given_the_honest_updates_by_site_name_and_not_its_own(federation) -> None:
    overheard = Overheard(["a", "b"])
    for name, value in (("b", 2.0), ("mallory", 9.0), ("a", 1.0)):
        overheard.listen(name, _Answers(value)).run(_order(federation))
    assert [update["w"].tolist() for update in overheard.honest_updates(3)] == [[1.0], [2.0]]
    assert list(overheard.rounds()[3]) == ["a", "b", "mallory"]


def test_an_attacker_waits_until_the_last_honest_site_has_answered(federation) -> None:
    overheard, order = Overheard(["a", "b"]), _order(federation)
    overheard.listen("a", _Answers(1.0)).run(order)
    seen: list[int] = []
    waiting = threading.Thread(target=lambda: seen.append(len(overheard.honest_updates(3))))
    waiting.start()
    assert seen == []
    overheard.listen("b", _Answers(2.0)).run(order)
    waiting.join(timeout=10)
    assert seen == [2]


def test_a_refusal_passes_through_and_ends_the_wait(federation) -> None:
    overheard, order = Overheard(["a", "b"]), _order(federation)
    overheard.listen("a", _Answers(1.0)).run(order)
    with pytest.raises(EnclaveError, match="not today"):
        overheard.listen("b", _Answers(None)).run(order)
    assert len(overheard.honest_updates(3)) == 1
    assert list(overheard.rounds()[3]) == ["a"]


def test_an_attacker_does_not_wait_for_ever() -> None:
    with pytest.raises(EnclaveError, match="have not replied"):
        Overheard(["a"], patience_s=0.01).honest_updates(1)


def test_updates_of_another_round_are_not_mixed_in(federation) -> None:
    overheard = Overheard(["a"])
    overheard.listen("a", _Answers(1.0)).run(_order(federation, 1))
    overheard.listen("a", _Answers(2.0)).run(_order(federation, 2))
    assert [update["w"].tolist() for update in overheard.honest_updates(1)] == [[1.0]]


def test_what_is_no_order_has_no_round() -> None:
    with pytest.raises(EnvelopeError):
        round_of(SealedMessage(b"not an envelope"))


def test_invitations_and_challenges_are_passed_on(federation) -> None:
    message = SealedMessage(b"invitation")
    for kind in (RequestKind.ENROL, RequestKind.ATTEST):
        assert Overheard([]).listen("a", _Answers(1.0)).handle(kind, message) is message
