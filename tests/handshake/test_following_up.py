"""One more question to a site that has just answered: heard once, within the same deadline, never mixed up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegis.coordination.liveness import SiteHealth
from aegis.rounds.dispatcher import Reply, ReplyKind
from aegis.rounds.transport import InboundMessage, OutboundMessage
from coreason_enclave.errors import Reason
from coreason_enclave.wire.handler import RequestKind
from tests.aegis.rounds.scripted import LOST, REFUSAL, Script, answer, outbound_messages


@dataclass
class Followed:
    """Asks sites to attest, follows each first answer to that up with an order, and keeps what was heard."""

    script: Script
    rounds: int = 1
    reply: list[Reply] = field(default_factory=list)
    followed: Counter[str] = field(default_factory=Counter)

    def ask(self, *sites: str, within_s: float = 100.0, dispatcher: Any = None) -> list[Reply]:
        dispatcher = dispatcher or self.script.dispatcher()
        first = [replace(each, request_kind=RequestKind.ATTEST) for each in outbound_messages(*sites)]
        for batch in dispatcher.send(first, within_s):
            self.reply += batch
            for each in batch:
                if each.kind is ReplyKind.FIRST and self.followed[each.site] < self.rounds:
                    self.followed[each.site] += 1
                    last = self.followed[each.site] == self.rounds
                    dispatcher.follow_up(
                        replace(
                            self.outbound(each.site), request_kind=RequestKind.TRAIN if last else RequestKind.ATTEST
                        )
                    )
        return self.reply

    @staticmethod
    def outbound(site: str) -> OutboundMessage:
        return outbound_messages(site)[0]

    def of(self, site: str) -> list[tuple[ReplyKind, RequestKind | None, Any]]:
        return [(each.kind, each.request_kind, each.content) for each in self.reply if each.site == site]


def sends(script: Script, site: str) -> list[float]:
    return [time for time, sites in script.pushes if site in sites]


ONE, TWO, THREE = answer("one"), answer("two"), answer("three")


def test_what_follows_is_sent_as_soon_as_its_site_answered_and_heard_like_the_first() -> None:
    script = Script({"a": [(1.0, ONE), (2.0, TWO)], "b": [(50.0, ONE), (1.0, TWO)]})
    followed = Followed(script)
    followed.ask("a", "b")
    assert followed.of("a") == [(ReplyKind.FIRST, RequestKind.ATTEST, ONE), (ReplyKind.FIRST, RequestKind.TRAIN, TWO)]
    assert followed.of("b") == [(ReplyKind.FIRST, RequestKind.ATTEST, ONE), (ReplyKind.FIRST, RequestKind.TRAIN, TWO)]
    assert sends(script, "a")[1] < 1.3
    assert script.now < 52.0


def test_a_second_answer_to_the_first_question_is_none_to_the_second() -> None:
    """Its node joined anew and was sent the question twice; it answers both, and the order last."""
    script = Script(
        {"a": [(9.0, ONE), (2.0, TWO), (30.0, THREE)]},
        activations=[
            (0.0, {"a": SiteHealth(activations=1, connected=True)}),
            (5.0, {"a": SiteHealth(activations=2, connected=True)}),
        ],
    )
    followed = Followed(script)
    followed.ask("a")
    assert followed.of("a") == [
        (ReplyKind.FIRST, RequestKind.ATTEST, TWO),
        (ReplyKind.DUPLICATE, RequestKind.ATTEST, ONE),
        (ReplyKind.FIRST, RequestKind.TRAIN, THREE),
    ]


def test_an_answer_to_the_first_question_that_comes_after_the_second_was_answered_is_once_more_and_nothing_else() -> (
    None
):
    script = Script(
        {"a": [(20.0, ONE), (2.0, TWO), (3.0, THREE)], "b": [(60.0, REFUSAL)]},
        activations=[
            (0.0, {"a": SiteHealth(activations=1, connected=True)}),
            (5.0, {"a": SiteHealth(activations=2, connected=True)}),
        ],
    )
    followed = Followed(script)
    followed.ask("a", "b")
    assert followed.of("a") == [
        (ReplyKind.FIRST, RequestKind.ATTEST, TWO),
        (ReplyKind.FIRST, RequestKind.TRAIN, THREE),
        (ReplyKind.DUPLICATE, RequestKind.ATTEST, ONE),
    ]


def test_a_carrier_that_delivers_one_answer_twice_answers_no_second_question() -> None:
    class Repeats(Script):
        def pull(self, message_ids: Any) -> Any:
            delivered = list(super().pull(message_ids))
            return [*delivered, *delivered]

    followed = Followed(Repeats({"a": [(0.0, ONE), (5.0, TWO)]}))
    followed.ask("a")
    assert followed.of("a") == [
        (ReplyKind.FIRST, RequestKind.ATTEST, ONE),
        (ReplyKind.DUPLICATE, RequestKind.ATTEST, ONE),
        (ReplyKind.FIRST, RequestKind.TRAIN, TWO),
        (ReplyKind.DUPLICATE, RequestKind.TRAIN, TWO),
    ]


def test_a_carrier_that_puts_an_old_answer_under_an_invented_id_answers_nothing() -> None:
    class Invents(Script):
        def pull(self, message_ids: Any) -> Any:
            return [*super().pull(message_ids), InboundMessage("invented", 1, ONE)]

    followed = Followed(Invents({"a": [(0.0, ONE), (5.0, TWO)]}))
    followed.ask("a")
    assert [each for each in followed.of("a") if each[0] is not ReplyKind.UNSOLICITED] == [
        (ReplyKind.FIRST, RequestKind.ATTEST, ONE),
        (ReplyKind.FIRST, RequestKind.TRAIN, TWO),
    ]
    assert {each.site for each in followed.reply if each.kind is ReplyKind.UNSOLICITED} == {""}


def test_another_node_cannot_answer_the_second_question_for_a_site() -> None:
    class Borrowed(Script):
        def pull(self, message_ids: Any) -> Any:
            delivered = super().pull(message_ids)
            return [InboundMessage(each.message_id, 2, each.content) for each in delivered if each.content is TWO] + [
                each for each in delivered if each.content is not TWO
            ]

    followed = Followed(Borrowed({"a": [(0.0, ONE), (1.0, TWO)]}))
    followed.ask("a", within_s=10.0)
    assert followed.of("a") == [
        (ReplyKind.FIRST, RequestKind.ATTEST, ONE),
        (ReplyKind.MISSING, RequestKind.TRAIN, None),
    ]


# --- deadlines ------------------------------------------------------------------------------------------------------


def test_the_deadline_is_the_first_questions_and_who_is_silent_is_named_with_what_it_left_unanswered() -> None:
    script = Script({"a": [(9.0, ONE), (0.0, None)], "b": [(0.0, None)]})
    followed = Followed(script)
    reply = followed.ask("a", "b", within_s=10.0)
    assert 10.0 <= script.now < 10.0001
    assert [(each.kind, each.request_kind, each.reason) for each in reply if each.site == "a"] == [
        (ReplyKind.FIRST, RequestKind.ATTEST, None),
        (ReplyKind.MISSING, RequestKind.TRAIN, Reason.NO_REPLY),
    ]
    assert [(each.kind, each.request_kind) for each in reply if each.site == "b"] == [
        (ReplyKind.MISSING, RequestKind.ATTEST)
    ]


def test_a_site_whose_follow_up_could_not_be_sent_any_more_is_not_called_silent() -> None:
    script = Script({"a": [(10.0, ONE), (0.0, TWO)]})
    followed = Followed(script)
    reply = followed.ask("a", within_s=10.0)
    assert [(each.kind, each.request_kind, each.reason) for each in reply] == [
        (ReplyKind.FIRST, RequestKind.ATTEST, None),
        (ReplyKind.MISSING, RequestKind.TRAIN, Reason.TRANSPORT),
    ]


def test_an_answer_to_a_follow_up_that_was_closed_without_it_is_late() -> None:
    script = Script({"a": [(1.0, ONE), (20.0, TWO)], "b": [(15.0, ONE)]})
    dispatcher = script.dispatcher()
    Followed(script).ask("a", within_s=10.0, dispatcher=dispatcher)
    later = [reply for batch in dispatcher.send(outbound_messages("b"), 100.0) for reply in batch]
    assert [(each.kind, each.site, each.content) for each in later if each.site == "a"] == [(ReplyKind.LATE, "a", TWO)]


def test_a_first_question_that_was_followed_up_is_not_late_in_the_next_batch() -> None:
    script = Script(
        {"a": [(40.0, ONE), (2.0, TWO), (1.0, THREE)], "b": [(50.0, ONE)]},
        activations=[
            (0.0, {"a": SiteHealth(activations=1, connected=True)}),
            (5.0, {"a": SiteHealth(activations=2, connected=True)}),
        ],
    )
    dispatcher = script.dispatcher()
    Followed(script).ask("a", within_s=30.0, dispatcher=dispatcher)
    later = [reply for batch in dispatcher.send(outbound_messages("b"), 100.0) for reply in batch]
    assert [each.site for each in later] == ["b"]


def test_nothing_can_be_followed_up_when_nothing_is_being_asked() -> None:
    dispatcher = Script().dispatcher()
    with pytest.raises(RuntimeError, match="no batch is open"):
        dispatcher.follow_up(outbound_messages("a")[0])
    list(dispatcher.send(outbound_messages("a"), 10.0))
    with pytest.raises(RuntimeError, match="no batch is open"):
        dispatcher.follow_up(outbound_messages("a")[0])


# --- a carrier that fails in between ---------------------------------------------------------------------------------

FAILURES: dict[str, Callable[[], Script]] = {
    "the answer is lost": lambda: Script({"a": [(1.0, ONE), (1.0, LOST), (1.0, TWO)]}),
    "it is down just then": lambda: Script({"a": [(1.0, ONE), (1.0, TWO)]}, down=[(1.2, 4.0)]),
    "it is down while the site trains": lambda: Script({"a": [(1.0, ONE), (6.0, TWO)]}, down=[(3.0, 5.0)]),
    "the question is lost": lambda: Script({"a": [(1.0, LOST), (1.0, ONE), (1.0, TWO)]}),
    "the question is not taken": lambda: Script({"a": [(1.0, ONE), (1.0, TWO)]}, not_taken={"a": 2}),
}


@pytest.mark.parametrize("failing", FAILURES.values(), ids=list(FAILURES))
def test_a_carrier_that_fails_in_between_costs_time_and_nothing_else(failing: Callable[[], Script]) -> None:
    followed = Followed(failing())
    followed.ask("a")
    firsts = [each for each in followed.of("a") if each[0] is ReplyKind.FIRST]
    assert firsts == [(ReplyKind.FIRST, RequestKind.ATTEST, ONE), (ReplyKind.FIRST, RequestKind.TRAIN, TWO)]
    assert followed.script.now < 15.0


def test_a_lost_copy_of_an_answered_question_does_not_send_the_follow_up_once_more() -> None:
    script = Script(
        {"a": [(9.0, LOST), (2.0, ONE), (30.0, TWO)]},
        activations=[
            (0.0, {"a": SiteHealth(activations=1, connected=True)}),
            (5.0, {"a": SiteHealth(activations=2, connected=True)}),
        ],
    )
    followed = Followed(script)
    followed.ask("a")
    assert [each[2] for each in followed.of("a")] == [ONE, TWO]
    assert len(sends(script, "a")) == 3


contents = st.sampled_from([answer(), REFUSAL, LOST, None])
scripts = st.fixed_dictionaries(
    {site: st.lists(st.tuples(st.floats(0, 30), contents), min_size=1, max_size=6) for site in "abc"}
)
spans = st.lists(st.tuples(st.floats(0, 60), st.floats(0, 20)).map(lambda x: (x[0], x[0] + x[1])), max_size=3)
joins = st.lists(st.floats(0, 60), max_size=3).map(
    lambda times: [
        (time, {"a": SiteHealth(activations=n, connected=True)}) for n, time in enumerate(sorted(times), start=1)
    ]
)


@given(replies=scripts, down=spans, activations=joins, rounds=st.integers(1, 3))
def test_whatever_happens_each_question_is_heard_once_in_order_and_the_deadline_holds(
    replies: Any, down: Any, activations: Any, rounds: int
) -> None:
    followed = Followed(Script(replies, down=down, activations=activations), rounds)
    followed.ask("a", "b", "c", within_s=40.0)
    for site in "abc":
        decided = [
            (kind, request_kind)
            for kind, request_kind, _ in followed.of(site)
            if kind in (ReplyKind.FIRST, ReplyKind.MISSING)
        ]
        asked = [RequestKind.ATTEST] * rounds + [RequestKind.TRAIN]
        assert [request_kind for _, request_kind in decided] == asked[: len(decided)]
        assert [kind for kind, _ in decided[:-1]] == [ReplyKind.FIRST] * (len(decided) - 1)
        assert decided[-1][0] is ReplyKind.MISSING or len(decided) == rounds + 1
    assert followed.script.now <= 40.0001
