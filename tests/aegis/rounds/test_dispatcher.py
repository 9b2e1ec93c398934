"""Asking and hearing over a network that loses, delays, repeats and breaks; nobody sleeps."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from aegis.coordination.liveness import SiteHealth
from aegis.rounds.dispatcher import Closing, Reply, ReplyKind
from aegis.rounds.transport import InboundMessage
from coreason_enclave.errors import Reason
from tests.aegis.rounds.scripted import LOST, REFUSAL, Script, answer, outbound_messages


def said(reply: list[Reply]) -> dict[str, tuple[ReplyKind, Reason | None]]:
    return {each.site: (each.kind, each.reason) for each in reply}


def sent_to(script: Script, site: str) -> list[float]:
    return [time for time, sites in script.pushes if site in sites]


FIRST = (ReplyKind.FIRST, None)
SILENT = (ReplyKind.MISSING, Reason.NO_REPLY)
CARRIER = (ReplyKind.MISSING, Reason.TRANSPORT)


# --- the ordinary case ----------------------------------------------------------------------------------------


def test_everybody_is_asked_once_and_heard_as_soon_as_the_answer_is_there() -> None:
    script = Script({"a": [(1.0, answer())], "b": [(30.0, REFUSAL)], "c": [(0.0, answer())]})
    reply = script.ask("a", "b", "c")
    assert said(reply) == dict.fromkeys("abc", FIRST)
    assert [each.site for each in reply] == ["c", "a", "b"]
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
    reply = said(script.ask("a", "b", "c", within_s=30.0))
    assert reply["b"] == reply["c"] == FIRST
    assert reply["a"][0] is ReplyKind.MISSING


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
    reply = [each for each in script.ask("a", "b") if each.site == "a"]
    assert [(each.kind, each.content) for each in reply] == [
        (ReplyKind.FIRST, answer("two")),
        (ReplyKind.DUPLICATE, answer("one")),
    ]


def test_an_answer_to_a_question_that_was_closed_without_it_is_late() -> None:
    script = Script({"a": [(12.0, answer())], "b": [(8.0, answer())]})
    dispatcher = script.dispatcher()
    assert said(script.ask("a", within_s=10.0, dispatcher=dispatcher)) == {"a": SILENT}
    reply = script.ask("b", dispatcher=dispatcher)
    assert [(each.site, each.kind) for each in reply] == [("a", ReplyKind.LATE), ("b", ReplyKind.FIRST)]


def test_a_refusal_that_comes_too_late_is_late_as_well_and_an_error_of_the_carriers_is_not() -> None:
    for content, expected in ((REFUSAL, [ReplyKind.LATE]), (LOST, [])):
        script = Script({"a": [(12.0, content)], "b": [(8.0, answer())]})
        dispatcher = script.dispatcher()
        script.ask("a", within_s=10.0, dispatcher=dispatcher)
        reply = script.ask("b", dispatcher=dispatcher)
        assert [each.kind for each in reply if each.site == "a"] == expected


def test_what_was_closed_is_looked_for_until_the_carrier_forgets_it_and_no_longer() -> None:
    script = Script({"a": [(200.0, answer())], "b": [(180.0, answer())]})
    dispatcher = script.dispatcher()
    script.ask("a", within_s=10.0, dispatcher=dispatcher)
    reply = script.ask("b", within_s=400.0, dispatcher=dispatcher)  # a message lives for 160 s
    assert [each.site for each in reply] == ["b"]


def test_an_answer_of_another_node_is_nobodys_answer() -> None:
    class Borrowed(Script):
        def pull(self, message_ids):  # type: ignore[no-untyped-def]
            return [InboundMessage(each.message_id, 2, each.content) for each in super().pull(message_ids)]

    script = Borrowed()
    reply = script.ask("a", within_s=2.0)
    assert [(each.kind, each.site, each.node_id) for each in reply] == [
        (ReplyKind.UNSOLICITED, "", 2),
        (*SILENT[:1], "a", 1),
    ]


def test_a_late_answer_of_another_node_is_booked_to_no_site() -> None:
    class Impersonated(Script):
        def pull(self, message_ids):  # type: ignore[no-untyped-def]
            return [InboundMessage(each.message_id, 2, each.content) for each in super().pull(message_ids)]

    script = Impersonated({"a": [(12.0, answer())], "c": [(15.0, None)]})
    dispatcher = script.dispatcher()
    script.ask("a", within_s=10.0, dispatcher=dispatcher)
    reply = script.ask("c", within_s=20.0, dispatcher=dispatcher)
    assert [(each.kind, each.site, each.node_id) for each in reply] == [
        (ReplyKind.UNSOLICITED, "", 2),
        (*SILENT[:1], "c", 3),
    ]


def test_a_late_answer_still_counts_as_late_after_another_node_claimed_its_message() -> None:
    class Overtaken(Script):
        def pull(self, message_ids):  # type: ignore[no-untyped-def]
            found = super().pull(message_ids)
            return [*[InboundMessage(each.message_id, 2, answer("forged")) for each in found], *found]

    script = Overtaken({"a": [(12.0, answer())], "c": [(15.0, None)]})
    dispatcher = script.dispatcher()
    script.ask("a", within_s=10.0, dispatcher=dispatcher)
    reply = script.ask("c", within_s=20.0, dispatcher=dispatcher)
    assert [(each.kind, each.site) for each in reply] == [
        (ReplyKind.UNSOLICITED, ""),
        (ReplyKind.LATE, "a"),
        (ReplyKind.MISSING, "c"),
    ]


# --- closing before the deadline ------------------------------------------------------------------------------


def closing_with(script: Script, enough: int, grace_s: float, *sites: str, within_s: float = 100.0) -> list[Reply]:
    """Ask until ``enough`` sites have answered and a grace has passed."""
    reply: list[Reply] = []

    def answered() -> bool:
        return sum(each.kind is ReplyKind.FIRST for each in reply) >= enough

    for batch in script.dispatcher().send(outbound_messages(*sites), within_s, Closing(answered, grace_s)):
        reply += batch
    return reply


def test_a_straggler_keeps_the_others_waiting_for_the_grace_alone() -> None:
    script = Script({"a": [(1.0, answer())], "b": [(2.0, answer())], "c": [(90.0, answer())]})
    assert said(closing_with(script, 2, 10.0, "a", "b", "c")) == {"a": FIRST, "b": FIRST, "c": SILENT}
    assert 12.0 <= script.now <= 12.6


def test_a_site_that_needs_twice_the_others_time_is_no_straggler() -> None:
    script = Script({"a": [(20.0, answer())], "b": [(20.0, answer())], "c": [(39.0, answer())]})
    assert said(closing_with(script, 2, 1.0, "a", "b", "c")) == dict.fromkeys("abc", FIRST)


def test_too_few_answers_are_waited_for_until_the_deadline() -> None:
    script = Script({"a": [(1.0, answer())], "b": [(0.0, None)], "c": [(95.0, answer())]})
    assert said(closing_with(script, 2, 3.0, "a", "b", "c")) == {"a": FIRST, "b": SILENT, "c": FIRST}
    assert 100.0 <= script.now < 100.0001


def test_the_deadline_holds_however_long_the_grace_is() -> None:
    script = Script({"a": [(1.0, answer())], "b": [(0.0, None)]})
    closing_with(script, 1, 5000.0, "a", "b", within_s=30.0)
    assert 30.0 <= script.now < 30.0001


def test_what_is_asked_after_enough_is_in_is_heard_within_the_grace() -> None:
    script, reply = Script({"a": [(1.0, answer()), (4.0, answer())], "b": [(0.0, None)]}), list[Reply]()
    dispatcher = script.dispatcher()
    closing = Closing(lambda: bool(reply), 10.0)
    for batch in dispatcher.send(outbound_messages("a", "b"), 100.0, closing):
        if not reply:
            dispatcher.follow_up(outbound_messages("a")[0])
        reply += batch
    assert [(each.kind, each.site) for each in reply] == [
        (ReplyKind.FIRST, "a"),
        (ReplyKind.FIRST, "a"),
        (ReplyKind.MISSING, "b"),
    ]
    assert script.now <= 12.0


@given(
    after=st.lists(st.floats(0, 60), min_size=3, max_size=3),
    enough=st.integers(1, 3),
    grace_s=st.floats(0, 40),
    within_s=st.floats(1, 80),
)
def test_a_round_closes_after_the_grace_and_never_after_the_deadline(
    after: list[float], enough: int, grace_s: float, within_s: float
) -> None:
    script = Script({site: [(seconds, answer())] for site, seconds in zip("abc", after, strict=True)})
    reply = closing_with(script, enough, grace_s, "a", "b", "c", within_s=within_s)
    sufficed = sorted(after)[enough - 1]
    closes = min(within_s, sufficed + max(grace_s, sufficed))
    assert script.now <= within_s + 1e-6
    assert {each.site for each in reply if each.kind is ReplyKind.FIRST} >= {
        site for site, seconds in zip("abc", after, strict=True) if seconds < closes - 0.3
    }
    assert script.now <= max(closes, min(within_s, max(after))) + 0.8


def test_an_answer_to_a_message_that_was_never_sent_is_a_stray() -> None:
    class Invents(Script):
        def pull(self, message_ids):  # type: ignore[no-untyped-def]
            return [*super().pull(message_ids), InboundMessage("invented", 1, answer())]

    reply = Invents().ask("a")
    assert [each.kind for each in reply] == [ReplyKind.FIRST, ReplyKind.UNSOLICITED]


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
    reply = script.ask("a", "b", "c", within_s=40.0)
    decided = Counter(each.site for each in reply if each.kind in (ReplyKind.FIRST, ReplyKind.MISSING))
    assert decided == Counter("abc")
    assert script.now <= 40.0001
    assert len(script.pushes) < 150


@given(replies=scripts)
def test_a_site_with_an_answer_in_time_on_a_carrier_that_works_is_always_heard(replies) -> None:  # type: ignore[no-untyped-def]
    in_time = {
        site for site, script in replies.items() if isinstance(script[0][1], type(answer())) and script[0][0] < 39
    }
    reply = said(Script(replies).ask("a", "b", "c", within_s=40.0))
    assert {site for site, how in reply.items() if how[0] is ReplyKind.FIRST} >= in_time
