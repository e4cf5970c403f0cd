"""Repeats requests to a server while that may help."""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from imagier.errors import UserError, hide_secrets

logger = logging.getLogger(__name__)

TRANSIENT_STATUS = frozenset({408, 429, 500, 502, 503, 504})
"""HTTP statuses of a server that is too slow, busy or broken, but may recover."""
_LOG_FROM_S = 4.0
"""Shorter pauses are not logged."""
_MAX_SUMMARY = 200
_QUERY = re.compile(r"(?<=\?)[^\s\"'>)]+")

T = TypeVar("T")


@dataclass(frozen=True)
class RetryPolicy:
    """How long requests are repeated. Pauses double, from the first to the longest."""

    total_s: float = 300.0
    first_s: float = 0.5
    longest_s: float = 20.0
    sleep: Callable[[float], None] = time.sleep


DEFAULT_POLICY = RetryPolicy()


@dataclass(frozen=True)
class Failure:
    """Why a request failed."""

    error: UserError
    """What the user sees if the request is not repeated."""
    is_transient: bool
    """The request may succeed later."""
    is_answer: bool = True
    """The server sent it. False: the server was not reached, or the connection was lost."""


class Retrier:
    """Repeats requests to one server. An unreachable server that has never answered is taken for a wrong address."""

    def __init__(self, policy: RetryPolicy) -> None:
        self.policy = policy
        self._has_answered = False

    def run(
        self,
        request: Callable[[], T],
        errors: tuple[type[Exception], ...],
        explain: Callable[[Exception], Failure],
    ) -> T:
        """The result of `request`. errors: the exceptions to handle. explain: their meaning.

        UserError if repeating cannot help, or has not helped in time.
        """
        begin, pause_s = time.monotonic(), self.policy.first_s
        while True:
            try:
                result = request()
            except errors as caught:
                failure, cause = explain(caught), caught
            else:
                self._has_answered = True
                return result
            self._has_answered = self._has_answered or failure.is_answer
            error = failure.error
            if not (failure.is_transient and self._has_answered):
                raise error from cause
            left_s = begin + self.policy.total_s - time.monotonic()
            if left_s <= 0:
                advice = "; ".join(filter(None, [error.advice, f"gave up after {self.policy.total_s:g} s"]))
                raise UserError(error.what, where=error.where, advice=advice, code=error.code) from cause
            if pause_s / 2 < _LOG_FROM_S <= pause_s:
                logger.warning(f"{error}; trying again for up to {left_s:.0f} s")
            self.policy.sleep(pause_s * random.SystemRandom().uniform(0.5, 1))  # or all workers retry at the same time
            pause_s = min(2 * pause_s, self.policy.longest_s)


def summarize(error: Exception, secrets: Iterable[str] = ()) -> str:
    """The text of an exception as one short line, without `secrets` and passwords in addresses."""
    text = " ".join(str(error).split()) or type(error).__name__
    for secret in secrets:
        text = text.replace(secret, "***")
    return hide_passwords(text)[:_MAX_SUMMARY]


def hide_passwords(text: str) -> str:
    """Removes user, password and query from addresses: "https://me:secret@host/a?sig=x" -> "https://host/a?"."""
    return _QUERY.sub("", hide_secrets(text))
