"""The embedder `endpoint`: any server that speaks OpenAI's `/v1/embeddings`.

The client of `openai` sends the requests; retries, limits, splitting and the reading of answers are ours, because
each has to know which texts are paid for. Every answer is handed on as it comes, so that the cache keeps it before
the next one is there. `documentation/embedders.md` describes what is done about each failure.
"""

import asyncio
import queue
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tributary.embed.endpoint_answer import Answer, read_answer
from tributary.embed.endpoint_settings import EndpointSettings, Reduction
from tributary.embed.endpoint_traffic import Traffic
from tributary.embed.interface import Identity, Part, assembled, unit_rows
from tributary.embed.phrases import normalised
from tributary.embed.projection import FULL_WIDTH, projection_sha, reduced
from tributary.embed.weights import MODEL

if TYPE_CHECKING:
    from openai import APIStatusError

_Members = npt.NDArray[np.int64]
_REFUSALS = (400, 413, 422)
_FATAL = {401: "does not accept the key", 403: "forbids the request", 404: "does not know the address or the model"}
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0
_PATIENCE_WITH_STRANGERS = 15.0  # with an address that never answered: likely a wrong one
_INVALID_ATTEMPTS = 4
_FAILURES_BEFORE_SPLIT = 2
_SHORTEST_TOKENS = 16
_LENGTH_WORDS = ("token", "too long", "too large", "length", "context", "maximum")


class EndpointError(OSError):
    """An endpoint did not give vectors; whatever it gave before is kept in the cache."""


class _TroubleError(Exception):
    """A request failed in a way that may pass."""

    def __init__(
        self, message: str, *, wait: float | None = None, is_overrun: bool = False, patience: float = float("inf")
    ) -> None:
        super().__init__(message)
        self.wait = wait
        self.is_overrun = is_overrun
        self.patience = patience  # seconds after which trying again is hopeless


class _RefusalError(Exception):
    """The server will not take this batch."""

    def __init__(self, message: str, *, is_about_length: bool) -> None:
        super().__init__(message)
        self.is_about_length = is_about_length


class _StopError(Exception):
    """Nothing more is to be sent."""


class EndpointEmbedder:
    """The embedder `endpoint`.

    Args:
        dimension: Length of the vectors, at most what the server's have.
        settings: Which endpoint, and how to treat it.
        announce: Told how much will be sent, and of texts that had to be cut.

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
        self._width = {"server": dimension, "projected": FULL_WIDTH, "truncated": settings.width}[self._reduction]

    @property
    def identity(self) -> Identity:
        """Kind, model, dimension and how vectors come to it; not the address, which may move."""
        identity = Identity(
            kind="endpoint", model=self._settings.model, dimension=self._dimension, reduction=self._reduction
        )
        if self._reduction == "projected":
            identity["projection"] = projection_sha()
        return identity

    def announce(self, texts: Sequence[str]) -> None:
        """Says how many texts and tokens are about to be sent."""
        tokens = sum(estimated_tokens(normalised(text)) for text in texts)
        self._announce(
            f"sending {len(texts):,} distinct texts, about {tokens:,} tokens, to {self._settings.host}"
            f" ({self._settings.model})"
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
        round_ = _Round([self._readable(text) for text in texts], self._settings, self._width, answers.put)
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
            for text in round_.shortened.values():
                self._announce(f"cut to what the endpoint takes: {_shown(text)}")

    def _readable(self, text: str) -> str:
        clean = normalised(text)
        if estimated_tokens(clean) <= self._settings.max_text_tokens:
            return clean
        self._announce(f"cut to {self._settings.max_text_tokens:,} tokens: {_shown(clean)}")
        return _cut(clean, self._settings.max_text_tokens)

    def _reduced(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if self._reduction == "projected":
            return reduced(unit_rows(vectors), self._dimension)
        if vectors.shape[1] < self._dimension:
            raise EndpointError(
                f"{self._settings.host}: the vectors of {self._settings.model} have {vectors.shape[1]} numbers, fewer"
                f" than the {self._dimension} asked for; choose a dimension of at most {vectors.shape[1]}"
            )
        return unit_rows(vectors[:, : self._dimension])


class _Round:
    """Some texts sent once, in a thread with an event loop of its own."""

    def __init__(
        self,
        texts: list[str],
        settings: EndpointSettings,
        width: int | None,
        hand_out: Callable[[Part | BaseException | None], None],
    ) -> None:
        self._texts = texts
        self._settings = settings
        self._width = width
        self._hand_out = hand_out
        self._traffic = Traffic(settings.max_concurrency)
        self._has_answered = False
        self._unconfirmed: dict[int, list[Part]] = {}  # answers by width, while that is not known
        self._failure: EndpointError | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._work: asyncio.Task[None] | None = None
        self.shortened: dict[int, str] = {}

    def stop(self) -> None:
        """Gives up what is not answered yet."""
        if self._loop is not None and self._work is not None:
            with suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._work.cancel)

    def run(self) -> None:
        """Sends everything; hands out parts, then the failure if there was one, then None."""
        try:
            asyncio.run(self._send_all())
            if self._failure is not None:
                self._hand_out(self._failure)
        except asyncio.CancelledError:
            pass  # whoever stopped this knows
        except BaseException as error:
            self._hand_out(error)
        finally:
            self._hand_out(None)

    async def _send_all(self) -> None:
        from openai import AsyncOpenAI

        self._loop = asyncio.get_running_loop()
        self._work = asyncio.current_task()
        settings = self._settings
        async with AsyncOpenAI(
            api_key=settings.api_key, base_url=settings.url, max_retries=0, timeout=settings.timeout_seconds
        ) as client:
            self._client = client
            async with asyncio.TaskGroup() as group:
                self._group = group
                for members in _batches(self._texts, settings):
                    group.create_task(self._deliver(members))
        if len(self._unconfirmed) > 1:
            self._fail(f"answers have vectors of {' and '.join(map(str, sorted(self._unconfirmed)))} numbers")
        elif self._unconfirmed:
            self._settle(*self._unconfirmed)

    async def _deliver(self, members: _Members) -> None:
        """Gets the vectors of a batch, in as many requests as it takes."""
        failures, invalid, deadline = 0, 0, float("inf")
        while len(members):
            try:
                answer = await self._ask(members)
            except _StopError:
                return
            except _RefusalError as refusal:
                await self._make_smaller(members, refusal)
                return
            except _TroubleError as trouble:
                failures += 1
                if failures > _FAILURES_BEFORE_SPLIT and len(members) > 1 and not trouble.is_overrun:
                    await self._split(members)  # some servers answer 500 to one text they cannot take
                    return
                patience = min(self._settings.deadline_seconds, trouble.patience)
                deadline = min(deadline, time.monotonic() + patience)
                wait = _backoff(failures) if trouble.wait is None else trouble.wait
                if time.monotonic() + wait > deadline:
                    self._fail(f"{trouble}; trying again for {patience:g} s did not help")
                    return
                await self._traffic.pause(wait, is_overrun=trouble.is_overrun)
                continue
            members = np.delete(members, answer.members)
            failures, deadline = 0, float("inf")
            if answer.problem is not None and len(members):
                invalid += 1
                if invalid == _INVALID_ATTEMPTS:
                    self._fail(f"{answer.problem}, {invalid} times; text: {_shown(self._texts[members[0]])}")
                    return
                await self._traffic.pause(_backoff(invalid), is_overrun=False)

    async def _ask(self, members: _Members) -> Answer:
        """Sends one request and hands out what its answer gives."""
        import openai

        settings = self._settings
        texts = [self._texts[member] for member in members]
        try:
            async with self._traffic.request():
                if self._failure is not None:
                    raise _StopError
                raw = await self._client.embeddings.with_raw_response.create(
                    input=texts,
                    model=settings.model,
                    encoding_format="base64",
                    dimensions=self._width if settings.server_reduces and self._width else openai.omit,
                )
        except openai.APITimeoutError:
            raise _TroubleError(f"no answer within {settings.timeout_seconds:g} s", is_overrun=True) from None
        except openai.APIConnectionError as error:
            patience = float("inf") if self._has_answered else _PATIENCE_WITH_STRANGERS
            cause = type(error.__cause__).__name__
            raise _TroubleError(f"the connection failed ({cause})", patience=patience) from None
        except openai.APIStatusError as error:
            raise self._judged(error, len(texts)) from None
        answer = read_answer(raw.content, len(texts), self._width)
        if len(answer.members):
            self._has_answered = True
            self._accept(members[answer.members], answer.vectors)
            self._traffic.succeeded()
        return answer

    def _accept(self, members: _Members, vectors: npt.NDArray[np.float32]) -> None:
        """Hands out an answer, as soon as the width of vectors is known: told, or that of two answers."""
        if self._width is not None:
            self._hand_out((members, vectors))
            return
        width = vectors.shape[1]
        self._unconfirmed.setdefault(width, []).append((members, vectors))
        if len(self._unconfirmed[width]) == 2:
            self._settle(width)

    def _settle(self, width: int) -> None:
        """Hands out the answers of a width and asks again for the texts of all others."""
        self._width = width
        for part in self._unconfirmed.pop(width):
            self._hand_out(part)
        for members, _ in chain.from_iterable(self._unconfirmed.values()):
            self._group.create_task(self._deliver(members))
        self._unconfirmed.clear()

    def _judged(self, error: "APIStatusError", num_texts: int) -> Exception:
        """What a status means; failures that will not pass are recorded here."""
        status = error.status_code
        said = self._redacted(_server_message(error))
        what = f"status {status}" + (f" ({said})" if said else "")
        if status in _REFUSALS or (status >= 500 and _speaks_of_length(said)):
            return _RefusalError(what, is_about_length=status == 413 or _speaks_of_length(said))
        if status == 429 and "insufficient_quota" not in error.response.text:
            return _TroubleError(what, wait=_retry_after(error), is_overrun=True)
        if status in (503, 529):
            return _TroubleError(what, wait=_retry_after(error), is_overrun=True)
        if status >= 500 or status in (408, 409):
            return _TroubleError(what, wait=_retry_after(error))
        # a server may echo the key of a request it does not trust
        reason = _FATAL.get(status)
        self._fail(f"status {status}: {reason}" if reason else what)
        return _StopError()

    async def _make_smaller(self, members: _Members, refusal: "_RefusalError") -> None:
        """After a refusal: halves the batch or, of a single text that is too long, the text."""
        if len(members) > 1:
            await self._split(members)
            return
        member = int(members[0])
        text = self._texts[member]
        if not refusal.is_about_length or estimated_tokens(text) <= _SHORTEST_TOKENS:
            self._fail(f"refuses the text {_shown(text)}: {refusal}")
            return
        self.shortened[member] = text
        self._texts[member] = _cut(text, estimated_tokens(text) // 2)
        await self._deliver(members)

    async def _split(self, members: _Members) -> None:
        middle = len(members) // 2
        await asyncio.gather(self._deliver(members[:middle]), self._deliver(members[middle:]))

    def _fail(self, message: str) -> None:
        """Records the first failure that will not pass and lets no further request out."""
        if self._failure is None:
            self._failure = EndpointError(f"{self._settings.host} ({self._settings.model}): {self._redacted(message)}")
        self._traffic.end()

    def _redacted(self, message: str) -> str:
        return message.replace(self._settings.api_key, "***")


def estimated_tokens(text: str) -> int:
    """Tokens of a text, guessed high: a third of its bytes, and two marks."""
    return len(text.encode()) // 3 + 2


def _cut(text: str, max_tokens: int) -> str:
    """The beginning of a text, of about so many tokens."""
    return text.encode()[: 3 * (max_tokens - 2)].decode(errors="ignore").rstrip() or text[:1]


def _batches(texts: Sequence[str], settings: EndpointSettings) -> Iterator[_Members]:
    """Texts of like length together, bounded in number and tokens."""
    sizes = np.array([estimated_tokens(text) for text in texts])
    batch: list[int] = []
    tokens = 0
    for member in np.argsort(-sizes, kind="stable").tolist():
        size = int(sizes[member])
        if batch and (len(batch) == settings.max_texts or tokens + size > settings.max_tokens):
            yield np.array(batch)
            batch, tokens = [], 0
        batch.append(member)
        tokens += size
    yield np.array(batch)


def _reduction(settings: EndpointSettings, dimension: int) -> Reduction:
    if settings.server_reduces:
        return "server"
    is_minilm = settings.model.rsplit("/", 1)[-1] == MODEL
    return "projected" if is_minilm and dimension < FULL_WIDTH else "truncated"


def _backoff(failures: int) -> float:
    return float(min(_LONGEST_WAIT, _FIRST_WAIT * 2.0 ** (failures - 1)) * random.uniform(0.5, 1.0))


def _retry_after(error: "APIStatusError") -> float | None:
    """Seconds the server asks us to stay away; None when it does not say."""
    headers = error.response.headers
    try:
        if (milliseconds := headers.get("retry-after-ms")) is not None:
            return max(0.0, float(milliseconds) / 1000)
        if (value := headers.get("retry-after")) is None:
            return None
        if value.strip().replace(".", "", 1).isdigit():
            return float(value)
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def _server_message(error: "APIStatusError") -> str:
    body = error.body
    if isinstance(body, dict):
        body = body.get("message") or body.get("error") or body.get("detail") or body
    return " ".join(str(body or "").split())[:200]


def _speaks_of_length(message: str) -> bool:
    return any(word in message.lower() for word in _LENGTH_WORDS)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:77]}...")


def _to_error_stream(message: str) -> None:
    print(message, file=sys.stderr)
