"""A service that is busy: asked again at its own pace, for as long as a round can wait, and then left alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreason_enclave.attestation.endorsements.http import HttpReply
from coreason_enclave.attestation.endorsements.patience import ATTEMPTS, MAX_PAUSE_S, MAX_QUIET_S, PatientHttp
from coreason_enclave.attestation.verify.verdict import VerificationRefused
from coreason_enclave.errors import Reason

URL, OTHER = "https://vendor.example/one", "https://other.example/one"
GOOD = HttpReply(200, {}, b"here")


def busy(retry_after: str | None = None, status: int = 429) -> HttpReply:
    return HttpReply(status, {} if retry_after is None else {"retry-after": retry_after}, b"<html>slow down</html>")


@dataclass
class Service:
    """Gives its replies one after the other, the last one for ever; time passes only in pauses."""

    replies: list[HttpReply]
    now: float = 1_800_000_000.0
    asked: list[str] = field(default_factory=list)
    paused: list[float] = field(default_factory=list)

    def __call__(self, url: str, *, body: bytes | None = None, content_type: str | None = None) -> HttpReply:
        self.asked.append(url)
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]

    def pause(self, seconds: float) -> None:
        self.paused.append(seconds)
        self.now += seconds

    def patient(self, chance: float | None = None) -> PatientHttp:
        options = {} if chance is None else {"chance": lambda low, high: low + chance * (high - low)}
        return PatientHttp(self, pause=self.pause, clock=lambda: self.now, **options)


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_service_is_asked_again_until_it_answers(status: int) -> None:
    service = Service([busy(status=status), busy(status=status), GOOD])
    assert service.patient()(URL) == GOOD
    assert len(service.asked) == 3
    assert 0.25 <= service.paused[0] <= 0.5 <= service.paused[1] <= 1.0


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 500, 502])
def test_any_other_answer_is_given_as_it_came_and_at_once(status: int) -> None:
    service = Service([HttpReply(status, {"retry-after": "1"}, b"x")])
    assert service.patient()(URL).status == status
    assert (len(service.asked), service.paused) == (1, [])


def test_pauses_differ_by_chance() -> None:
    pauses = set()
    for _ in range(8):
        service = Service([busy(), GOOD])
        service.patient()(URL)
        pauses.add(service.paused[0])
    assert len(pauses) > 1


@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_a_service_is_never_asked_sooner_than_it_said(chance: float) -> None:
    for text in ("2", formatdate(1_800_000_002, usegmt=True)):
        service = Service([busy(text), GOOD])
        assert service.patient(chance)(URL) == GOOD
        assert 2.0 <= service.paused[0] <= 2.5


@pytest.mark.parametrize("text", ["", "soon", "-5", "1.5", "٣", "Mon, 99 Foo 2026", "inf", "nan", "0x10", "\x00"])
def test_a_retry_after_that_means_nothing_is_passed_over(text: str) -> None:
    service = Service([busy(text), GOOD])
    assert service.patient()(URL) == GOOD
    assert service.paused[0] <= 0.5


def test_a_date_that_has_passed_is_now() -> None:
    service = Service([busy(formatdate(0, usegmt=True)), GOOD])
    assert service.patient(0.0)(URL) == GOOD
    assert service.paused == [0.0]


@pytest.mark.parametrize("text", ["3600", "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_round_does_not_wait_for_a_long_pause_and_leaves_the_service_alone(text: str) -> None:
    service = Service([busy(text), GOOD])
    patient = service.patient()
    assert patient(URL).status == 429
    assert service.paused == []
    for url in (URL, "https://vendor.example/two"):
        with pytest.raises(VerificationRefused, match=r"vendor\.example is busy") as refused:
            patient(url)
        assert refused.value.reason is Reason.ATTESTATION_UNAVAILABLE
    assert len(service.asked) == 1
    assert patient(OTHER) == GOOD
    service.now += MAX_QUIET_S + 1
    assert patient(URL) == GOOD


def test_a_service_that_stays_busy_is_asked_a_few_times_and_then_left_alone() -> None:
    service = Service([busy()])
    patient = service.patient()
    assert patient(URL).status == 429
    assert len(service.asked) == ATTEMPTS
    with pytest.raises(VerificationRefused, match="busy"):
        patient(URL)


def test_a_clock_that_is_set_back_does_not_silence_a_service_for_good() -> None:
    service = Service([busy("600"), GOOD])
    patient = service.patient()
    patient(URL)
    service.now -= 10 * MAX_QUIET_S
    assert patient(URL) == GOOD


@given(st.text(max_size=40) | st.integers().map(str) | st.floats().map(str))
def test_whatever_a_service_says_one_question_waits_for_seconds_at_most(text: str) -> None:
    service = Service([busy(text)])
    service.patient()(URL)
    assert len(service.asked) <= ATTEMPTS
    assert all(0 <= pause <= MAX_PAUSE_S for pause in service.paused)
