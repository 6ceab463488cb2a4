"""An OpenAI-compatible endpoint: likelihoods and continuations over HTTP."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

from tlscale.errors import TlscaleError, UsageError
from tlscale.evaluation.predictors.language import LanguagePredictor
from tlscale.evaluation.predictors.setup import Setup
from tlscale.evaluation.requests import (
    Choices,
    ChoiceScores,
    Generated,
    Generation,
    Likelihood,
    LikelihoodScore,
    Request,
    Result,
    Rolling,
    RollingScore,
)
from tlscale.recipe.base import Frozen, Positive

LAST_OF_ANSWER = 300
TRY_AGAIN = (408, 429, 500, 502, 503, 504)
CHUNK = 1 << 16


class Options(Frozen):
    """`evaluate.predictor_options` of an endpoint.

    `timeout` is in seconds for one answer as a whole; `key` names the environment variable of the key.
    """

    model: str = "default"
    timeout: float = 60.0
    retries: int = 2
    parallel: Positive = 8
    key: str = "OPENAI_API_KEY"


@dataclass(frozen=True)
class Endpoint:
    """Where requests go; redirects are not followed, so that a key goes nowhere else."""

    url: str
    options: Options
    key: str | None

    def post(self, body: Mapping[str, Any]) -> Any:
        """The answer to one request, tried again where the server is busy or doesn't answer in time.

        Raises:
            TlscaleError: it refuses, stalls, or says what is no JSON.
        """
        for attempt in range(self.options.retries + 1):
            try:
                status, content = self._once(body)
            except (OSError, HTTPException) as error:
                problem = f"{type(error).__name__}: {error}".rstrip(": ")
            else:
                if status == 200:
                    return self._parsed(content)
                said = content[:LAST_OF_ANSWER].decode(errors="replace")
                problem = f"HTTP {status}: {said}"
                if status not in TRY_AGAIN:
                    raise TlscaleError(f"{self.url}: {problem}")
            if attempt < self.options.retries:
                time.sleep(min(2.0**attempt / 4, 8.0))
        raise TlscaleError(
            f"{self.url}: no answer after {self.options.retries + 1} tries of {self.options.timeout:g} s "
            f"(evaluate.predictor_options.timeout): {problem}"
        )

    def _once(self, body: Mapping[str, Any]) -> tuple[int, bytes]:
        place = urlsplit(self.url)
        kind = HTTPSConnection if place.scheme == "https" else HTTPConnection
        connection = kind(place.hostname or "", place.port, timeout=self.options.timeout)
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        # A server that sends a byte now and then never runs into the socket's own timeout.
        cut = threading.Timer(self.options.timeout, _hang_up, (connection,))
        cut.daemon = True
        cut.start()
        try:
            path = f"{place.path.rstrip('/')}/completions"
            connection.request("POST", path, json.dumps(body).encode(), headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            cut.cancel()
            connection.close()

    def _parsed(self, content: bytes) -> Any:
        try:
            return json.loads(content)["choices"][0]
        except (ValueError, LookupError, TypeError) as error:
            said = content[:LAST_OF_ANSWER].decode(errors="replace")
            raise TlscaleError(f"{self.url}: not an answer of a completions endpoint: {said}") from error


def _hang_up(connection: HTTPConnection) -> None:
    if connection.sock is not None:
        connection.sock.close()


@dataclass(frozen=True)
class EndpointScorer:
    """Asks one text after the other, several at a time."""

    endpoint: Endpoint

    def overflow(self, requests: Sequence[Request]) -> tuple[int, ...]:
        """Unknown: the server refuses what is too long, and its answer is passed on."""
        return (0,) * len(requests)

    def score(self, requests: Sequence[Request]) -> Iterator[tuple[int, Result]]:
        """The result of every request, as its last answer comes.

        Raises:
            TlscaleError: the endpoint refuses, stalls, or doesn't give log-probabilities of a prompt.
        """
        pool = ThreadPoolExecutor(self.endpoint.options.parallel)
        try:
            running = {pool.submit(self._result, request): at for at, request in enumerate(requests)}
            for done in as_completed(running):
                yield running[done], done.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _result(self, request: Request) -> Result:
        if isinstance(request, Choices):
            found = [self._likelihood(request.context, option) for option in request.options]
            base = None
            if request.unconditional is not None:
                alone = (self._likelihood(request.unconditional, option) for option in request.options)
                base = tuple(one.logprob for one in alone)
            return ChoiceScores(tuple(f.logprob for f in found), tuple(f.tokens for f in found), base)
        if isinstance(request, Likelihood):
            return self._likelihood(request.context, request.continuation)
        if isinstance(request, Rolling):
            found_one = self._likelihood("", request.text)
            size = len(request.text.split()), len(request.text.encode())
            return RollingScore(found_one.logprob, found_one.tokens, *size)
        return self._generated(request)

    def _generated(self, request: Generation) -> Generated:
        answer = self.endpoint.post(
            {
                "model": self.endpoint.options.model,
                "prompt": request.context,
                "max_tokens": request.max_new_tokens,
                "temperature": 0,
                "stop": list(request.stop[:4]) or None,
            }
        )
        text = str(answer.get("text", ""))
        ends = [at for stop in request.stop if (at := text.find(stop)) >= 0]
        return Generated(text[: min(ends)] if ends else text)

    def _likelihood(self, context: str, continuation: str) -> LikelihoodScore:
        blanks = len(context) - len(context.rstrip())
        start = len(context) - blanks
        answer = self.endpoint.post(
            {
                "model": self.endpoint.options.model,
                "prompt": context + continuation,
                "max_tokens": 1,
                "temperature": 0,
                "echo": True,
                "logprobs": 1,
            }
        )
        try:
            said = answer["logprobs"]
            rows = list(zip(said["text_offset"], said["token_logprobs"], said["top_logprobs"], strict=True))
        except (KeyError, TypeError, ValueError) as error:
            raise TlscaleError(
                f"{self.endpoint.url}: no log-probabilities of the prompt (echo with logprobs); such an "
                "endpoint can answer tasks of kind generation only"
            ) from error
        end = len(context + continuation)
        # The first token of all has nothing before it, and so no log-probability.
        kept = [row for row in rows if start <= row[0] < end and row[1] is not None]
        greedy = all(logprob >= max((top or {"": logprob}).values()) for _, logprob, top in kept)
        return LikelihoodScore(sum(float(row[1]) for row in kept), greedy, len(kept))


def endpoint(setup: Setup) -> LanguagePredictor:
    """The plugin `endpoint`; the model's name is the address up to and without `/completions`.

    Raises:
        UsageError: the address is none, or an option is unknown.
    """
    url = setup.model.model_name_or_path
    if urlsplit(url).scheme not in ("http", "https"):
        raise UsageError(f"{url}: the predictor endpoint needs an http or https address, such as .../v1")
    options = Options.model_validate_json(json.dumps(dict(setup.options)))
    return LanguagePredictor(
        EndpointScorer(Endpoint(url, options, setup.secret(options.key))),
        "language model behind an endpoint",
    )
