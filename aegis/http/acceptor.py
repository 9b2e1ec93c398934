"""Accepts connections from any host, in front of TLS.

A connection passes three stages, each as cheap as possible:

1. *silent*: accepted, without a whole TLS hello. Costs a socket and no buffer: the kernel holds the bytes and reports
   when the whole record has arrived (``SO_RCVLOWAT``). The acceptor ends a connection that does not begin as TLS.
2. *waiting*: the hello has arrived, and the handshake waits for its turn. Addresses take turns, and a limit applies to
   the handshakes begun per second.
3. *shaking*: the handshake runs.

Rules for all stages:

- The acceptor drops the oldest connection first, of the address over its cap or with the most connections.
- All three stages together have a few seconds.
- A process without a free descriptor drops unfinished connections, and accepts again after a pause.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from asyncio import TimerHandle
from collections.abc import Callable
from dataclasses import dataclass, field

from aegis.http.fair_shares import Shares
from aegis.http.limits import GatewayLimits, party_address
from aegis.http.load import CrowdCounts, Turned
from aegis.http.request_shares import Pace, Paces

_BATCH = 32
"""Maximum connections accepted in one turn of the loop, so that served connections get their turn in between."""
_RECORD_HEAD = 5
_MAX_RECORD = 1 << 14
_HANDSHAKE_RECORD = 22
_LOOK_AGAIN_S = 0.05
_SHUTDOWN_S = 2.0
_FIRST_PAUSE_S, _MAX_PAUSE_S = 0.05, 1.0
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Newcomer:
    """A connection before the end of its handshake."""

    socket: socket.socket
    address: str
    deadline: TimerHandle | None = None
    looking: TimerHandle | None = None
    shaking: asyncio.Task[None] | None = None
    handed_over: bool = False
    needed: int = _RECORD_HEAD
    stage: Shares[str, _Newcomer] | None = field(default=None, repr=False)


class Acceptor:
    """Accepts connections on a listening socket; begins with :meth:`open`.

    Offers the two methods that uvicorn needs of a server: close, and wait until closed.

    Args:
        listening: bound and listening.
        context: the server's side of TLS.
        protocol: makes the protocol that serves a connection after its handshake.
        limits: the limits of each stage.
        counts: records the connections turned away.
    """

    def __init__(
        self,
        listening: socket.socket,
        context: ssl.SSLContext,
        protocol: Callable[[], asyncio.Protocol],
        *,
        limits: GatewayLimits,
        counts: CrowdCounts,
    ) -> None:
        self._listening, self._context, self._protocol = listening, context, protocol
        self._limits, self._counts = limits, counts
        self._loop = asyncio.get_running_loop()
        self._silent: Shares[str, _Newcomer] = Shares(limits.unfinished, limits.unfinished_per_address)
        self._waiting: Shares[str, _Newcomer] = Shares(limits.unfinished, limits.unfinished_per_address)
        self._shaking: Shares[str, _Newcomer] = Shares(limits.handshakes, limits.handshakes_per_address)
        self._pace = Pace(limits.handshakes_per_s, limits.handshakes_per_s, self._loop.time)
        self._paces: Paces[str] = Paces(limits.handshakes_per_s_per_address, self._loop.time)
        self._pause_s = _FIRST_PAUSE_S
        self._resume: TimerHandle | None = None
        self._turn: TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = False
        counts.unfinished = lambda: self.unfinished

    @property
    def unfinished(self) -> int:
        """The number of connections before the end of their handshake."""
        return len(self._silent) + len(self._waiting) + len(self._shaking)

    def open(self) -> None:
        """Begin to accept."""
        self._listening.setblocking(False)
        self._open = True
        self._loop.add_reader(self._listening, self._accept)

    def close(self) -> None:
        """Stop accepting, and drop all unfinished connections."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._listening)
        for timer in (self._resume, self._turn):
            if timer is not None:
                timer.cancel()
        for stage in (self._silent, self._waiting, self._shaking):
            for newcomer in stage.members():
                self._end(newcomer)

    async def wait_closed(self) -> None:
        """Return when every handshake has ended."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self) -> None:
        for _ in range(_BATCH):
            try:
                accepted, peer = self._listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._back_off(error)
                    return
                continue  # the client has left already
            self._pause_s = _FIRST_PAUSE_S
            accepted.setblocking(False)
            self._greet(accepted, party_address(str(peer[0])))

    def _back_off(self, error: OSError) -> None:
        """Drop unfinished connections, and accept again after a pause: the listening socket stays readable."""
        self._loop.remove_reader(self._listening)
        address = "the process itself"
        for _ in range(_BATCH):
            dropped = self._silent.drop() or self._waiting.drop()
            if dropped is None:
                break
            address = dropped.address
            self._end(dropped)
        self._counts.turned(Turned.DESCRIPTORS, address)
        _log.error("cannot accept (%s): trying again in %.2f s", error.strerror, self._pause_s)
        self._resume = self._loop.call_later(self._pause_s, self._again)
        self._pause_s = min(2 * self._pause_s, _MAX_PAUSE_S)

    def _again(self) -> None:
        if self._open:
            self._loop.add_reader(self._listening, self._accept)

    def _greet(self, accepted: socket.socket, address: str) -> None:
        newcomer = _Newcomer(accepted, address)
        newcomer.deadline = self._loop.call_later(self._limits.handshake_s, self._too_late, newcomer)
        self._enter(self._silent, newcomer, Turned.SILENT)
        self._look(newcomer)

    def _look(self, newcomer: _Newcomer) -> None:
        """Peek at the hello without taking its bytes from the kernel."""
        self._loop.remove_reader(newcomer.socket)
        try:
            seen = newcomer.socket.recv(newcomer.needed, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            self._await_bytes(newcomer)
            return
        except OSError:
            self._end(newcomer)
            return
        if not seen:
            self._end(newcomer)
        elif len(seen) < newcomer.needed:
            newcomer.looking = self._loop.call_later(_LOOK_AGAIN_S, self._await_bytes, newcomer)
        elif newcomer.needed > _RECORD_HEAD:
            self._line_up(newcomer)
        elif (length := _hello_length(seen)) is None:
            self._turn_away(newcomer, Turned.NOT_TLS)
        else:
            newcomer.needed = _RECORD_HEAD + length
            self._look(newcomer)

    def _await_bytes(self, newcomer: _Newcomer) -> None:
        newcomer.looking = None
        with contextlib.suppress(OSError):  # without this option, polling still works
            newcomer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, newcomer.needed)
        self._loop.add_reader(newcomer.socket, self._look, newcomer)

    def _line_up(self, newcomer: _Newcomer) -> None:
        """Move a connection with a whole hello to the waiting stage."""
        with contextlib.suppress(OSError):
            newcomer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        self._enter(self._waiting, newcomer, Turned.WAITING)
        self._next()

    def _next(self) -> None:
        """Begin as many handshakes as the rates allow now."""
        if self._turn is not None:
            return
        while len(self._waiting):
            if not self._pace.ready() or (newcomer := self._waiting.take(self._paces.ready)) is None:
                self._turn = self._loop.call_later(_LOOK_AGAIN_S, self._next_turn)
                return
            self._enter(self._shaking, newcomer, Turned.HANDSHAKE)
            newcomer.shaking = self._loop.create_task(self._shake(newcomer))
            self._tasks.add(newcomer.shaking)
            newcomer.shaking.add_done_callback(self._tasks.discard)
            newcomer.shaking.add_done_callback(lambda _, newcomer=newcomer: self._shaken(newcomer))  # type: ignore[misc]

    def _next_turn(self) -> None:
        self._turn = None
        self._next()

    async def _shake(self, newcomer: _Newcomer) -> None:
        """Run the handshake; afterwards the protocol owns the connection."""
        newcomer.handed_over = True  # to a transport, which closes the socket
        try:
            await self._loop.connect_accepted_socket(
                self._protocol,
                newcomer.socket,
                ssl=self._context,
                ssl_handshake_timeout=self._limits.handshake_s,
                ssl_shutdown_timeout=_SHUTDOWN_S,
            )
        except OSError:
            if newcomer.stage is not None:
                self._counts.turned(Turned.FAILED, newcomer.address)

    def _shaken(self, newcomer: _Newcomer) -> None:
        newcomer.shaking = None
        self._leave(newcomer)
        if not newcomer.handed_over:  # dropped before the handshake began
            newcomer.socket.close()

    def _too_late(self, newcomer: _Newcomer) -> None:
        self._turn_away(newcomer, Turned.LATE)

    def _enter(self, stage: Shares[str, _Newcomer], newcomer: _Newcomer, why: Turned) -> None:
        if newcomer.stage is not None:
            newcomer.stage.discard(newcomer.address, newcomer)
        newcomer.stage = stage
        if (dropped := stage.add(newcomer.address, newcomer)) is not None:
            self._turn_away(dropped, why)

    def _turn_away(self, newcomer: _Newcomer, why: Turned) -> None:
        self._counts.turned(why, newcomer.address)
        self._end(newcomer)

    def _leave(self, newcomer: _Newcomer) -> None:
        if newcomer.deadline is not None:
            newcomer.deadline.cancel()
        if newcomer.looking is not None:
            newcomer.looking.cancel()
        if newcomer.stage is not None:
            newcomer.stage.discard(newcomer.address, newcomer)
        newcomer.stage = None

    def _end(self, newcomer: _Newcomer) -> None:
        self._leave(newcomer)
        if newcomer.shaking is not None:
            newcomer.shaking.cancel()  # its transport closes the socket
        elif newcomer.socket.fileno() >= 0:
            self._loop.remove_reader(newcomer.socket)
            newcomer.socket.close()


def _hello_length(head: bytes) -> int | None:
    """Return the length of the handshake record with this head (RFC 8446, 5.1), or None if the bytes are not TLS."""
    length = int.from_bytes(head[3:5], "big")
    is_handshake = head[0] == _HANDSHAKE_RECORD and head[1] == 3 and 4 <= length <= _MAX_RECORD
    return length if is_handshake else None
