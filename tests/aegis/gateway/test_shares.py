"""Fair shares, a site's seats, and its shares: the rules by themselves."""

from __future__ import annotations

import asyncio
import resource
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegis.http import limits as limits_module
from aegis.http.connection_shares import Seats, Standing
from aegis.http.fair_shares import Shares
from aegis.http.limits import GatewayLimits, party_address, raise_descriptor_limit
from aegis.http.load import CrowdCounts, Turned
from aegis.http.request_shares import Pace, Paces, RequestShares


@given(keys=st.lists(st.sampled_from("abcd"), max_size=80), most=st.integers(1, 12), each=st.integers(1, 6))
def test_no_cap_is_ever_passed_and_the_oldest_of_the_largest_goes(keys: list[str], most: int, each: int) -> None:
    shares = Shares[str, int](most, each)
    held: dict[str, list[int]] = {}
    for number, key in enumerate(keys):
        dropped = shares.add(key, number)
        held.setdefault(key, []).append(number)
        if dropped is not None:
            loser = next(name for name, members in held.items() if dropped in members)
            assert held[loser][0] == dropped
            over_its_own = len(held[key]) > each
            assert loser == key if over_its_own else len(held[loser]) == max(map(len, held.values()))
            held[loser].pop(0)
        assert len(shares) == sum(map(len, held.values())) <= most
        assert all(shares.held(name) == len(members) <= each for name, members in held.items())


def test_every_key_has_its_turn() -> None:
    shares = Shares[str, int](10, 10)
    for number in range(4):
        shares.add("many", number)
    shares.add("few", 9)

    assert [shares.take() for _ in range(6)] == [0, 9, 1, 2, 3, None]


def test_a_key_that_is_not_ready_is_passed_over() -> None:
    shares = Shares[str, int](10, 10)
    shares.add("paced", 1)
    shares.add("ready", 2)

    assert [shares.take(lambda key: key == "ready") for _ in range(2)] == [2, None]
    assert shares.take() == 1


class Line:
    """A connection that only remembers whether it was ended."""

    def __init__(self, standing: Standing = Standing.IDLE) -> None:
        self.standing = standing
        self.ended = False

    def abort(self) -> None:
        self.ended = True


def seats(**changes: int) -> tuple[Seats, CrowdCounts]:
    limits = GatewayLimits.model_validate({"connections": 8, "connections_per_site": 4, **changes})
    counts = CrowdCounts(limits.connections)
    return Seats(limits, counts), counts


def take(places: Seats, site: str, count: int, standing: Standing = Standing.IDLE, address: str = "a") -> list[Line]:
    lines = [Line(standing) for _ in range(count)]
    for line in lines:
        if places.take(line, site, address) is None:
            line.abort()
    return lines


def test_a_site_over_its_share_loses_its_own_oldest_connection_without_a_request() -> None:
    places, counts = seats()
    busy, idle = take(places, "one", 2, Standing.BUSY), take(places, "one", 2)
    other = take(places, "two", 1)

    take(places, "one", 1)

    assert [line.ended for line in [*busy, *idle, *other]] == [False, False, True, False, False]
    assert counts.load().turned_away == {Turned.SITE.value: 1}
    assert counts.load().max_turned_away == {"one": 1}


def test_a_site_whose_connections_all_work_gets_no_more() -> None:
    places, _ = seats()
    busy = take(places, "one", 4, Standing.BUSY)

    late = take(places, "one", 1)

    assert ([line.ended for line in busy], late[0].ended) == ([False] * 4, True)


def test_where_all_is_taken_the_site_that_holds_most_gives_way() -> None:
    places, counts = seats(connections=6)
    large, small = take(places, "large", 4, Standing.BUSY), take(places, "small", 2, Standing.BUSY)

    newcomer = take(places, "new", 1)

    assert not newcomer[0].ended
    assert [line.ended for line in large] == [False, False, False, True]  # the newest: it has done the least
    assert not any(line.ended for line in small)
    assert counts.load().crowded_at is not None


def test_where_all_is_taken_evenly_the_newcomer_goes_unless_it_holds_less() -> None:
    places, _ = seats(connections=4)
    first, second = take(places, "first", 2, Standing.BUSY), take(places, "second", 2, Standing.BUSY)

    assert take(places, "first", 1)[0].ended
    assert not take(places, "third", 1)[0].ended
    assert sum(line.ended for line in [*first, *second]) == 1


def test_one_address_with_many_certificates_is_limited_too() -> None:
    places, counts = seats(connections=20, connections_per_address=4)
    for number in range(4):
        take(places, f"site-{number}", 1, address="one")

    late, elsewhere = take(places, "site-9", 1, Standing.IDLE, "one"), take(places, "site-9", 3, Standing.IDLE, "two")

    assert Turned.ADDRESS.value in counts.load().turned_away
    assert not any(line.ended for line in elsewhere)
    assert counts.by_site()["site-9"] == 3 + (not late[0].ended)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(list(Standing))), max_size=60))
def test_a_site_that_holds_less_than_another_always_gets_a_seat(newcomers: list[tuple[str, Standing]]) -> None:
    places, counts = seats(connections=6, connections_per_site=3, connections_per_address=100)
    for site, standing in newcomers:
        before = Counter(counts.by_site())
        line = Line(standing)
        seated = places.take(line, site, "a") is not None
        after = Counter(counts.by_site())

        assert after.total() <= 6
        assert max(after.values(), default=0) <= 3
        if before[site] + 1 < max(before.values(), default=0):
            assert seated
        assert all(after[other] >= before[other] - 1 for other in before)


def test_half_sent_heads_are_counted_by_site() -> None:
    places, counts = seats(heads_per_site=2)
    lines = [Line(Standing.HEAD) for _ in range(3)]
    taken = [places.take(line, "one", "a") for line in lines]
    for seat in taken:
        assert seat is not None
        places.head_begins(seat)

    assert [line.ended for line in lines] == [True, False, False]
    assert counts.load().turned_away == {Turned.HEADS.value: 1}


def test_a_pace_lets_a_burst_through_and_then_so_many_a_second() -> None:
    now = [0.0]
    pace = Pace(10.0, 3.0, lambda: now[0])

    assert [pace.ready() for _ in range(4)] == [True, True, True, False]
    now[0] = 0.1
    assert [pace.ready() for _ in range(2)] == [True, False]
    assert [pace.take(), pace.take()] == pytest.approx([0.1, 0.2])


def test_one_partys_pace_is_not_anothers() -> None:
    paces = Paces[str](0.1, lambda: 0.0)

    assert [paces.ready("one"), paces.ready("one"), paces.ready("two")] == [True, False, True]


def test_a_site_has_only_so_many_requests_worked_on_and_no_other_waits_for_it() -> None:
    async def attempt() -> tuple[int, bool]:
        shares = RequestShares(GatewayLimits(requests_per_site=2))
        working, release = 0, asyncio.Event()

        async def work(site: str) -> None:
            nonlocal working
            async with shares.request(site):
                working += site == "many"
                if site == "many":
                    await release.wait()

        tasks = [asyncio.create_task(work("many")) for _ in range(5)]
        await asyncio.wait_for(work("few"), 5)
        reached = working
        release.set()
        await asyncio.gather(*tasks)
        return reached, working == 5

    assert asyncio.run(attempt()) == (2, True)


def test_a_flood_of_requests_is_slowed_down() -> None:
    async def attempt() -> float:
        shares = RequestShares(GatewayLimits(requests_per_s_per_site=100.0))
        loop = asyncio.get_running_loop()
        start = loop.time()
        for _ in range(1020):
            async with shares.request("flood"):
                pass
        return loop.time() - start

    assert asyncio.run(attempt()) >= 0.15  # a thousand at once, then one in ten milliseconds


@pytest.mark.parametrize(
    ("host", "party"),
    [
        ("10.0.0.7", "10.0.0.7"),
        ("::ffff:10.0.0.7", "10.0.0.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_an_ipv6_network_is_one_party(host: str, party: str) -> None:
    assert party_address(host) == party


def test_limits_fit_the_descriptors_that_there_are() -> None:
    wanted = GatewayLimits()

    assert wanted.fitting(20_000) == wanted
    for descriptors in (1_800, 1_024, 256):
        fitting = wanted.fitting(descriptors)
        assert 16 <= fitting.connections < wanted.connections
        assert fitting.connections + 2 * fitting.unfinished + fitting.handshakes < descriptors


def test_the_descriptor_limit_is_raised_to_the_hard_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(limits_module.resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(limits_module.resource, "setrlimit", lambda which, pair: asked.append((which, pair)))

    assert raise_descriptor_limit() == 4096
    assert asked == [(resource.RLIMIT_NOFILE, (4096, 4096))]
