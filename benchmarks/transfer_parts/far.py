"""A far server: a relay on loopback that delays all bytes, so that a round trip takes as long as it is told.

    far.py UPSTREAM_PORT ROUND_TRIP_MS WINDOW_BYTES

Prints the port that it listens to, and runs until its standard input ends. Each connection pays one round trip to be
opened, each byte takes half a round trip, and no more than WINDOW_BYTES of a connection are on their way or not yet
acknowledged: that is what limits one TCP connection on a long path. There is no loss and no slow start.
"""

import asyncio
import contextlib
import sys
from collections import deque

READ_BYTES = 256 * 1024


class Way:
    """One direction of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, one_way_s: float, window: int):
        self._reader = reader
        self._writer = writer
        self._one_way_s = one_way_s
        self._window = window
        self._under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        self._unacknowledged: deque[tuple[float, int]] = deque()
        self._in_flight = 0

    async def run(self) -> None:
        delivering = asyncio.create_task(self._deliver())
        try:
            await self._take()
            await delivering
        finally:
            delivering.cancel()
            self._writer.close()

    async def _take(self) -> None:
        """Read what the window allows, until the end."""
        clock = asyncio.get_running_loop().time
        while True:
            while self._unacknowledged and self._unacknowledged[0][0] <= clock():
                self._in_flight -= self._unacknowledged.popleft()[1]
            room = self._window - self._in_flight
            if room <= 0:
                await asyncio.sleep(max(0.0, self._unacknowledged[0][0] - clock()))
                continue
            data = await self._reader.read(min(room, READ_BYTES))
            now = clock()
            self._in_flight += len(data)
            self._unacknowledged.append((now + 2 * self._one_way_s, len(data)))
            self._under_way.put_nowait((now + self._one_way_s, data))
            if not data:
                return

    async def _deliver(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            due, data = await self._under_way.get()
            await asyncio.sleep(max(0.0, due - clock()))
            if not data:
                return
            self._writer.write(data)
            await self._writer.drain()


async def relay(upstream_port: int, round_trip_s: float, window: int) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await asyncio.sleep(round_trip_s)
            upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", upstream_port)
            there = Way(reader, upstream_writer, round_trip_s / 2, window)
            back = Way(upstream_reader, writer, round_trip_s / 2, window)
            await asyncio.gather(there.run(), back.run())

    server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=READ_BYTES)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(relay(int(sys.argv[1]), int(sys.argv[2]) / 1000, int(sys.argv[3])))
