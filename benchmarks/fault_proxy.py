"""Stands between a run and its S3 server, and does what servers and networks do on a bad day."""

import asyncio
import threading
from typing import final

MODES = ("up", "down", "slow", "refuse", "skew", "busy", "cut")
"""up: passes all on; down: takes no connection and ends those there are; slow: a chunk at a time;
refuse: 403; skew: 403 as a clock far off gets it; busy: 503; cut: ends answers in their middle."""

_CHUNK = 16 * 2**10
_SLOW_S = 0.15
_CUT_AFTER = 600
_CODES = {
    "refuse": (403, "ExpiredToken", "The provided token has expired."),
    "skew": (403, "RequestTimeTooSkewed", "The difference between the clocks is too large."),
    "busy": (503, "SlowDown", "Please reduce your request rate."),
}


@final
class Proxy:
    """A TCP proxy on a thread of its own; `mode` may be set at any time.

    Args:
        port: Where the server listens on loopback.
    """

    def __init__(self, port: int) -> None:
        self.mode = "up"
        self.port = 0
        self._server_port = port
        self._writers: set[asyncio.StreamWriter] = set()
        ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait()

    @property
    def endpoint(self) -> str:
        """What AWS_ENDPOINT_URL is to be."""
        return f"http://127.0.0.1:{self.port}"

    def set_mode(self, mode: str) -> None:
        """Begins to misbehave in a way of `MODES`, also on connections that there are."""
        assert mode in MODES, mode
        self.mode = mode
        if mode == "down":
            self._loop.call_soon_threadsafe(self._drop)

    def stop(self) -> None:
        """Ends the proxy and its thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        self._loop.run_forever()
        server.close()
        self._drop()
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop.close()

    def _drop(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if self.mode != "down":
                there = await asyncio.open_connection("127.0.0.1", self._server_port)
                self._writers.add(there[1])
                try:
                    await asyncio.gather(
                        self._requests(reader, there[1], writer), self._answers(there[0], writer)
                    )
                finally:
                    there[1].transport.abort()
                    self._writers.discard(there[1])
        except (OSError, asyncio.IncompleteReadError):
            pass  # either side has gone, which is what this is for
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _requests(
        self,
        reader: asyncio.StreamReader,
        server: asyncio.StreamWriter,
        client: asyncio.StreamWriter,
    ) -> None:
        while data := await reader.read(_CHUNK):
            if self.mode in _CODES:
                client.write(_refusal(*_CODES[self.mode]))
                await client.drain()
                client.close()
                raise ConnectionResetError
            if self.mode == "down":
                raise ConnectionResetError
            server.write(data)
            await server.drain()
        raise ConnectionResetError

    async def _answers(self, server: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        while data := await server.read(_CHUNK):
            if self.mode == "down":
                raise ConnectionResetError
            if self.mode == "slow":
                await asyncio.sleep(_SLOW_S)
            if self.mode == "cut" and len(data) > _CUT_AFTER:
                client.write(data[:_CUT_AFTER])
                await client.drain()
                raise ConnectionResetError
            client.write(data)
            await client.drain()
        raise ConnectionResetError


def _refusal(status: int, code: str, message: str) -> bytes:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    head = f"HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()
