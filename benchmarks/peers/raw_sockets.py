"""Blocking sockets and nothing else: the most that the endpoint can do."""

from __future__ import annotations

import socket
import threading
from urllib.parse import urlsplit

from peers.contract import BUCKET, Peer, Place, State, in_threads, raw


class RawSockets(Peer):
    """One PUT and one GET a tensor, a connection a thread.

    Args:
        place: the endpoint.
        threads: how many.
    """

    def __init__(self, place: Place, *, threads: int) -> None:
        super().__init__(place)
        self._threads = threads
        self._mine = threading.local()
        self._connections: list[socket.socket] = []

    async def save(self, state: State) -> None:
        def put(name: str) -> None:
            body = raw(state[name])
            connection = self._connection()
            connection.sendall(f"PUT /{BUCKET}/{name} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode())
            connection.sendall(body)
            _head(connection)

        await in_threads(state, self._threads, put)

    async def restore(self, target: State) -> State:
        def get(name: str) -> None:
            left = raw(target[name])
            connection = self._connection()
            connection.sendall(f"GET /{BUCKET}/{name} HTTP/1.1\r\n\r\n".encode())
            begun = _head(connection)
            left[: len(begun)] = begun
            left = left[len(begun) :]
            while left:
                count = connection.recv_into(left)
                if not count:
                    raise EOFError(name)
                left = left[count:]

        await in_threads(target, self._threads, get)
        return target

    async def close(self) -> None:
        for connection in self._connections:
            connection.close()

    def _connection(self) -> socket.socket:
        if not hasattr(self._mine, "socket"):
            url = urlsplit(self.place.endpoint)
            self._mine.socket = socket.create_connection((url.hostname or "", url.port or 80))
            self._connections.append(self._mine.socket)
        found: socket.socket = self._mine.socket
        return found


def _head(connection: socket.socket) -> bytes:
    """Read the head of an answer; returns what of the body came with it."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(4096)
        if not piece:
            raise EOFError("the endpoint hung up")
        data += piece
    if not data.startswith(b"HTTP/1.1 2"):
        raise RuntimeError(data.partition(b"\r\n")[0].decode())
    return data.partition(b"\r\n\r\n")[2]
