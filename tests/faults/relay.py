"""A relay of bytes between one listening port and one address, run as a program of its own inside a network namespace.

    python relay.py LISTEN_HOST:PORT TO_HOST:PORT [SECONDS]

TLS goes through untouched. With SECONDS every piece of data waits that long, in either direction.
"""

import asyncio
import contextlib
import sys


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    """Copy one direction until it ends; a delay keeps the order."""
    with contextlib.suppress(OSError):
        while piece := await reader.read(65536):
            if seconds:
                await asyncio.sleep(seconds)
            writer.write(piece)
            await writer.drain()
    writer.close()


async def relay(listen: str, to: str, seconds: float) -> None:
    """Serve until killed."""
    host, _, port = to.rpartition(":")

    async def joined(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, away = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.close()
            return
        await asyncio.gather(pass_on(reader, away, seconds), pass_on(there, writer, seconds))

    here, _, number = listen.rpartition(":")
    server = await asyncio.start_server(joined, here, int(number))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(relay(sys.argv[1], sys.argv[2], float(sys.argv[3]) if len(sys.argv) > 3 else 0.0))
