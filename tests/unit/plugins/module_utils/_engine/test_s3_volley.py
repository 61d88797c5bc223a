# SPDX-License-Identifier: GPL-3.0-or-later
"""Many small requests by one thread: over real connections to a server that answers as a test says."""

from __future__ import annotations

import contextlib
import functools
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Optional, Union

import botocore.session
import pytest
from botocore.config import Config

from ansible_collections.pgops.backup.plugins.module_utils._engine.places import s3_volley
from ansible_collections.pgops.backup.plugins.module_utils._engine.places.s3_upload import Writer
from ansible_collections.pgops.backup.plugins.module_utils._engine.places.s3_volley import Asked, volley
from ansible_collections.pgops.backup.plugins.module_utils._engine.places.s3_wire import Wire
from ansible_collections.pgops.backup.plugins.module_utils._engine.places.transfer import (
    Bandwidth,
    Slots,
    StoppedError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.settings import S3

Answer = Callable[[str, bytes], Union[bytes, Iterator[bytes], None]]  # in pieces, if it is an iterator


def plain(key: str, body: bytes = b"", head: str = "") -> bytes:
    """Return a plain answer to a GET or PUT of `key`."""
    content = b"" if body else ("content of " + key).encode()
    return b'HTTP/1.1 200 OK\r\nETag: "%s"\r\n%sContent-Length: %d\r\n\r\n%s' % (
        key.encode(),
        head.encode(),
        len(content),
        content,
    )


class Server:
    """Answers each request with what `answer` returns for its key and body. What is not plain ends the connection."""

    def __init__(self, answer: Answer) -> None:
        self.answer, self.connections, self.asked = answer, 0, list[str]()
        self.lock = threading.Lock()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:%d" % self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _address = self._socket.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as stream:
            while True:
                first, length = stream.readline().decode(), 0
                for line in iter(stream.readline, b"\r\n"):
                    if not line:
                        return
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                body = stream.read(length)
                key = first.split(" ")[1].rsplit("/", 1)[1]
                with self.lock:
                    self.asked.append(key)
                answer = self.answer(key, body)
                if answer is None:
                    return
                whole = b""
                for piece in [answer] if isinstance(answer, bytes) else answer:
                    connection.sendall(piece)
                    whole += piece
                if b"ETag" not in whole or b"X-Bye" in whole:  # not by plain(), or not for long
                    return

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@functools.cache
def session() -> Any:
    """One for all, as it takes long to read what it knows."""
    made = botocore.session.Session()
    made.set_credentials("AKIDEXAMPLE", "secret")
    return made


@contextlib.contextmanager
def served(answer: Answer) -> Iterator[tuple[Server, Wire]]:
    server = Server(answer)
    client = session().create_client(
        "s3", region_name="us-east-1", endpoint_url=server.url, config=Config(s3={"addressing_style": "path"})
    )
    wire = Wire(client, session().get_credentials(), "backups")
    try:
        yield server, wire
    finally:
        wire.close()
        server.close()


def fetched(
    wire: Wire, count: int, *, lanes: int = 4, bandwidth: Optional[Bandwidth] = None, **others: Any
) -> tuple[list[str], dict[str, bytes]]:
    """Get so many keys; return those that were left, and the content of the others."""
    found: dict[str, bytes] = {}

    def hear(key: str, answer: Any, content: bytes) -> bool:
        assert answer["ETag"] == '"%s"' % key
        found[key] = content
        return True

    with ThreadPoolExecutor(2) as opener:
        left = volley(
            wire,
            [str(number) for number in range(count)],
            others.get("ask", lambda key: Asked("get_object", key, {})),
            others.get("hear", hear),
            lanes=lanes,
            opener=opener,
            bandwidth=bandwidth or Bandwidth(0),
        )
    return left, found


def test_all_is_asked_in_order_over_a_few_connections_that_are_used_again() -> None:
    with served(plain) as (server, wire):
        left, found = fetched(wire, 100)
        assert (left, len(found)) == ([], 100)
        assert found["17"] == b"content of 17"
        assert sorted(server.asked, key=int) == [str(number) for number in range(100)]
        assert server.connections <= 4
        before = server.connections
        assert fetched(wire, 20, lanes=before)[0] == []
        assert server.connections == before


def test_one_lane_asks_one_at_a_time() -> None:
    at_once, most, lock = [0], [0], threading.Lock()

    def answer(key: str, body: bytes) -> bytes:
        with lock:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
        with lock:
            at_once[0] -= 1
        return plain(key)

    with served(answer) as (server, wire):
        assert fetched(wire, 30, lanes=1)[0] == []
        assert (server.connections, most, server.asked) == (1, [1], [str(number) for number in range(30)])


def test_content_is_sent_with_its_request() -> None:
    bodies: dict[str, bytes] = {}

    def answer(key: str, body: bytes) -> bytes:
        bodies[key] = body
        return plain(key, body or b"-")

    with served(answer) as (_server, wire):
        left, found = fetched(wire, 50, ask=lambda key: Asked("put_object", key, {"Body": b"body " + key.encode()}))
    assert left == []
    assert set(found.values()) == {b""}
    assert bodies == {str(number): b"body %d" % number for number in range(50)}


@pytest.mark.parametrize(
    "bad",
    [
        b"HTTP/1.1 503 SlowDown\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nless",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\nX: y\nContent-Length: 2\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\n folded\r\nContent-Length: 2\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nxxHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nyy",
        b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nxx",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"\r\n\r\n",
        None,
    ],
)
def test_what_is_no_plain_success_is_left_and_the_others_are_done(bad: Optional[bytes]) -> None:
    with served(lambda key, body: bad if key in ("3", "30") else plain(key)) as (_server, wire):
        left, found = fetched(wire, 60)
    assert sorted(left) == ["3", "30"]
    assert sorted(found, key=int) == [str(number) for number in range(60) if number not in (3, 30)]


def test_where_hardly_anything_works_the_rest_is_left_soon() -> None:
    with served(lambda key, body: b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n") as (server, wire):
        left, found = fetched(wire, 1000)
        assert (len(left), found) == (1000, {})
        assert sorted(left, key=int) == [str(number) for number in range(1000)]
        assert len(server.asked) < 30
        assert wire.off, "it never worked"


def test_a_store_that_ends_each_connection_is_no_place_for_this() -> None:
    with served(lambda key, body: plain(key, head="Connection: close\r\n")) as (_server, wire):
        left, found = fetched(wire, 200)
        assert len(left) + len(found) == 200
        assert 10 <= len(found) < 30
        assert not wire.off


def test_connections_that_the_store_closes_without_a_word_are_replaced() -> None:
    with served(lambda key, body: plain(key, head="X-Bye: 1\r\n" if int(key) % 20 == 5 else "")) as (_server, wire):
        left, found = fetched(wire, 100)
    assert sorted([*left, *found], key=int) == [str(number) for number in range(100)]
    assert len(found) >= 95


def test_a_store_that_is_not_there_leaves_all() -> None:
    with served(plain) as (server, wire):
        server.close()
        server._socket = socket.create_server(("127.0.0.1", 0))
        assert fetched(wire, 50) == ([str(number) for number in range(50)], {})


@pytest.mark.parametrize("how", ["never", "half", "a byte now and then"])
def test_an_answer_that_does_not_come_is_not_waited_for_longer_than_a_read(
    monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Nor does anybody else wait for it: all others have their answers before it is given up."""
    monkeypatch.setattr(s3_volley, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(s3_volley, "_ANSWER_SECONDS", 600.0)
    over = threading.Event()

    def answer(key: str, body: bytes) -> Union[bytes, Iterator[bytes], None]:
        return plain(key) if key != "7" else piecemeal(plain(key))

    def piecemeal(whole: bytes) -> Iterator[bytes]:
        if how == "half":
            yield whole[:-3]
        for byte in whole if how == "a byte now and then" else b"":
            yield bytes([byte])
            if over.wait(0.2):
                return
        over.wait(60)

    def hear(key: str, _answer: Any, _content: bytes) -> bool:
        found.append(key)
        if len(found) == 39:
            monkeypatch.setattr(s3_volley, "_ANSWER_SECONDS", 0.1)
        return True

    found: list[str] = []
    with served(answer) as (_server, wire):
        left, _found = fetched(wire, 40, hear=hear)
        over.set()
    assert left == ["7"]
    assert sorted(found, key=int) == [str(number) for number in range(40) if number != 7]


def test_an_answer_in_pieces_holds_nobody_up() -> None:
    """Its other pieces come when all others have been answered: one after an interim answer, one in the head, one in the body."""
    others = threading.Event()
    cuts, heard = {"2": 0, "3": 30, "4": -3}, set[str]()

    def answer(key: str, body: bytes) -> Union[bytes, Iterator[bytes]]:
        return pieces(plain(key), cuts[key]) if key in cuts else plain(key)

    def pieces(whole: bytes, cut: int) -> Iterator[bytes]:
        yield b"HTTP/1.1 100 Continue\r\n\r\n" + whole[:cut]
        assert others.wait(60)
        yield whole[cut:]

    def hear(key: str, _answer: Any, content: bytes) -> bool:
        heard.add(key)
        if len(heard) == 40 - len(cuts):
            others.set()
        return content == b"content of " + key.encode()

    with served(answer) as (server, wire):
        assert fetched(wire, 40, hear=hear)[0] == []
        assert (len(heard), server.connections) == (40, 4)


def test_a_store_that_ends_its_connections_now_and_then_does_it_all() -> None:
    """It says so with the last answer of each; whoever gave up after so many ends would do most of it the slow way."""
    with served(lambda key, body: plain(key, head="Connection: close\r\n" if int(key) % 25 == 24 else "")) as (
        server,
        wire,
    ):
        left, found = fetched(wire, 1000)
        assert (left, len(found)) == ([], 1000)
        assert server.connections >= 40


def test_what_is_not_asked_and_what_is_not_well_is_left() -> None:
    with served(plain) as (server, wire):
        left, _found = fetched(
            wire,
            20,
            ask=lambda key: None if key == "4" else Asked("get_object", key, {"ACL": "x"} if key == "5" else {}),
            hear=lambda key, answer, content: key != "6",
        )
        assert sorted(left) == ["4", "5", "6"]
        assert sorted(server.asked, key=int) == [str(number) for number in range(20) if number not in (4, 5)]


def test_a_request_that_would_be_two_is_left() -> None:
    asked = Asked("put_object", "k", {"Body": b"x", "Metadata": {"a": "b\r\nX-Evil: 1"}})
    with served(plain) as (server, wire):
        assert fetched(wire, 3, ask=lambda key: asked)[0] == ["0", "1", "2"]
        assert server.asked == []


def test_a_stop_ends_it_and_what_goes_wrong_in_hearing_comes_through() -> None:
    bandwidth = Bandwidth(0)

    def hear(key: str, answer: Any, content: bytes) -> bool:
        if key == "9":
            bandwidth.stopped.set()
        return True

    with served(plain) as (server, wire):
        with pytest.raises(StoppedError):
            fetched(wire, 1000, hear=hear, bandwidth=bandwidth)
        assert len(server.asked) < 100
        with pytest.raises(KeyError):
            fetched(wire, 10, hear=lambda key, answer, content: {}[key])


def test_a_connection_that_the_store_closed_meanwhile_is_not_used() -> None:
    over = [False]
    with served(lambda key, body: None if over[0] else plain(key)) as (server, wire):
        assert fetched(wire, 20, lanes=2)[0] == []
        held = wire.connect()
        wire.put_back(held)
        held._socket.shutdown(socket.SHUT_RDWR)
        assert not held.is_quiet()
        before = server.connections
        assert fetched(wire, 20, lanes=2)[0] == []
        assert server.connections == before + 1


def test_many_small_take_what_is_free_and_give_it_back() -> None:
    slots = Slots(2)
    with slots.for_size(1), slots.many_small(slots.most) as held:
        assert held == slots.most - 1
        assert not slots.for_size(1).acquire(blocking=False)
    with slots.many_small(3) as held:
        assert held == 3
    with slots.many_small(slots.most) as held:
        assert held == slots.most


@pytest.mark.parametrize(("concurrency", "lanes"), [(1, 1), (2, 6), (4, 12)])
def test_a_volley_leaves_room_for_the_last_parts_and_opens_by_a_pool_of_its_own(concurrency: int, lanes: int) -> None:
    """Last parts wait for their slots inside the pool of the parts: what waited for that pool meanwhile would wait for ever."""
    slots = Slots(concurrency)
    nothing: Any = None
    settings = S3(bucket="b", concurrency=concurrency)
    writer = Writer(nothing, settings, "home", nothing, nothing, Bandwidth(0), slots)
    with writer._lanes() as (found, opener):
        assert found == lanes
        assert opener.submit(int, "1").result(30) == 1
        last_parts = [slots.for_size(1000).acquire(blocking=False) for _part in range(concurrency)]
    assert last_parts == [concurrency > 1] * concurrency
