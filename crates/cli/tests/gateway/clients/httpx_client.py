"""httpx with HTTP/2 over TLS: many requests on one connection, bodies both ways, and a stream of an answer."""

import asyncio
import sys

import httpx

base, certificate = sys.argv[1:]


async def main() -> None:
    limits = httpx.Limits(max_connections=1)
    async with httpx.AsyncClient(http2=True, http1=False, verify=certificate, base_url=base, limits=limits) as client:
        answers = await asyncio.gather(*(client.get(f"/items/{i}") for i in range(200)))
        for i, answer in enumerate(answers):
            assert (answer.status_code, answer.http_version) == (200, "HTTP/2"), answer
            assert answer.text == f"GET /items/{i}", answer.text
        body = bytes(range(256)) * 1000
        answer = await client.put("/items/1", content=body)
        assert (answer.status_code, answer.content) == (200, body), answer

        async def pieces():
            for _ in range(100):
                yield b"x" * 1000

        answer = await client.post("/items", content=pieces())
        assert (answer.status_code, len(answer.content)) == (200, 100_000), answer
        async with client.stream("GET", "/large") as answer:
            length = 0
            async for piece in answer.aiter_bytes():
                length += len(piece)
        assert length == 10_000_000, length
        answer = await client.head("/items/1")
        assert (answer.status_code, answer.content) == (200, b""), answer
        answer = await client.get("/items/hints")
        assert (answer.status_code, answer.text) == (200, "hinted"), answer
        assert (await client.get("/nowhere")).status_code == 404
        assert (await client.delete("/items/1")).status_code == 405


asyncio.run(main())
print("ok")
