"""The embedder `local`: all-MiniLM-L6-v2 in this process, on the CPU or on an accelerator.

A text's vector depends on the text alone (and, in the last bits, on the kind of machine): it does not depend on the
texts beside it, on its place among them or on the number of threads. Three things see to that. A text is padded to
the smallest of a fixed list of lengths that holds it. Every batch of a length has the same number of rows, a partial
one being filled up, so that one compiled program makes all vectors of that length. On the CPU each program runs on
one thread, because the multi-threaded product of XLA does not always add in the same order; batches run side by side
instead.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tributary.embed.interface import Identity, Part, assembled
from tributary.embed.phrases import normalised
from tributary.embed.projection import FULL_WIDTH, projection, projection_sha
from tributary.embed.weights import MODEL, WEIGHTS, find_weights, verify_weights

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Length in tokens -> texts of a batch: about 1,024 tokens each, which fills a core without leaving its cache.
ROWS = {4: 256, 6: 176, 8: 128, 12: 96, 16: 64, 24: 48, 32: 32, 48: 24, 64: 16, 96: 12, 128: 8, 192: 6, 256: 4}
MAX_TOKENS = max(ROWS)
_ACCELERATOR_FACTOR = 32  # batches of an accelerator are larger by this
_MAX_CHARACTERS = 8 * MAX_TOKENS * 4  # of a text; the tokenizer need not read what truncation drops anyway

_Program = Callable[[npt.NDArray[np.int32], npt.NDArray[np.int32]], Any]
_Batch = tuple[int, npt.NDArray[np.int64]]


class LocalEmbedder:
    """The embedder `local`.

    Args:
        dimension: Length of the vectors: 8 to 256 through the frozen projection, or 384 without it.
        folder: Where the model's files are, if not where `make setup` puts them.
        threads: Batches worked on side by side; 0 for one on every core.

    Raises:
        FileNotFoundError: The model's files are not there; the message says what to do.
        ValueError: The model cannot make vectors of this length.
    """

    def __init__(self, dimension: int, *, folder: str | os.PathLike[str] | None = None, threads: int = 0) -> None:
        self._projection = projection(dimension)
        self._dimension = dimension
        self._folder: Path = find_weights(folder)
        self._threads = threads or len(os.sched_getaffinity(0))
        self._lock = Lock()
        self._programs: dict[int, _Program] = {}
        self._parameters: Any = None
        self._tokenizer: Tokenizer | None = None

    @property
    def identity(self) -> Identity:
        """Kind, model, dimension, and the sha256 of the weights and of the projection."""
        identity = Identity(kind="local", model=MODEL, dimension=self._dimension, weights=WEIGHTS)
        if self._dimension != FULL_WIDTH:
            identity["projection"] = projection_sha()
        return identity

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """The vectors of some texts: float32 [len(texts), dimension], every row of length one."""
        return assembled(len(texts), self._dimension, self.embed_parts(texts))

    def embed_parts(self, texts: Sequence[str]) -> Iterator[Part]:
        """The vectors of some texts, batch by batch, long texts first."""
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

    def _token_parts(self, tokens: list[list[int]]) -> Iterator[Part]:
        if not tokens:
            return
        self._load()
        factor = self._batch_factor()
        batches = list(_batches(tokens, factor))
        pool = ThreadPoolExecutor(self._threads)
        try:
            lengths = dict.fromkeys(length for length, _ in batches)
            list(pool.map(lambda length: self._program(length, factor), lengths))  # each compiled once
            results = pool.map(lambda batch: self._run(tokens, batch, factor), batches)
            for (_, members), vectors in zip(batches, results, strict=True):
                yield members, vectors
        finally:
            pool.shutdown(cancel_futures=True)

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of some texts, with the model's marks at both ends, at most 256 each."""
        readable = [normalised(text[:_MAX_CHARACTERS]) for text in texts]
        return [encoding.ids for encoding in self._opened_tokenizer().encode_batch_fast(readable)]

    def _opened_tokenizer(self) -> "Tokenizer":
        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = _open_tokenizer(self._folder)
            return self._tokenizer

    def _run(self, tokens: list[list[int]], batch: _Batch, factor: int) -> npt.NDArray[np.float32]:
        length, members = batch
        ids = np.zeros((ROWS[length] * factor, length), dtype=np.int32)
        num_tokens = np.ones(len(ids), dtype=np.int32)
        for row, member in enumerate(members):
            ids[row, : len(tokens[member])] = tokens[member]
            num_tokens[row] = len(tokens[member])
        vectors: npt.NDArray[np.float32] = np.asarray(self._program(length, factor)(ids, num_tokens))
        return vectors[: len(members)]

    def _batch_factor(self) -> int:
        import jax

        return 1 if jax.default_backend() == "cpu" else _ACCELERATOR_FACTOR

    def _load(self) -> None:
        """Reads and verifies the weights, once."""
        import jax
        from safetensors.numpy import load_file

        from tributary.embed.minilm import parameters_from

        with self._lock:
            if self._parameters is None:
                verify_weights(self._folder)
                tensors = load_file(self._folder / "model.safetensors")
                self._parameters = jax.device_put(parameters_from(tensors, self._projection))

    def _program(self, length: int, factor: int) -> _Program:
        """The compiled forward pass of texts padded to a length."""
        import jax

        from tributary.embed.minilm import sentence_vectors

        program = self._programs.get(length)
        if program is None:
            ids = np.zeros((ROWS[length] * factor, length), dtype=np.int32)
            options = {"xla_cpu_multi_thread_eigen": False} if jax.default_backend() == "cpu" else {}
            with jax.default_matmul_precision("highest"):
                lowered = jax.jit(sentence_vectors, compiler_options=options).lower(self._parameters, ids, ids[:, 0])
                compiled = lowered.compile()

            def program(ids: npt.NDArray[np.int32], num_tokens: npt.NDArray[np.int32]) -> Any:
                return compiled(self._parameters, jax.device_put(ids), jax.device_put(num_tokens))

            self._programs[length] = program
        return program


def _open_tokenizer(folder: Path) -> "Tokenizer":
    from tokenizers import Tokenizer

    verify_weights(folder, names=("tokenizer.json", "config.json"))
    tokenizer = Tokenizer.from_file(os.fspath(folder / "tokenizer.json"))
    tokenizer.no_padding()  # the file asks for 128 tokens always
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer


def _batches(tokens: Sequence[Sequence[int]], factor: int) -> Iterator[_Batch]:
    """Padded length and members of every batch; long texts first, so that the last batches to end are short ones."""
    sizes = np.fromiter(map(len, tokens), dtype=np.int64, count=len(tokens))
    lengths = np.array(sorted(ROWS))
    padded = lengths[np.searchsorted(lengths, sizes)]
    for length in lengths[::-1].tolist():
        members = np.flatnonzero(padded == length)
        rows = ROWS[length] * factor
        for start in range(0, len(members), rows):
            yield length, members[start : start + rows]
