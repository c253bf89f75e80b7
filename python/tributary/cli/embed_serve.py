"""`tributary embed-serve`: the local model as an OpenAI-compatible server."""

from typing import Annotated

import typer


def embed_serve(
    host: Annotated[str, typer.Option(help="Address to listen on; others than loopback are open to the network.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any that is free.")] = 8377,
) -> None:
    """Serve the local embedder at /v1/embeddings until Ctrl-C; with TRIBUTARY_SERVE_API_KEY set, clients need the key.

    Example: tributary embed-serve --port 8377
    """
    import os

    from tributary.embed import LocalEmbedder
    from tributary.embed.projection import FULL_WIDTH
    from tributary.embed.server import EmbeddingServer

    embedder = LocalEmbedder(FULL_WIDTH)
    with EmbeddingServer(host, port, embedder, api_key=os.environ.get("TRIBUTARY_SERVE_API_KEY", "")) as server:
        typer.echo(f"serving at {server.url}; Ctrl-C ends it")
        server.serve_forever()
