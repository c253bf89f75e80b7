"""The embedder `local`: all-MiniLM-L6-v2 in this process, on the processor or on an accelerator.

A text's vector depends on the text alone: not on the texts beside it, on its place among them or on the number of
threads. On the processor (`kernel`) it has the same bits on every machine; an accelerator (`accelerator`) rounds in
its own way, so the cache keeps its vectors apart.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tributary.embed.accelerator import JaxModel, has_accelerator, jax_route
from tributary.embed.interface import Identity, Part, assembled
from tributary.embed.kernel import ROUTE, KernelModel
from tributary.embed.phrases import normalised
from tributary.embed.projection import FULL_WIDTH, projection, projection_sha
from tributary.embed.weights import MODEL, WEIGHTS, find_weights, verify_weights

if TYPE_CHECKING:
    from tokenizers import Tokenizer

DEVICE_VARIABLE = "TRIBUTARY_LOCAL_DEVICE"
"""Environment variable: where the model runs, one of `DEVICES`."""

DEVICES = ("auto", "cpu", "jax")
"""An accelerator where there is one, else the processor; the processor; JAX on whatever it finds."""

MAX_TOKENS = 256
_MAX_CHARACTERS = 8 * MAX_TOKENS * 4  # of a text; the tokenizer need not read what truncation drops anyway


class LocalEmbedder:
    """The embedder `local`.

    Args:
        dimension: Length of the vectors: 8 to 256 through the frozen projection, or 384 without it.
        folder: Where the model's files are, if not where `make setup` puts them.
        threads: Of the processor; 0 for one on every core.
        device: One of `DEVICES`; by default what `TRIBUTARY_LOCAL_DEVICE` says, else `auto`.

    Raises:
        FileNotFoundError: The model's files are not there; the message says what to do.
        ValueError: The model cannot make vectors of this length, or there is no such device.
    """

    def __init__(
        self,
        dimension: int,
        *,
        folder: str | os.PathLike[str] | None = None,
        threads: int = 0,
        device: str | None = None,
    ) -> None:
        self._projection = projection(dimension)
        self._dimension = dimension
        self._folder: Path = find_weights(folder)
        self._threads = threads or len(os.sched_getaffinity(0))
        self._device = device or os.environ.get(DEVICE_VARIABLE) or "auto"
        if self._device not in DEVICES:
            raise ValueError(f"unknown device `{self._device}` of the local model (there are: {', '.join(DEVICES)})")
        self._lock = Lock()
        self._model: KernelModel | JaxModel | None = None
        self._tokenizer: Tokenizer | None = None

    @property
    def identity(self) -> Identity:
        """Kind, model, dimension, and the sha256 of the weights and of the projection."""
        identity = Identity(kind="local", model=MODEL, dimension=self._dimension, weights=WEIGHTS)
        if self._dimension != FULL_WIDTH:
            identity["projection"] = projection_sha()
        return identity

    @property
    def route(self) -> str:
        """The program and device that round the vectors."""
        return jax_route() if self._uses_jax() else ROUTE

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """The vectors of some texts: float32 [len(texts), dimension], every row of length one."""
        return assembled(len(texts), self._dimension, self.embed_parts(texts))

    def embed_parts(self, texts: Sequence[str]) -> Iterator[Part]:
        """The vectors of some texts, part by part."""
        yield from self._token_parts(self.token_ids(texts))

    def embed_tokens(self, tokens: list[list[int]]) -> npt.NDArray[np.float32]:
        """The vectors of texts given as token ids: float32 [len(tokens), dimension].

        Args:
            tokens: Ids of each text, the marks at both ends included, at most 256.
        """
        return assembled(len(tokens), self._dimension, self._token_parts(tokens))

    @property
    def vocabulary_size(self) -> int:
        """How many tokens there are."""
        return self._opened_tokenizer().get_vocab_size()

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of some texts, with the model's marks at both ends, at most 256 each."""
        readable = [normalised(text[:_MAX_CHARACTERS]) for text in texts]
        return [encoding.ids for encoding in self._opened_tokenizer().encode_batch_fast(readable)]

    def _token_parts(self, tokens: list[list[int]]) -> Iterator[Part]:
        if tokens:
            yield from self._opened_model().parts(tokens)

    def _opened_model(self) -> KernelModel | JaxModel:
        """The model, its weights read and verified once."""
        with self._lock:
            if self._model is None:
                if self._uses_jax():
                    self._model = JaxModel(self._folder, self._projection)
                else:
                    self._model = KernelModel(self._folder, self._projection, self._threads)
            return self._model

    def _uses_jax(self) -> bool:
        return self._device == "jax" or (self._device == "auto" and has_accelerator())

    def _opened_tokenizer(self) -> "Tokenizer":
        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = _open_tokenizer(self._folder)
            return self._tokenizer


def _open_tokenizer(folder: Path) -> "Tokenizer":
    from tokenizers import Tokenizer

    verify_weights(folder, names=("tokenizer.json", "config.json"))
    tokenizer = Tokenizer.from_file(os.fspath(folder / "tokenizer.json"))
    tokenizer.no_padding()  # the file asks for 128 tokens always
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer
