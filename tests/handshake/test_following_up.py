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
from aegis.rounds.dispatcher import Came, Heard
from aegis.rounds.transport import Delivery, Errand, Parcel
from coreason_enclave.errors import Reason
from tests.aegis.rounds.scripted import LOST, REFUSAL, Script, answer, parcels


@dataclass
class Followed:
    """Asks sites to attest, follows each first answer to that up with an order, and keeps what was heard."""

    script: Script
    rounds: int = 1
    heard: list[Heard] = field(default_factory=list)
    followed: Counter[str] = field(default_factory=Counter)

    def ask(self, *sites: str, within_s: float = 100.0, exchange: Any = None) -> list[Heard]:
        exchange = exchange or self.script.exchange()
        first = [replace(each, errand=Errand.ATTEST) for each in parcels(*sites)]
        for batch in exchange.ask(first, within_s):
            self.heard += batch
            for each in batch:
                if each.came is Came.FIRST and self.followed[each.site] < self.rounds:
                    self.followed[each.site] += 1
                    last = self.followed[each.site] == self.rounds
                    exchange.then(replace(self.parcel(each.site), errand=Errand.TRAIN if last else Errand.ATTEST))
        return self.heard

    @staticmethod
    def parcel(site: str) -> Parcel:
        return parcels(site)[0]

    def of(self, site: str) -> list[tuple[Came, Errand | None, Any]]:
        return [(each.came, each.errand, each.content) for each in self.heard if each.site == site]


def sends(script: Script, site: str) -> list[float]:
    return [time for time, sites in script.pushes if site in sites]


ONE, TWO, THREE = answer("one"), answer("two"), answer("three")


def test_what_follows_is_sent_as_soon_as_its_site_answered_and_heard_like_the_first() -> None:
    script = Script({"a": [(1.0, ONE), (2.0, TWO)], "b": [(50.0, ONE), (1.0, TWO)]})
    followed = Followed(script)
    followed.ask("a", "b")
    assert followed.of("a") == [(Came.FIRST, Errand.ATTEST, ONE), (Came.FIRST, Errand.TRAIN, TWO)]
    assert followed.of("b") == [(Came.FIRST, Errand.ATTEST, ONE), (Came.FIRST, Errand.TRAIN, TWO)]
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
        (Came.FIRST, Errand.ATTEST, TWO),
        (Came.AGAIN, Errand.ATTEST, ONE),
        (Came.FIRST, Errand.TRAIN, THREE),
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
        (Came.FIRST, Errand.ATTEST, TWO),
        (Came.FIRST, Errand.TRAIN, THREE),
        (Came.AGAIN, Errand.ATTEST, ONE),
    ]


def test_a_carrier_that_delivers_one_answer_twice_answers_no_second_question() -> None:
    class Repeats(Script):
        def pull(self, message_ids: Any) -> Any:
            delivered = list(super().pull(message_ids))
            return [*delivered, *delivered]

    followed = Followed(Repeats({"a": [(0.0, ONE), (5.0, TWO)]}))
    followed.ask("a")
    assert followed.of("a") == [
        (Came.FIRST, Errand.ATTEST, ONE),
        (Came.AGAIN, Errand.ATTEST, ONE),
        (Came.FIRST, Errand.TRAIN, TWO),
        (Came.AGAIN, Errand.TRAIN, TWO),
    ]


def test_a_carrier_that_puts_an_old_answer_under_an_invented_id_answers_nothing() -> None:
    class Invents(Script):
        def pull(self, message_ids: Any) -> Any:
            return [*super().pull(message_ids), Delivery("invented", 1, ONE)]

    followed = Followed(Invents({"a": [(0.0, ONE), (5.0, TWO)]}))
    followed.ask("a")
    assert [each for each in followed.of("a") if each[0] is not Came.STRAY] == [
        (Came.FIRST, Errand.ATTEST, ONE),
        (Came.FIRST, Errand.TRAIN, TWO),
    ]
    assert {each.site for each in followed.heard if each.came is Came.STRAY} == {""}


def test_another_node_cannot_answer_the_second_question_for_a_site() -> None:
    class Borrowed(Script):
        def pull(self, message_ids: Any) -> Any:
            delivered = super().pull(message_ids)
            return [Delivery(each.message_id, 2, each.content) for each in delivered if each.content is TWO] + [
                each for each in delivered if each.content is not TWO
            ]

    followed = Followed(Borrowed({"a": [(0.0, ONE), (1.0, TWO)]}))
    followed.ask("a", within_s=10.0)
    assert followed.of("a") == [(Came.FIRST, Errand.ATTEST, ONE), (Came.NEVER, Errand.TRAIN, None)]


# --- deadlines ------------------------------------------------------------------------------------------------------


def test_the_deadline_is_the_first_questions_and_who_is_silent_is_named_with_what_it_left_unanswered() -> None:
    script = Script({"a": [(9.0, ONE), (0.0, None)], "b": [(0.0, None)]})
    followed = Followed(script)
    heard = followed.ask("a", "b", within_s=10.0)
    assert 10.0 <= script.now < 10.0001
    assert [(each.came, each.errand, each.reason) for each in heard if each.site == "a"] == [
        (Came.FIRST, Errand.ATTEST, None),
        (Came.NEVER, Errand.TRAIN, Reason.NO_REPLY),
    ]
    assert [(each.came, each.errand) for each in heard if each.site == "b"] == [(Came.NEVER, Errand.ATTEST)]


def test_a_site_whose_follow_up_could_not_be_sent_any_more_is_not_called_silent() -> None:
    script = Script({"a": [(10.0, ONE), (0.0, TWO)]})
    followed = Followed(script)
    heard = followed.ask("a", within_s=10.0)
    assert [(each.came, each.errand, each.reason) for each in heard] == [
        (Came.FIRST, Errand.ATTEST, None),
        (Came.NEVER, Errand.TRAIN, Reason.TRANSPORT),
    ]


def test_an_answer_to_a_follow_up_that_was_closed_without_it_is_late() -> None:
    script = Script({"a": [(1.0, ONE), (20.0, TWO)], "b": [(15.0, ONE)]})
    exchange = script.exchange()
    Followed(script).ask("a", within_s=10.0, exchange=exchange)
    later = [heard for batch in exchange.ask(parcels("b"), 100.0) for heard in batch]
    assert [(each.came, each.site, each.content) for each in later if each.site == "a"] == [(Came.LATE, "a", TWO)]


def test_a_first_question_that_was_followed_up_is_not_late_in_the_next_exchange() -> None:
    script = Script(
        {"a": [(40.0, ONE), (2.0, TWO), (1.0, THREE)], "b": [(50.0, ONE)]},
        activations=[
            (0.0, {"a": SiteHealth(activations=1, connected=True)}),
            (5.0, {"a": SiteHealth(activations=2, connected=True)}),
        ],
    )
    exchange = script.exchange()
    Followed(script).ask("a", within_s=30.0, exchange=exchange)
    later = [heard for batch in exchange.ask(parcels("b"), 100.0) for heard in batch]
    assert [each.site for each in later] == ["b"]


def test_nothing_can_be_followed_up_when_nothing_is_being_asked() -> None:
    exchange = Script().exchange()
    with pytest.raises(RuntimeError, match="nothing is being asked"):
        exchange.then(parcels("a")[0])
    list(exchange.ask(parcels("a"), 10.0))
    with pytest.raises(RuntimeError, match="nothing is being asked"):
        exchange.then(parcels("a")[0])


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
    firsts = [each for each in followed.of("a") if each[0] is Came.FIRST]
    assert firsts == [(Came.FIRST, Errand.ATTEST, ONE), (Came.FIRST, Errand.TRAIN, TWO)]
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
        decided = [(came, errand) for came, errand, _ in followed.of(site) if came in (Came.FIRST, Came.NEVER)]
        asked = [Errand.ATTEST] * rounds + [Errand.TRAIN]
        assert [errand for _, errand in decided] == asked[: len(decided)]
        assert [came for came, _ in decided[:-1]] == [Came.FIRST] * (len(decided) - 1)
        assert decided[-1][0] is Came.NEVER or len(decided) == rounds + 1
    assert followed.script.now <= 40.0001
