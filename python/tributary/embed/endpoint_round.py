"""Some texts sent to an endpoint once: every request, and what becomes of it.

The client of `openai` carries the requests; retries, limits, splitting and the reading of answers are ours, because
each has to know which texts are paid for. Every answer is handed out as it comes.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from tributary.embed.endpoint_answer import Answer, read_answer
from tributary.embed.endpoint_failures import EndpointError, FatalError, Refusal, RefusalError, TroubleError, judged
from tributary.embed.endpoint_requests import Members, batches, beginning, estimated_tokens
from tributary.embed.endpoint_settings import EndpointSettings
from tributary.embed.endpoint_traffic import Traffic
from tributary.embed.interface import Part
from tributary.embed.phrases import normalised

_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0
_PATIENCE_WITH_STRANGERS = 15.0  # with an address that never answered: likely a wrong one
_INVALID_ATTEMPTS = 6  # in a row, without one vector that can be used
_FAILURES_BEFORE_SPLIT = 2
_SHORTEST_TOKENS = 16
_MAX_REFUSALS = 20


class Limits:
    """What an endpoint was seen to take; it outlives the round that learned it.

    Args:
        settings: What is believed before anything was sent.
        width: Numbers in a vector, if known.
    """

    def __init__(self, settings: EndpointSettings, width: int | None) -> None:
        self._settings = settings
        self.max_texts = settings.max_texts
        self.max_tokens = settings.max_tokens
        self.concurrency: int | None = None
        self.has_answered = False
        self.width = width

    def allow(self, num_texts: int, num_tokens: int) -> bool:
        """Whether a request may be so large; one text always goes."""
        return num_texts == 1 or (num_texts <= self.max_texts and num_tokens <= self.max_tokens)

    def lower(self, num_texts: int, num_tokens: int) -> None:
        """After a request was refused for its size, and its halves were not."""
        if num_texts / self._settings.max_texts >= num_tokens / self._settings.max_tokens:  # likely for its texts
            self.max_texts = min(self.max_texts, (num_texts + 1) // 2)
        else:
            self.max_tokens = min(self.max_tokens, (num_tokens + 1) // 2)


class Round:
    """Some texts sent once; `run` works in a thread, with an event loop of its own.

    Args:
        texts: Any texts.
        settings: Which endpoint, and how to treat it.
        limits: What it takes; changed by what is learned.
        hand_out: Told of vectors as they come, of the failure if there is one, and of the end (None).

    Attributes:
        cut: Places of texts that were too long, and of which the beginning was sent.
    """

    def __init__(
        self,
        texts: Sequence[str],
        settings: EndpointSettings,
        limits: Limits,
        hand_out: Callable[[Part | BaseException | None], None],
    ) -> None:
        self._given = texts
        self._texts = [normalised(text) for text in texts]
        self._settings = settings
        self._limits = limits
        self._hand_out = hand_out
        self._traffic = Traffic(settings.max_concurrency, first_limit=limits.concurrency)
        self._unconfirmed: dict[int, list[Part]] = {}  # answers by width, while that is not known
        self._failure: EndpointError | None = None
        self._refusals: dict[int, str] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._work: asyncio.Task[None] | None = None
        self.cut: set[int] = set()
        for member, text in enumerate(self._texts):
            if estimated_tokens(text) > settings.max_text_tokens:
                self._cut(member, settings.max_text_tokens)

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
        settings, limits = self._settings, self._limits
        async with AsyncOpenAI(
            api_key=settings.api_key, base_url=settings.url, max_retries=0, timeout=settings.timeout_seconds
        ) as client:
            self._client = client
            async with asyncio.TaskGroup() as group:
                self._group = group
                for members in batches(self._texts, max_texts=limits.max_texts, max_tokens=limits.max_tokens):
                    await self._traffic.room()
                    if self._failure is not None:
                        break
                    group.create_task(self._deliver(members))
        limits.concurrency = self._traffic.limit
        if len(self._unconfirmed) > 1:
            self._fail(f"answers have vectors of {' and '.join(map(str, sorted(self._unconfirmed)))} numbers")
        elif self._unconfirmed:
            self._settle(*self._unconfirmed)
        if self._refusals:
            self._fail_with_refusals()

    async def _deliver(self, members: Members) -> bool:
        """Gets the vectors of a batch, in as many requests as it takes; whether no request of it was refused."""
        failures, invalid, deadline = 0, 0, float("inf")
        while len(members):
            try:
                answer = await self._ask(members)
            except FatalError as fatal:
                self._fail(str(fatal))
                return False
            except RefusalError as refusal:
                await self._make_smaller(members, refusal)
                return False
            except TroubleError as trouble:
                failures += 1
                if failures > _FAILURES_BEFORE_SPLIT and len(members) > 1 and not trouble.is_overrun:
                    await self._split(members)  # some servers answer 500 to one text they cannot take
                    return True
                patience = min(self._settings.deadline_seconds, trouble.patience)
                deadline = min(deadline, time.monotonic() + patience)
                wait = _backoff(failures) if trouble.wait is None else trouble.wait
                if time.monotonic() + wait > deadline:
                    self._fail(f"{trouble}; trying again for {patience:g} s did not help")
                    return False
                await self._traffic.pause(wait, is_overrun=trouble.is_overrun)
                continue
            if answer is None:  # nothing is sent any more, or the batch is larger than what was learned meanwhile
                return self._failure is None and all(await self._split(members))
            members = np.delete(members, answer.members)
            failures, deadline = 0, float("inf")
            if answer.problem is not None and len(members):
                invalid = 1 if len(answer.members) else invalid + 1
                if invalid == _INVALID_ATTEMPTS:
                    self._fail(f"{answer.problem}, {invalid} times; text: {shown(self._texts[members[0]])}")
                    return False
                await self._traffic.pause(_backoff(invalid), is_overrun=False)
        return True

    async def _ask(self, members: Members) -> Answer | None:
        """Sends one request and hands out what its answer gives; None when it was better not sent."""
        import openai

        settings, limits = self._settings, self._limits
        texts = [self._texts[member] for member in members]
        request: dict[str, Any] = {"input": texts, "model": settings.model, "encoding_format": "base64"}
        if settings.server_reduces and limits.width:
            request["dimensions"] = limits.width
        try:
            async with self._traffic.request():
                if self._failure is not None or not limits.allow(len(texts), sum(map(estimated_tokens, texts))):
                    return None
                # the typed call looks at every string by itself and takes longer than all the rest together
                body = await self._client.post("/embeddings", cast_to=bytes, body=request)
        except openai.APITimeoutError:
            raise TroubleError(f"no answer within {settings.timeout_seconds:g} s", is_overrun=True) from None
        except openai.APIConnectionError as error:
            patience = float("inf") if limits.has_answered else _PATIENCE_WITH_STRANGERS
            cause = type(error.__cause__).__name__
            raise TroubleError(f"the connection failed ({cause})", patience=patience) from None
        except openai.APIStatusError as error:
            raise judged(error, settings.api_key) from None
        answer = read_answer(body, len(texts), limits.width)
        if len(answer.members):
            limits.has_answered = True
            self._accept(members[answer.members], answer.vectors)
            self._traffic.succeeded()
        return answer

    def _accept(self, members: Members, vectors: npt.NDArray[np.float32]) -> None:
        """Hands out an answer, as soon as the width of vectors is known: told, or that of two answers."""
        if self._limits.width is not None:
            self._hand_out((members, vectors))
            return
        width = vectors.shape[1]
        self._unconfirmed.setdefault(width, []).append((members, vectors))
        if len(self._unconfirmed[width]) == 2:
            self._settle(width)

    def _settle(self, width: int) -> None:
        """Hands out the answers of a width and asks again for the texts of all others."""
        self._limits.width = width
        for part in self._unconfirmed.pop(width):
            self._hand_out(part)
        for members, _ in chain.from_iterable(self._unconfirmed.values()):
            self._group.create_task(self._deliver(members))
        self._unconfirmed.clear()

    async def _make_smaller(self, members: Members, refusal: RefusalError) -> None:
        """After a refusal: halves the batch or, of a single text that is too long, the text."""
        if len(members) > 1:
            if all(await self._split(members)):
                tokens = sum(estimated_tokens(self._texts[member]) for member in members)
                self._limits.lower(len(members), tokens)
            return
        member = int(members[0])
        text = self._texts[member]
        if refusal.is_about_length and estimated_tokens(text) > _SHORTEST_TOKENS:
            self._cut(member, estimated_tokens(text) // 2)
            await self._deliver(members)
            return
        self._refusals[member] = str(refusal)
        if not self._limits.has_answered or len(self._refusals) == _MAX_REFUSALS:
            self._fail_with_refusals()  # likely it takes nothing at all

    async def _split(self, members: Members) -> tuple[bool, bool]:
        middle = len(members) // 2
        return await asyncio.gather(self._deliver(members[:middle]), self._deliver(members[middle:]))

    def _cut(self, member: int, max_tokens: int) -> None:
        self._texts[member] = beginning(self._texts[member], max_tokens)
        self.cut.add(member)

    def _fail_with_refusals(self) -> None:
        refusals = [Refusal(self._given[member], why) for member, why in sorted(self._refusals.items())]
        number = "the text" if len(refusals) == 1 else f"{len(refusals)} texts, such as"
        self._fail(f"refuses {number} {shown(refusals[0].text)}: {refusals[0].reason}", tuple(refusals))

    def _fail(self, message: str, refusals: tuple[Refusal, ...] = ()) -> None:
        """Records the first failure that will not pass and lets no further request out."""
        if self._failure is None:
            settings = self._settings
            said = message.replace(settings.api_key, "***")
            self._failure = EndpointError(f"{settings.host} ({settings.model}): {said}", refusals)
        self._traffic.end()


def shown(text: str) -> str:
    """A text for a message."""
    return repr(text if len(text) <= 80 else f"{text[:77]}...")


def _backoff(failures: int) -> float:
    return float(min(_LONGEST_WAIT, _FIRST_WAIT * 2.0 ** (failures - 1)) * random.uniform(0.5, 1.0))
