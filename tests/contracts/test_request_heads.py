"""A request's first line and headers come to an end, whoever sends them."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import uvicorn

from app.limiting import MOST_HEAD_BYTES, BoundedHead


async def answer(scope, receive, send) -> None:
    assert scope["type"] == "http"
    size = 0
    while True:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d" % size})


def ask(*requests: bytes) -> list[bytes]:
    """The answers to requests on one connection, each sent in pieces."""

    async def play() -> list[bytes]:
        config = uvicorn.Config(answer, http=BoundedHead, lifespan="off", log_config=None, port=0)
        server = uvicorn.Server(config)
        serving = asyncio.ensure_future(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        answers = []
        for request in requests:
            reading = asyncio.ensure_future(reader.read(10_000))
            with suppress(ConnectionError):  # it may be closed before all is sent
                for start in range(0, len(request), 10_000):
                    writer.write(request[start : start + 10_000])
                    await asyncio.sleep(0.001)
            answers.append(await asyncio.wait_for(reading, 10))
        writer.close()
        server.should_exit = True
        await serving
        return answers

    # In a thread of its own: a browser that another test has open runs a loop in this one.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(play())).result()


def test_headers_without_end_are_refused():
    head = b"GET / HTTP/1.1\r\nHost: here\r\n"
    many = b"".join(b"X-%d: %s\r\n" % (number, b"x" * 1_000) for number in range(100))
    for endless in (head + many, head + b"X-One: " + b"x" * 100_000, b"GET /" + b"x" * 100_000):
        (refused,) = ask(endless)
        assert refused.startswith(b"HTTP/1.1 400 "), endless[:40]
        assert b"too long" in refused


def test_long_bodies_and_many_requests_on_one_connection_are_served():
    post = b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000
    head = b"GET / HTTP/1.1\r\nHost: here\r\nX-One: " + b"x" * (MOST_HEAD_BYTES - 500) + b"\r\n\r\n"
    answers = ask(post, head, head, post)
    assert [one[:13] for one in answers] == [b"HTTP/1.1 200 "] * 4
    assert b"300000" in answers[0] and b"300000" in answers[3]
