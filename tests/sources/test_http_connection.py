"""Heads and bodies as they come over a connection, in pieces of any size."""

import asyncio
import threading
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byteatlas.errors import ByteatlasError, SourceError
from byteatlas.model import ByteRange
from byteatlas.sources import Policy, open_source
from byteatlas.sources.http_connection import Connection, Lost, NotPlain, Scratch
from byteatlas.sources.http_pool import Pool
from byteatlas.sources.line import Line

BODY = bytes(range(256)) * 4
HEAD = b'HTTP/1.1 206 Partial Content\r\nContent-Length: 1024\r\nETag:  "x" \r\nEmpty:\r\n\r\n'
HASTY = Policy(patience_s=0.5, idle_s=0.5, tries=2, first_pause_s=0.01)


class Transport(asyncio.Transport):
    """What a connection writes to; it notes whether it may be read from."""

    def __init__(self):
        super().__init__()
        self.is_reading, self.is_closed, self.written = True, False, b""

    def write(self, data):
        self.written += data

    def pause_reading(self):
        self.is_reading = False

    def resume_reading(self):
        self.is_reading = True

    def abort(self):
        self.is_closed = True


async def arrive(connection, transport, pieces):
    """Let pieces come, each when the connection reads, into where it wants them."""
    for piece in pieces:
        view = memoryview(piece)
        while view:
            while not transport.is_reading and not transport.is_closed:  # noqa: ASYNC110
                await asyncio.sleep(0)
            if transport.is_closed:
                return
            place = connection.get_buffer(-1)
            count = min(len(place), len(view))
            place[:count] = view[:count]
            connection.buffer_updated(count)
            view = view[count:]
        await asyncio.sleep(0)


async def exchange(pieces, *, lengths=(1024,), is_ended=False, scratch=2**12, method="GET"):
    """Ask once; return status, headers, the body by reads of some lengths, and the transport."""
    connection, transport = Connection(Scratch(scratch), Line()), Transport()
    connection.connection_made(transport)
    asking = asyncio.ensure_future(connection.ask(b"GET", is_head_only=method == "HEAD"))
    arriving = asyncio.ensure_future(arrive(connection, transport, pieces))
    if is_ended:
        arriving.add_done_callback(lambda _: connection.connection_lost(None))
    try:
        answer = await asyncio.wait_for(asking, 5)
        got = []
        for length in lengths:
            place = bytearray(length)
            await asyncio.wait_for(answer.fill(memoryview(place)), 5)
            got.append(bytes(place[: answer.filled]))
        answer.release()
    finally:
        arriving.cancel()
    return answer, got, transport


def cut(data, cuts):
    bounds = [0, *sorted({cut % len(data) for cut in cuts}), len(data)]
    return [data[a:b] for a, b in pairwise(bounds) if a < b]


@given(st.lists(st.integers(0, 2000), max_size=8), st.lists(st.integers(1, 700), max_size=4))
def test_an_answer_is_the_same_however_it_is_cut(cuts, lengths):
    pieces = cut(HEAD + BODY, cuts)
    left = max(1024 - sum(lengths), 0)
    answer, got, transport = asyncio.run(exchange(pieces, lengths=[*lengths, left], scratch=512))
    assert answer.status == 206
    assert list(answer.headers.items()) == [
        ("Content-Length", "1024"), ("ETag", '"x"'), ("Empty", ""),
    ]  # fmt: skip
    assert b"".join(got) == BODY
    assert answer.is_taken
    assert not transport.is_closed
    assert transport.is_reading


@pytest.mark.parametrize("early", [100, 1024])
def test_a_body_that_is_not_taken_closes_the_connection(early):
    answer, _, transport = asyncio.run(exchange([HEAD + BODY[:early]], lengths=[10]))
    assert not answer.is_taken
    assert transport.is_closed


def test_a_body_that_ends_early_is_as_long_as_what_came():
    _, got, _ = asyncio.run(exchange([HEAD, BODY[:300]], is_ended=True))
    assert got == [BODY[:300]]


def test_a_body_without_a_length_ends_with_the_connection():
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    answer, got, _ = asyncio.run(
        exchange([head + BODY[:9], BODY[9:]], lengths=[1000, 1000], is_ended=True)
    )
    assert b"".join(got) == BODY
    assert not answer.is_bounded


@pytest.mark.parametrize(
    ("head", "method"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", "GET"),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", "GET"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "HEAD"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "HEAD"),
        (b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", "GET"),
    ],
)
def test_some_answers_have_no_body(head, method):
    answer, got, transport = asyncio.run(exchange([head], method=method))
    assert (got, answer.is_taken, transport.is_closed) == ([b""], True, False)


def test_answers_that_announce_another_are_passed_over():
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    answer, got, _ = asyncio.run(exchange([early, early + HEAD + BODY]))
    assert (answer.status, got) == (206, [BODY])


@pytest.mark.parametrize("at_once", [1, 9, 2000])
def test_announcements_without_end_are_an_error(at_once):
    early = b"HTTP/1.1 103 Early Hints\r\n\r\n"
    with pytest.raises(SourceError, match="one answer after the other"):
        asyncio.run(exchange([early * at_once] * (10 // at_once + 1), scratch=2**18))


@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"])
def test_a_head_that_does_not_end_in_time_is_silence(end):
    async def run():
        connection, transport = Connection(Scratch(), Line()), Transport()
        connection.connection_made(transport)
        asking = asyncio.ensure_future(connection.ask(b"GET"))
        await asyncio.sleep(0)
        await arrive(connection, transport, [b"HTTP/1.1 103 Early\r\nA: " + 5000 * b"a" + end])
        connection.check(asyncio.get_running_loop().time() + 10, 10)
        ended, _ = await asyncio.wait([asking], timeout=1)
        assert ended
        with pytest.raises(TimeoutError):
            asking.result()

    asyncio.run(run())


@pytest.mark.parametrize("is_used", [False, True])
def test_a_connection_that_is_closed_is_not_asked(is_used):
    async def run():
        connection, transport = Connection(Scratch(), Line()), Transport()
        connection.connection_made(transport)
        if is_used:
            connection.release(is_reusable=True)
        connection.connection_lost(None)
        with pytest.raises(Lost) as caught:
            await asyncio.wait_for(connection.ask(b"GET"), 5)
        assert caught.value.is_stale == is_used
        assert transport.written == b""

    asyncio.run(run())


@pytest.mark.parametrize(
    ("head", "is_kept"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: Close\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: Keep-Alive\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK", False),
    ],
)
def test_a_connection_is_kept_where_the_server_keeps_it(head, is_kept):
    _, _, transport = asyncio.run(exchange([head], lengths=[]))
    assert transport.is_closed != is_kept


@pytest.mark.parametrize(
    "head",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA b: c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\rC: d\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n",
        b"HTTP/1.1 200 OK\nA: b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: \0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + bytes(70_000),
    ],
)
def test_what_is_no_plain_answer_is_not_read(head):
    with pytest.raises(NotPlain):
        asyncio.run(exchange([head]))


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=3))
def test_whatever_comes_in_place_of_an_answer_ends_in_an_error(data, cuts):
    pieces = cut(b"HTTP/1.1 " + data, cuts)
    with pytest.raises((NotPlain, Lost)):
        asyncio.run(exchange(pieces, lengths=[], is_ended=True))


def test_what_comes_unasked_closes_the_connection():
    async def run():
        connection, transport = Connection(Scratch(), Line()), Transport()
        connection.connection_made(transport)
        connection.get_buffer(-1)[:4] = b"HTTP"
        connection.buffer_updated(4)
        return transport.is_closed

    assert asyncio.run(run())


# --- against a server of other habits ---


class Server:
    """Answers each request on a connection with the next of some texts."""

    def __init__(self, *answers):
        self.answers, self.asked, self.connections = list(answers), [], 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        async def serve(reader, writer):
            self.connections += 1
            try:
                while self.answers:
                    self.asked.append(await reader.readuntil(b"\r\n\r\n"))
                    answer = self.answers.pop(0)
                    writer.write(answer)
                    await writer.drain()
                    if b"Connection: close" in answer:
                        break
            except asyncio.IncompleteReadError:
                pass
            finally:
                writer.close()

        async def main():
            self._stopped = asyncio.Event()
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
            self._ready.set()
            await self._stopped.wait()
            server.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

        self._loop.run_until_complete(main())
        self._loop.close()

    def __enter__(self):
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *error):
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()

    def url(self, path):
        return f"http://127.0.0.1:{self.port}/{path}"


def part(body, *, offset=0, size=99, more=b""):
    ends = f"Content-Range: bytes {offset}-{offset + len(body) - 1}/{size}\r\n".encode()
    length = f"Content-Length: {len(body)}\r\n".encode()
    return b"HTTP/1.1 206 Partial Content\r\n" + ends + length + more + b"\r\n" + body


def test_an_answer_in_chunks_is_asked_for_again_and_read():
    chunked = (
        part(b"", more=b"Transfer-Encoding: chunked\r\n")
        .replace(b"Content-Length: 0\r\n", b"")
        .replace(b"bytes 0--1", b"bytes 0-9")
        + b"4\r\nabcd\r\n6\r\nefghij\r\n0\r\n\r\n"
    )
    with Server(chunked, chunked, chunked) as server:
        source = open_source(server.url("a"))
        for _ in range(2):
            assert bytes(source.read([ByteRange(0, 10)])[0]) == b"abcdefghij"
        assert len(server.asked) == 3  # the second time it is known


def test_a_server_that_gives_cookies_with_a_redirect_gets_them_back():
    with Server(b"", b"", b"") as server:
        to = b"HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: 0\r\n"
        server.answers = [to + b"Set-Cookie: session=1; Path=/\r\n\r\n", part(b"abc")]
        # Cookies are not for addresses, so the server needs a name.
        source = open_source(server.url("a").replace("127.0.0.1", "localhost"), policy=HASTY)
        assert bytes(source.read([ByteRange(0, 3)])[0]) == b"abc"
        assert b"session=1" in server.asked[1]


PATHS = pytest.mark.parametrize("options", [{}, {"timeout": 5}], ids=["own", "aiohttp"])
"""A timeout is for aiohttp to keep."""


@PATHS
def test_a_redirect_to_a_name_that_is_not_ascii_is_followed(options):
    to = "HTTP/1.1 302 Found\r\nLocation: /é\r\nContent-Length: 0\r\n\r\n".encode()
    with Server(to, part(b"abc")) as server:
        source = open_source(server.url("a"), storage_options=options, policy=HASTY)
        assert bytes(source.read([ByteRange(0, 3)])[0]) == b"abc"
        assert server.asked[1].startswith(b"GET /%C3%A9 ")


@PATHS
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_an_etag_is_the_same_text_however_it_came(options, encoding):
    tag = 'ETag: "é"\r\n'.encode(encoding)
    with Server(part(b"abc", more=tag), part(b"abc", more=tag)) as server:
        source = open_source(server.url("a"), storage_options=options, policy=HASTY)
        for _ in range(2):
            source.read([ByteRange(0, 3)])
        assert source.facts.etag == '"é"'
        assert b"if-match" not in server.asked[1].lower()


@PATHS
def test_each_header_is_sent_once_and_ranges_are_ours(options):
    headers = {
        "range": "bytes=5-6",
        "ACCEPT-ENCODING": "gzip",
        "if-None-match": '"x"',
        "user-agent": "me",
        "X-A": "1",
        "x-a": "2",
    }
    with Server(part(b"abc")) as server:
        options = {**options, "headers": headers}
        source = open_source(server.url("a"), storage_options=options, policy=HASTY)
        source.read([ByteRange(0, 3)])
    sent = sorted(server.asked[0].lower().split(b"\r\n")[1:-2])
    sent = [line for line in sent if not line.startswith((b"host:", b"accept:"))]
    assert sent == [
        b"accept-encoding: identity", b"range: bytes=0-2", b"user-agent: me", b"x-a: 2",
    ]  # fmt: skip


def test_a_cookie_that_cannot_be_sent_back_is_left_out():
    to = b"HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: 0\r\n"
    cookies = b'Set-Cookie: a/b=1\r\nSet-Cookie: c="\xff"\r\nSet-Cookie: d=1; Path=/\r\n\r\n'
    with Server(to + cookies, part(b"abc")) as server:
        source = open_source(server.url("a").replace("127.0.0.1", "localhost"), policy=HASTY)
        assert bytes(source.read([ByteRange(0, 3)])[0]) == b"abc"
        (sent,) = (line for line in server.asked[1].split(b"\r\n") if line.startswith(b"Cookie:"))
        assert b"d=1" in sent
        assert b"a/b" not in sent


def test_a_request_is_sent_again_where_the_server_was_just_closing():
    async def run():
        pool = Pool(
            "h", 80, tls=None, resolver=None, scratch=Scratch(), line=Line(), most=1, idle_s=9
        )
        made = []

        async def connect():
            connection, transport = Connection(Scratch(), Line()), Transport()
            connection.connection_made(transport)
            connection.given_back = pool._give_back
            made.append((connection, transport))
            return connection

        async def ask():
            asking = asyncio.ensure_future(pool.ask(b"GET"))
            await asyncio.sleep(0.01)
            return asking

        async def take(asking, of):
            connection, transport = made[of]
            await arrive(connection, transport, [HEAD + BODY])
            answer = await asking
            await answer.fill(memoryview(bytearray(1024)))
            answer.release()

        pool._connect = connect
        await take(await ask(), of=0)
        asking = await ask()
        assert made[0][1].written == b"GETGET"
        made[0][0].connection_lost(None)  # nothing had come
        await asyncio.sleep(0.01)
        await take(asking, of=1)
        asking = await ask()
        await arrive(*made[1], [HEAD[:20]])
        made[1][0].connection_lost(None)
        with pytest.raises(Lost):
            await asking
        assert len(made) == 2
        await pool.close()

    asyncio.run(run())


def test_a_header_with_a_line_break_is_not_sent():
    with Server() as server:
        options = {"headers": {"X": "a\r\nHost: other"}}
        source = open_source(server.url("a"), storage_options=options, policy=HASTY)
        with pytest.raises(ByteatlasError, match="line break"):
            source.read([ByteRange(0, 3)])
        assert server.asked == []
