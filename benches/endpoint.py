"""The client of embedding endpoints: `python benches/endpoint.py [--texts N] [--rounds N] [--faulty N]`.

Failures: a server that fails half of its requests in every way the tests know, and counts the strings it delivers; a
string delivered twice is paid twice. Speed: strings per second and CPU microseconds per string against a server in
another process that answers at once with vectors of 384 numbers, beside a bare loop of `httpx` that believes
everything; in turns.
"""

import argparse
import asyncio
import base64
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import httpx
import numpy as np

sys.path.insert(0, os.fspath(Path(__file__).resolve().parent.parent / "tests" / "python"))

_WIDTH = 384
_TEXTS_PER_REQUEST = 256


def _serve() -> None:
    """Answers at once, always the same 64 vectors; prints its port."""
    rng = np.random.default_rng(0)
    vectors = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in rng.normal(size=(64, _WIDTH))]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                size = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
                texts = json.loads(await reader.readexactly(size))["input"]
                entries = ",".join(
                    f'{{"object":"embedding","index":{idx},"embedding":"{vectors[idx % 64]}"}}'
                    for idx in range(len(texts))
                )
                body = f'{{"object":"list","data":[{entries}],"model":"m"}}'.encode()
                head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
                writer.write(head + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def serve() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0, limit=1 << 24)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    asyncio.run(serve())


def _bare(url: str, texts: list[str]) -> None:
    """What reading vectors costs at least: one request after the other, nothing checked."""
    with httpx.Client() as client:
        for start in range(0, len(texts), _TEXTS_PER_REQUEST):
            part = texts[start : start + _TEXTS_PER_REQUEST]
            request = {"input": part, "model": "m", "encoding_format": "base64"}
            answer = json.loads(client.post(f"{url}/embeddings", json=request).content)
            np.stack([np.frombuffer(base64.b64decode(entry["embedding"]), "<f4") for entry in answer["data"]])


def _print_speed(num_texts: int, num_rounds: int) -> None:
    from tributary.embed import EndpointEmbedder, through_cache
    from tributary.embed.endpoint_settings import EndpointSettings

    server = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
    settings = EndpointSettings(url, "m", width=_WIDTH, max_texts=_TEXTS_PER_REQUEST)

    def through(texts: list[str]) -> None:
        with through_cache(EndpointEmbedder(256, settings)) as cached:
            cached.embed(texts)

    runners: dict[str, Callable[[list[str]], object]] = {
        "`httpx`, nothing checked": lambda texts: _bare(url, texts),
        "`endpoint`": lambda texts: EndpointEmbedder(256, settings).embed(texts),
        "`endpoint`, into the cache": through,
        "`endpoint`, out of the cache": through,
    }
    rounds = []
    for _ in range(num_rounds):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["TRIBUTARY_CACHE"] = folder
            texts = [f"color is {idx}" for idx in range(num_texts)]
            rounds.append({name: _timed(run, texts) for name, run in runners.items()})
    server.kill()
    server.communicate()
    print(f"\n{num_texts:,} strings, load {os.getloadavg()[0]:.1f}, median of {num_rounds} rounds\n")
    print("| client | strings/s | CPU microseconds per string |\n|---|---|---|")
    for name in runners:
        wall, cpu = (median(times[name][part] for times in rounds) for part in (0, 1))
        print(f"| {name} | {num_texts / wall:,.0f} | {1e6 * cpu / num_texts:.1f} |")


def _timed(run: Callable[[list[str]], object], texts: list[str]) -> tuple[float, float]:
    """Wall-clock and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    run(texts)
    return time.perf_counter() - wall, time.process_time() - cpu


def _print_failures(num_texts: int) -> None:
    from faulty_endpoint import FAULTS, KEY, WIDTH, AtRandom, FaultyEndpoint, true_vectors
    from tributary.embed import EndpointEmbedder
    from tributary.embed.endpoint_settings import EndpointSettings

    faults = AtRandom(FAULTS, 0.5, seed=3)
    texts = [f"shade is {idx}" for idx in range(num_texts)]
    with FaultyEndpoint(always=faults) as server:
        settings = EndpointSettings(server.url, "m", api_key=KEY, max_texts=16, timeout_seconds=1.0)
        start = time.perf_counter()
        vectors = EndpointEmbedder(WIDTH, settings).embed(texts)
        seconds = time.perf_counter() - start
        right = int(np.isclose(vectors, true_vectors(texts), atol=1e-5).all(axis=1).sum())
        print(f"\n{num_texts:,} strings, {len(server.requests):,} requests, half of them failing, {seconds:.1f} s\n")
        print("| strings | |\n|---|---|")
        print(f"| right at the end | {right:,} |")
        print(f"| delivered (paid) by the server | {server.delivered.total():,} |")
        print(f"| asked for again after they were delivered | {len(server.paid_twice):,} |")
        print(f"| asked for, failed requests included | {server.asked.total():,} |")
    print("\n| failure | requests |\n|---|---|")
    for name, count in sorted(faults.counts.items()):
        print(f"| {name} | {count} |")


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, default=32_768)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--faulty", type=int, default=3_000, help="strings sent to the failing server")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        _serve()
        return
    _print_failures(options.faulty)
    _print_speed(options.texts, options.rounds)


if __name__ == "__main__":
    main()
