"""Fair shares: members by key, oldest first, with a cap for each key and a cap for all.

A key loses its oldest member when a count passes a cap:

- the cap for each key: the key over the cap loses a member;
- the cap for all: the key with the most members loses a member. A key with fewer members than the largest always gets
  in.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Member = TypeVar("Member", bound=Hashable)


class Shares(Generic[Key, Member]):
    """Members by key, within the two caps.

    Args:
        most: maximum members in total.
        max_per_key: maximum members of a key.

    >>> shares = Shares[str, int](most=3, max_per_key=2)
    >>> [shares.add("many", 1), shares.add("many", 2), shares.add("few", 3)]
    [None, None, None]
    >>> shares.add("other", 4)  # the cap for all: the largest key gives way
    1
    """

    def __init__(self, most: int, max_per_key: int) -> None:
        self._most, self._most_per_key = most, max_per_key
        self._members: OrderedDict[Key, OrderedDict[Member, None]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, key: Key, member: Member) -> Member | None:
        """Add a member; return the member dropped in exchange, or None if every cap still holds."""
        self._members.setdefault(key, OrderedDict())[member] = None
        self._count += 1
        if self.held(key) > self._most_per_key:
            return self._drop_oldest(key)
        if self._count > self._most:
            return self._drop_oldest(self._largest())
        return None

    def discard(self, key: Key, member: Member) -> bool:
        """Remove a member; return False for an unknown member."""
        held = self._members.get(key)
        if held is None or member not in held:
            return False
        del held[member]
        self._count -= 1
        if not held:
            del self._members[key]
        return True

    def take(self, ready: Callable[[Key], bool] = lambda _: True) -> Member | None:
        """Remove and return the oldest member of the next ready key, or None without a ready key; keys take turns."""
        for key in self._members:
            if ready(key):
                self._members.move_to_end(key)
                return self._drop_oldest(key)
        return None

    def drop(self) -> Member | None:
        """Remove and return the oldest member of the largest key; return None if empty."""
        return self._drop_oldest(self._largest()) if self._members else None

    def held(self, key: Key) -> int:
        """Return the number of members of a key."""
        return len(self._members.get(key, ()))

    def members(self) -> list[Member]:
        """Return all members."""
        return [member for held in self._members.values() for member in held]

    def _largest(self) -> Key:
        return max(self._members, key=self.held)

    def _drop_oldest(self, key: Key) -> Member:
        member = next(iter(self._members[key]))
        self.discard(key, member)
        return member
