"""Asking and hearing over a network that loses, delays, repeats and breaks; nobody sleeps."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from aegis.coordination.liveness import SiteHealth
from aegis.rounds.carrier import Delivery
from aegis.rounds.exchange import Came, Heard
from coreason_enclave.errors import Reason
from tests.rounds.scripted import LOST, REFUSAL, Script, answer


def said(heard: list[Heard]) -> dict[str, tuple[Came, Reason | None]]:
    return {each.site: (each.came, each.reason) for each in heard}


def sent_to(script: Script, site: str) -> list[float]:
    return [time for time, sites in script.pushes if site in sites]


FIRST = (Came.FIRST, None)
SILENT = (Came.NEVER, Reason.NO_REPLY)
CARRIER = (Came.NEVER, Reason.TRANSPORT)


# --- the ordinary case ----------------------------------------------------------------------------------------


def test_everybody_is_asked_once_and_heard_as_soon_as_the_answer_is_there() -> None:
    script = Script({"a": [(1.0, answer())], "b": [(30.0, REFUSAL)], "c": [(0.0, answer())]})
    heard = script.ask("a", "b", "c")
    assert said(heard) == dict.fromkeys("abc", FIRST)
    assert [each.site for each in heard] == ["c", "a", "b"]
    assert script.pushes == [(0.0, ["a", "b", "c"])]
    assert 30.0 <= script.now <= 30.25


def test_the_carrier_is_looked_at_often_at_first_and_four_times_a_second_later() -> None:
    script = Script({"a": [(20.0, answer())]})
    script.ask("a")
    gaps = [later - earlier for earlier, later in zip(script.pulls, script.pulls[1:], strict=False)]
    assert gaps[0] <= 0.03
    assert max(gaps) <= 0.2500001
    assert len(script.pulls) < 100


def test_what_was_answered_is_not_looked_for_again() -> None:
    script = Script({"a": [(1.0, answer())], "b": [(5.0, answer())]})
    script.ask("a", "b")
    assert script.looked_for[0] == {"a-1", "b-1"}
    assert script.looked_for[-1] == {"b-1"}


def test_whoever_is_silent_at_the_deadline_is_named_and_nobody_waits_longer() -> None:
    script = Script({"a": [(0.5, answer())], "b": [(0.0, None)]})
    assert said(script.ask("a", "b", within_s=10.0)) == {"a": FIRST, "b": SILENT}
    assert 10.0 <= script.now < 10.0001


def test_nobody_to_ask_takes_no_time() -> None:
    script = Script()
    assert script.ask() == []
    assert script.now == 0.0
    assert script.pushes == []


# --- what the carrier does ------------------------------------------------------------------------------------


def test_a_message_that_was_lost_is_sent_again_with_growing_pauses() -> None:
    script = Script({"a": [(0.0, LOST)] * 4 + [(0.0, answer())]})
    assert said(script.ask("a")) == {"a": FIRST}
    gaps = [later - earlier for earlier, later in zip(sent_to(script, "a"), sent_to(script, "a")[1:], strict=False)]
    assert len(gaps) == 4
    assert all(0.249 * 2**n <= gap <= 0.25 * 2**n + 0.5 for n, gap in enumerate(gaps))


def test_a_message_that_is_not_taken_is_sent_again_and_the_others_are_not() -> None:
    script = Script(not_taken={"a": 2})
    assert said(script.ask("a", "b")) == {"a": FIRST, "b": FIRST}
    assert len(sent_to(script, "a")) == 3
    assert len(sent_to(script, "b")) == 1


def test_a_carrier_that_is_down_for_a_while_costs_no_more_than_that() -> None:
    script = Script(down=[(0.0, 4.0)])
    assert said(script.ask("a", "b")) == {"a": FIRST, "b": FIRST}
    assert script.now < 9.0


def test_a_carrier_that_goes_down_while_sites_train_is_asked_again() -> None:
    script = Script({"a": [(6.0, answer())]}, down=[(2.0, 5.0)])
    assert said(script.ask("a")) == {"a": FIRST}


def test_a_carrier_that_is_down_to_the_end_is_nobodys_silence() -> None:
    script = Script(down=[(0.0, 1000.0)])
    assert said(script.ask("a", "b", within_s=5.0)) == {"a": CARRIER, "b": CARRIER}


def test_a_site_whose_node_stays_away_is_silent() -> None:
    script = Script({"a": [(0.0, LOST)], "b": [(0.0, answer())]})
    assert said(script.ask("a", "b", within_s=20.0)) == {"a": SILENT, "b": FIRST}


def test_one_reply_that_cannot_be_read_does_not_cost_the_others_theirs() -> None:
    script = Script(poisoned={"a"})
    heard = said(script.ask("a", "b", "c", within_s=30.0))
    assert heard["b"] == heard["c"] == FIRST
    assert heard["a"][0] is Came.NEVER


# --- sites that come back -------------------------------------------------------------------------------------


def seen(activations: int, *, connected: bool = True) -> dict[str, SiteHealth]:
    return {"a": SiteHealth(activations=activations, connected=connected)}


def test_a_site_that_joined_anew_since_it_was_asked_is_asked_again_at_once() -> None:
    script = Script({"a": [(0.0, None), (1.0, answer())]}, activations=[(0.0, seen(1)), (7.0, seen(2))])
    assert said(script.ask("a")) == {"a": FIRST}
    assert sent_to(script, "a")[0] == 0.0
    assert 7.0 <= sent_to(script, "a")[1] <= 7.8
    assert len(sent_to(script, "a")) == 2


def test_nothing_is_piled_up_for_a_node_that_is_away() -> None:
    script = Script(
        {"a": [(0.0, LOST), (0.0, answer())]},
        activations=[(0.0, seen(1)), (0.1, seen(1, connected=False)), (50.0, seen(2))],
    )
    assert said(script.ask("a")) == {"a": FIRST}
    assert len([time for time in sent_to(script, "a") if 1.0 < time < 50.0]) == 0


def test_a_site_that_answered_is_not_asked_again_when_it_joins_anew() -> None:
    script = Script({"a": [(0.0, answer())], "b": [(20.0, answer())]}, activations=[(0.0, seen(1)), (5.0, seen(2))])
    script.ask("a", "b")
    assert len(sent_to(script, "a")) == 1


# --- more answers than questions ------------------------------------------------------------------------------


def test_the_answers_to_both_sendings_are_told_apart() -> None:
    script = Script(
        {"a": [(9.0, answer("one")), (3.0, answer("two"))], "b": [(30.0, answer())]},
        activations=[(0.0, seen(1)), (5.0, seen(2))],
    )
    heard = [each for each in script.ask("a", "b") if each.site == "a"]
    assert [(each.came, each.content) for each in heard] == [
        (Came.FIRST, answer("two")),
        (Came.AGAIN, answer("one")),
    ]


def test_an_answer_to_a_question_that_was_closed_without_it_is_late() -> None:
    script = Script({"a": [(12.0, answer())], "b": [(8.0, answer())]})
    exchange = script.exchange()
    assert said(script.ask("a", within_s=10.0, exchange=exchange)) == {"a": SILENT}
    heard = script.ask("b", exchange=exchange)
    assert [(each.site, each.came) for each in heard] == [("a", Came.LATE), ("b", Came.FIRST)]


def test_a_refusal_that_comes_too_late_is_late_as_well_and_an_error_of_the_carriers_is_not() -> None:
    for content, expected in ((REFUSAL, [Came.LATE]), (LOST, [])):
        script = Script({"a": [(12.0, content)], "b": [(8.0, answer())]})
        exchange = script.exchange()
        script.ask("a", within_s=10.0, exchange=exchange)
        heard = script.ask("b", exchange=exchange)
        assert [each.came for each in heard if each.site == "a"] == expected


def test_what_was_closed_is_looked_for_until_the_carrier_forgets_it_and_no_longer() -> None:
    script = Script({"a": [(200.0, answer())], "b": [(180.0, answer())]})
    exchange = script.exchange()
    script.ask("a", within_s=10.0, exchange=exchange)
    heard = script.ask("b", within_s=400.0, exchange=exchange)  # a message lives for 160 s
    assert [each.site for each in heard] == ["b"]


def test_an_answer_of_another_node_is_nobodys_answer() -> None:
    class Borrowed(Script):
        def pull(self, message_ids):  # type: ignore[no-untyped-def]
            return [Delivery(each.message_id, 2, each.content) for each in super().pull(message_ids)]

    script = Borrowed()
    heard = script.ask("a", within_s=2.0)
    assert [(each.came, each.site, each.node_id) for each in heard] == [(Came.STRAY, "", 2), (*SILENT[:1], "a", 1)]


def test_an_answer_to_a_message_that_was_never_sent_is_a_stray() -> None:
    class Invents(Script):
        def pull(self, message_ids):  # type: ignore[no-untyped-def]
            return [*super().pull(message_ids), Delivery("invented", 1, answer())]

    heard = Invents().ask("a")
    assert [each.came for each in heard] == [Came.FIRST, Came.STRAY]


# --- whatever happens -----------------------------------------------------------------------------------------

contents = st.sampled_from([answer(), REFUSAL, LOST, None])
scripts = st.fixed_dictionaries(
    {site: st.lists(st.tuples(st.floats(0, 60), contents), min_size=1, max_size=4) for site in "abc"}
)
spans = st.lists(st.tuples(st.floats(0, 60), st.floats(0, 20)).map(lambda x: (x[0], x[0] + x[1])), max_size=3)
healths = st.lists(
    st.tuples(st.floats(0, 60), st.integers(0, 3).map(lambda n: seen(n, connected=n % 2 == 1))), max_size=4
).map(lambda each: sorted(each, key=lambda pair: pair[0]))


@given(replies=scripts, down=spans, activations=healths, poisoned=st.sets(st.sampled_from("abc")))
def test_whatever_happens_every_site_is_heard_once_and_the_deadline_holds(  # type: ignore[no-untyped-def]
    replies, down, activations, poisoned
) -> None:
    script = Script(replies, down=down, activations=activations, poisoned=poisoned)
    heard = script.ask("a", "b", "c", within_s=40.0)
    decided = Counter(each.site for each in heard if each.came in (Came.FIRST, Came.NEVER))
    assert decided == Counter("abc")
    assert script.now <= 40.0001
    assert len(script.pushes) < 150


@given(replies=scripts)
def test_a_site_with_an_answer_in_time_on_a_carrier_that_works_is_always_heard(replies) -> None:  # type: ignore[no-untyped-def]
    in_time = {
        site for site, script in replies.items() if isinstance(script[0][1], type(answer())) and script[0][0] < 39
    }
    heard = said(Script(replies).ask("a", "b", "c", within_s=40.0))
    assert {site for site, how in heard.items() if how[0] is Came.FIRST} >= in_time
