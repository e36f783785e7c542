"""Proxy that delays data in both directions, in order and without loss."""

from __future__ import annotations

import asyncio
import threading
from urllib.parse import urlsplit


class SlowLine:
    """Delaying proxy between a browser and a server of this machine.

    Parameters
    ----------
    server : str
        Address of the server.

    Attributes
    ----------
    url : str
        Address of the proxy.
    seconds : float
        Delay per direction; may be changed at any time.
    """

    def __init__(self, server: str) -> None:
        self.seconds = 0.0
        self._server = urlsplit(server)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        opening = asyncio.start_server(self._connected, "127.0.0.1", 0)
        self._listening = asyncio.run_coroutine_threadsafe(opening, self._loop).result(10)
        port = self._listening.sockets[0].getsockname()[1]
        self.url = self._server._replace(netloc=f"127.0.0.1:{port}").geturl()

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end(self) -> None:
        """Cancel all transfers."""
        self._listening.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(self._server.hostname, self._server.port)
        await asyncio.gather(self._carry(reader, there[1]), self._carry(there[0], writer))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward data, reading on while earlier pieces are still being delayed."""
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def deliver() -> None:
            while True:
                due, piece = await under_way.get()
                await asyncio.sleep(due - self._loop.time())
                if not piece:
                    writer.close()
                    return
                writer.write(piece)
                await writer.drain()

        delivering = self._loop.create_task(deliver())
        piece = b"\n"
        try:
            while piece:
                piece = await reader.read(1 << 16)
                under_way.put_nowait((self._loop.time() + self.seconds, piece))
            await delivering
        except ConnectionError:  # the other end has closed the connection
            writer.close()
            delivering.cancel()
