"""What goes through the gateway is counted, and not changed."""

import asyncio

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from coterie.processes.tally import Tally, counts
from coterie.server.running.counting import Counting


async def echo(request):
    return Response(await request.body(), status_code=int(request.path_params["status"]))


async def healthy(request):
    return Response(b"ok")


APP = Starlette(routes=[Route("/health", healthy), Route("/{status:int}", echo, methods=["POST"])])


def totals(folder):
    return {tuple(one.labels.values()): one.total for one in counts(folder, "gateway")}


def test_requests_are_counted_by_what_became_of_them(tmp_path):
    async def ask():
        tally = Tally(tmp_path, "gateway")
        transport = httpx.ASGITransport(app=Counting(APP, tally))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            answers = [await client.post(f"/{status}", content=b"x" * 10) for status in (200, 200, 401, 403, 503)]
            await client.get("/health")
        tally.write()
        return [(answer.status_code, answer.content) for answer in answers]

    assert asyncio.run(ask()) == [(status, b"x" * 10) for status in (200, 200, 401, 403, 503)]
    assert totals(tmp_path) == {
        ("passed",): 2.0,
        ("refused",): 2.0,
        ("failed",): 1.0,
        ("received",): 50.0,
        ("sent",): 50.0,
    }


def test_counts_are_written_again_and_again(tmp_path):
    async def wait():
        tally = Tally(tmp_path, "gateway")
        writing = asyncio.create_task(Counting(APP, tally).keep_written(0.001))
        for expected in (1.0, 2.0):
            tally.count("coterie_requests", outcome="passed")
            async with asyncio.timeout(10):
                while totals(tmp_path).get(("passed",)) != expected:
                    await asyncio.sleep(0.001)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing

    asyncio.run(wait())
