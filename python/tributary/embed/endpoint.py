"""The embedder `endpoint`: any server that speaks OpenAI's `/v1/embeddings`.

`documentation/embedders.md` describes what is done about each failure. What an endpoint was seen to take (requests at
once, texts in a request, the width of its vectors) is remembered from one call of `embed` to the next.
"""

import queue
import sys
import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from tributary.embed.endpoint_failures import EndpointError
from tributary.embed.endpoint_requests import batches, estimated_tokens
from tributary.embed.endpoint_round import Limits, Round
from tributary.embed.endpoint_settings import EndpointSettings, Reduction
from tributary.embed.interface import Identity, Part, assembled, unit_rows
from tributary.embed.phrases import normalised
from tributary.embed.projection import FULL_WIDTH, projection_sha, reduced
from tributary.embed.weights import MODEL


class EndpointEmbedder:
    """The embedder `endpoint`.

    Args:
        dimension: Length of the vectors, at most what the server's have.
        settings: Which endpoint, and how to treat it.
        announce: Told how much will be sent; the error stream by default.

    Attributes:
        cut_texts: Texts that were longer than the endpoint takes, and of which it got the beginning.

    Example:
        >>> from tributary.embed.endpoint_settings import EndpointSettings
        >>> EndpointEmbedder(256, EndpointSettings("http://localhost:8000/v1", "m")).identity["reduction"]
        'truncated'
    """

    def __init__(
        self, dimension: int, settings: EndpointSettings, *, announce: Callable[[str], None] | None = None
    ) -> None:
        if not 8 <= dimension <= 8192:
            raise ValueError(f"embedder `endpoint`: dimension must be between 8 and 8192, found {dimension}")
        self._dimension = dimension
        self._settings = settings
        self._announce = announce or _to_error_stream
        self._reduction = _reduction(settings, dimension)
        width = {"server": dimension, "projected": FULL_WIDTH, "truncated": settings.width}[self._reduction]
        self._limits = Limits(settings, width)
        self.cut_texts: list[str] = []

    @property
    def identity(self) -> Identity:
        """Kind, model, dimension and how vectors come to it; not the address, which may move."""
        identity = Identity(
            kind="endpoint", model=self._settings.model, dimension=self._dimension, reduction=self._reduction
        )
        if self._reduction == "projected":
            identity["projection"] = projection_sha()
        return identity

    def announce(self, texts: Sequence[str], num_found: int) -> None:
        """Says how many texts, tokens and requests are about to be sent, and how many texts the cache holds."""
        settings = self._settings
        kept = f"; {num_found:,} more are in the cache" if num_found else ""
        if not texts:
            self._announce(f"nothing to send to {settings.host} ({settings.model}){kept}")
            return
        clean = [normalised(text) for text in texts]
        tokens = sum(map(estimated_tokens, clean))
        requests = sum(1 for _ in batches(clean, max_texts=settings.max_texts, max_tokens=settings.max_tokens))
        self._announce(
            f"sending {len(texts):,} distinct texts, about {tokens:,} tokens, in about {requests:,} requests to"
            f" {settings.host} ({settings.model}){kept}"
        )

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """The vectors of some texts: float32 [len(texts), dimension], every row of length one."""
        return assembled(len(texts), self._dimension, self.embed_parts(texts))

    def embed_parts(self, texts: Sequence[str]) -> Iterator[Part]:
        """The vectors of some texts, answer by answer.

        Raises:
            EndpointError: The endpoint failed for good. What was under way is answered and handed out before.
        """
        if not texts:
            return
        answers: queue.SimpleQueue[Part | BaseException | None] = queue.SimpleQueue()
        round_ = Round(texts, self._settings, self._limits, answers.put)
        thread = threading.Thread(target=round_.run, name="endpoint", daemon=True)
        thread.start()
        try:
            while (answer := answers.get()) is not None:
                if isinstance(answer, BaseException):
                    raise answer
                members, vectors = answer
                yield members, self._reduced(vectors)
        finally:
            round_.stop()
            thread.join()
            self.cut_texts += [texts[member] for member in sorted(round_.cut)]

    def _reduced(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if self._reduction == "projected":
            return reduced(unit_rows(vectors), self._dimension)
        if vectors.shape[1] < self._dimension:
            raise EndpointError(
                f"{self._settings.host}: the vectors of {self._settings.model} have {vectors.shape[1]} numbers, fewer"
                f" than the {self._dimension} asked for; choose a dimension of at most {vectors.shape[1]}"
            )
        return unit_rows(vectors[:, : self._dimension])


def _reduction(settings: EndpointSettings, dimension: int) -> Reduction:
    if settings.server_reduces:
        return "server"
    is_minilm = settings.model.rsplit("/", 1)[-1] == MODEL
    return "projected" if is_minilm and dimension < FULL_WIDTH else "truncated"


def _to_error_stream(message: str) -> None:
    print(message, file=sys.stderr)
