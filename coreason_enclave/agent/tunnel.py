"""The tunnel: a loopback listener for the SuperNode that forwards to the gateway over the agent's own mTLS sessions.

``flower-supernode`` cannot present a client certificate; the agent can. Requests to the fleet interface pass byte for
byte; any other request ends its connection. Each connection gets its own mTLS session, opened with its first request,
so a gateway restart costs only the open connections. All traffic leaves by this one outbound port.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from coreason_enclave.agent.http_head import MAX_HEAD_BYTES, MalformedRequest, RequestHead, parse_head
from coreason_enclave.agent.loopback_certificate import LoopbackCertificate
from coreason_enclave.errors import ConfigurationError
from coreason_enclave.site import Connection

FLEET = "/v1/fleet/"
POLL = f"{FLEET}pull-messages"
RECEIVED = f"{FLEET}confirm-message-received"

_CONNECT_S = 10.0
_CLOSE_S = 2.0
_LAST_TURNS = 5
_CHUNK = 1 << 16
_MAX_CONNECTIONS = 64

_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_Request = tuple[bytes, RequestHead]
_Result = TypeVar("_Result")


@dataclass
class Tunnel:
    """A loopback listener; :func:`opened_tunnel` runs it.

    Attributes:
        on_received: called (in the tunnel's thread) when the SuperNode has received a whole message.
        last_poll: monotonic seconds of the SuperNode's latest request for messages, even with an absent gateway.
    """

    connection: Connection
    certificate: LoopbackCertificate
    on_received: Callable[[], None] = lambda: None
    clock: Callable[[], float] = time.monotonic
    port: int = field(default=0, init=False)
    last_poll: float | None = field(default=None, init=False)
    _open: set[asyncio.Task[None]] = field(default_factory=set, init=False)
    _closing: bool = field(default=False, init=False)

    @property
    def address(self) -> str:
        """The address that the SuperNode takes for its SuperLink."""
        return f"127.0.0.1:{self.port}"

    async def listen(self) -> asyncio.Server:
        """Bind to a free port on loopback."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=MAX_HEAD_BYTES)
        self.port = int(server.sockets[0].getsockname()[1])
        return server

    async def close(self) -> None:
        """End every connection at once."""
        self._closing = True
        await asyncio.sleep(0)  # a connection accepted just now starts, sees _closing, and ends
        begun = asyncio.all_tasks() - {asyncio.current_task()}
        for task in begun:
            task.cancel()
        await asyncio.gather(*begun, return_exceptions=True)
        for _ in range(_LAST_TURNS):  # an aborted transport closes its socket one turn of the loop later
            await asyncio.sleep(0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or self._closing or len(self._open) >= _MAX_CONNECTIONS:
            writer.transport.abort()
            return
        self._open.add(task)
        try:
            await writer.start_tls(self.certificate.context, ssl_handshake_timeout=_CONNECT_S)
            await self._carry(reader, writer)
        except (OSError, EOFError, MalformedRequest, TimeoutError, asyncio.LimitOverrunError, ConfigurationError):
            pass  # either end left or sent a malformed message: the SuperNode's connection ends, and it tries again
        except asyncio.CancelledError:
            pass  # the tunnel closes
        finally:
            self._open.discard(task)
            await self._end(writer)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward requests upstream one by one and stream responses back unchanged."""
        raw, head = await self._head(reader)
        upstream_reader, upstream = await self._dial()
        answers = asyncio.create_task(_copy_stream(upstream_reader, writer))
        try:
            while not answers.done():
                upstream.write(raw)
                await _copy(reader, upstream, head.body_bytes)
                if head.path == RECEIVED:
                    self.on_received()
                raw, head = await _first(self._head(reader), answers)
        finally:
            answers.cancel()
            try:
                await asyncio.gather(answers, return_exceptions=True)
            finally:
                await self._end(upstream)

    async def _head(self, reader: asyncio.StreamReader) -> _Request:
        raw = await reader.readuntil(b"\r\n\r\n")
        head = parse_head(raw)
        if head.method != "POST" or not head.path.startswith(FLEET):
            raise MalformedRequest("this tunnel serves only the fleet interface")
        if head.path == POLL:
            self.last_poll = self.clock()
        return raw, head

    async def _end(self, writer: asyncio.StreamWriter) -> None:
        """Flush pending output for a limited time, then close the connection."""
        writer.close()
        try:
            if not self._closing:
                with contextlib.suppress(OSError, TimeoutError):
                    await asyncio.wait_for(writer.wait_closed(), _CLOSE_S)
        finally:  # also if the tunnel closes during the wait
            writer.transport.abort()

    async def _dial(self) -> _Streams:
        """Open an mTLS session to the gateway; re-read the files each time, to use a renewed certificate."""
        opening = asyncio.open_connection(
            self.connection.host,
            self.connection.port,
            ssl=self.connection.tls(),
            server_hostname=self.connection.server_name,
        )
        return await asyncio.wait_for(opening, _CONNECT_S)


async def _first(head: Coroutine[None, None, _Request], answers: asyncio.Task[None]) -> _Request:
    """Return the next request; raise if the gateway ends the connection first."""
    waiting = asyncio.create_task(head)
    try:
        await asyncio.wait({waiting, answers}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise EOFError("the gateway ended the connection")
        return waiting.result()
    finally:
        waiting.cancel()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: int) -> None:
    while count:
        data = await reader.read(min(count, _CHUNK))
        if not data:
            raise EOFError("the request ended before its body did")
        count -= len(data)
        writer.write(data)
        await writer.drain()
    await writer.drain()


async def _copy_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until either side ends the connection."""
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()


@contextmanager
def opened_tunnel(
    connection: Connection, folder: Path, *, on_received: Callable[[], None] = lambda: None
) -> Iterator[Tunnel]:
    """Run a listening tunnel, in its own thread, until the block ends.

    Args:
        folder: folder for the listener's certificate; mode 0700.

    Raises:
        ConfigurationError: the connection's files are unusable.
    """
    connection.tls()  # raise for unusable files now, not at the first request
    tunnel = Tunnel(connection, LoopbackCertificate.made(folder), on_received)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="tunnel", daemon=True)
    thread.start()

    def wait_for(work: Coroutine[None, None, _Result]) -> _Result:
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    try:
        server = wait_for(tunnel.listen())
        try:
            yield tunnel
        finally:
            wait_for(_closed(server, tunnel))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _closed(server: asyncio.Server, tunnel: Tunnel) -> None:
    server.close()
    await tunnel.close()
