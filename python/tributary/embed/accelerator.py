"""The local model in JAX: on an accelerator, or on the processor to hold the native core against.

A text's vector depends on the text and the kind of device alone: a text is padded to the smallest of a fixed list of
lengths that holds it, and every batch of a length has the same number of rows, a partial one being filled up, so that
one compiled program makes all vectors of that length. On the processor each program runs on one thread, because the
multi-threaded product of XLA does not always add in the same order.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tributary.embed.interface import Part
from tributary.embed.weights import verify_weights

# Length in tokens -> texts of a batch: about 1,024 tokens each, which fills a core without leaving its cache.
_ROWS = {4: 256, 6: 176, 8: 128, 12: 96, 16: 64, 24: 48, 32: 32, 48: 24, 64: 16, 96: 12, 128: 8, 192: 6, 256: 4}
_ACCELERATOR_FACTOR = 32  # batches of an accelerator are larger by this

_Program = Callable[[npt.NDArray[np.int32], npt.NDArray[np.int32]], Any]


def has_accelerator() -> bool:
    """Whether JAX computes on something else than the processor; where it cannot, JAX is not even imported."""
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return False
    plugins = metadata.entry_points(group="jax_plugins")
    if not plugins and find_spec("jax_plugins") is None and find_spec("libtpu") is None:
        return False
    import jax

    return jax.default_backend() != "cpu"


def jax_route() -> str:
    """What the bits of a vector depend on besides the identity."""
    import jax

    return f"jax-{jax.default_backend()}"


class JaxModel:
    """The model as compiled programs, one per length.

    Args:
        folder: Where the model's files are; its weights are verified here.
        projection: float32 [384, D].

    Raises:
        SchemaError: The weights are not those of the model.
    """

    def __init__(self, folder: Path, projection: npt.NDArray[np.float32]) -> None:
        import jax
        from safetensors.numpy import load_file

        from tributary.embed.minilm import parameters_from

        verify_weights(folder, names=("model.safetensors",))
        tensors = load_file(folder / "model.safetensors")
        self._parameters = jax.device_put(parameters_from(tensors, projection))
        self._is_cpu = jax.default_backend() == "cpu"
        self._factor = 1 if self._is_cpu else _ACCELERATOR_FACTOR
        self._programs: dict[int, _Program] = {}

    def parts(self, tokens: Sequence[Sequence[int]]) -> Iterator[Part]:
        """The vectors of texts given as token ids, batch by batch, long texts first."""
        under_way: tuple[npt.NDArray[np.int64], Any] | None = None
        for length, members in _batches(tokens, self._factor):
            started = self._start(tokens, length, members)  # the device works on it while the one before is handed out
            if under_way is not None:
                yield _finished(*under_way)
            under_way = members, started
        if under_way is not None:
            yield _finished(*under_way)

    def _start(self, tokens: Sequence[Sequence[int]], length: int, members: npt.NDArray[np.int64]) -> Any:
        ids = np.zeros((_ROWS[length] * self._factor, length), dtype=np.int32)
        num_tokens = np.ones(len(ids), dtype=np.int32)
        for row, member in enumerate(members):
            ids[row, : len(tokens[member])] = tokens[member]
            num_tokens[row] = len(tokens[member])
        return self._program(length)(ids, num_tokens)

    def _program(self, length: int) -> _Program:
        """The compiled forward pass of texts padded to a length."""
        import jax

        from tributary.embed.minilm import sentence_vectors

        program = self._programs.get(length)
        if program is None:
            ids = np.zeros((_ROWS[length] * self._factor, length), dtype=np.int32)
            options = {"xla_cpu_multi_thread_eigen": False} if self._is_cpu else {}
            with jax.default_matmul_precision("highest"):
                lowered = jax.jit(sentence_vectors, compiler_options=options).lower(self._parameters, ids, ids[:, 0])
                compiled = lowered.compile()

            def program(ids: npt.NDArray[np.int32], num_tokens: npt.NDArray[np.int32]) -> Any:
                return compiled(self._parameters, jax.device_put(ids), jax.device_put(num_tokens))

            self._programs[length] = program
        return program


def _finished(members: npt.NDArray[np.int64], vectors: Any) -> Part:
    return members, np.asarray(vectors)[: len(members)]


def _batches(tokens: Sequence[Sequence[int]], factor: int) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """Padded length and members of every batch; long texts first, so that the last batches to end are short ones."""
    sizes = np.fromiter(map(len, tokens), dtype=np.int64, count=len(tokens))
    lengths = np.array(sorted(_ROWS))
    padded = lengths[np.searchsorted(lengths, sizes)]
    for length in lengths[::-1].tolist():
        members = np.flatnonzero(padded == length)
        rows = _ROWS[length] * factor
        for start in range(0, len(members), rows):
            yield length, members[start : start + rows]
