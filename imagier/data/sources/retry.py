"""Repeats requests to a server for as long as that may help."""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from imagier.errors import UserError

logger = logging.getLogger(__name__)

TRANSIENT_STATUS = frozenset({408, 429, 500, 502, 503, 504})
"""HTTP: too slow, too busy, or broken for a while."""
_LOG_FROM_S = 4.0
"""Shorter pauses are not worth a line."""
_MAX_SUMMARY = 200
_USER_INFO = re.compile(r"(?<=//)[^/\s@\"']*:[^/\s@\"']*@|(?<=(?:http|ttps)://)[^/\s@\"']+@")
"""In abfs://container@account/..., what is before the @ is no secret."""
_QUERY = re.compile(r"(?<=\?)[^\s\"'>)]+")

T = TypeVar("T")


@dataclass(frozen=True)
class RetryPolicy:
    """For how long a request is repeated. The pauses double, from the first to the longest."""

    total_s: float = 300.0
    first_s: float = 0.5
    longest_s: float = 20.0
    sleep: Callable[[float], None] = time.sleep


DEFAULT_POLICY = RetryPolicy()


@dataclass(frozen=True)
class Failure:
    """Why a request failed."""

    error: UserError
    """What the user gets to read if it is not repeated."""
    is_transient: bool
    """It may succeed another time."""
    is_answer: bool = True
    """It comes from the server. False: the server was not reached, or the connection was lost."""


class Retrier:
    """Repeats requests to one server. Until it has answered once, a server that is not reached is a wrong address."""

    def __init__(self, policy: RetryPolicy) -> None:
        self.policy = policy
        self._has_answered = False

    def run(
        self,
        request: Callable[[], T],
        errors: tuple[type[Exception], ...],
        explain: Callable[[Exception], Failure],
    ) -> T:
        """The result of `request`. `explain` says what those of its exceptions mean that are among `errors`.

        UserError if repeating cannot help, or has not helped in time.
        """
        begin, pause_s = time.monotonic(), self.policy.first_s
        while True:
            try:
                result = request()
            except errors as error:
                failure, cause = explain(error), error
            else:
                self._has_answered = True
                return result
            self._has_answered = self._has_answered or failure.is_answer
            if not (failure.is_transient and self._has_answered):
                raise failure.error from cause
            left_s = begin + self.policy.total_s - time.monotonic()
            if left_s <= 0:
                raise _gave_up(failure.error, self.policy.total_s) from cause
            if pause_s / 2 < _LOG_FROM_S <= pause_s:
                logger.warning(f"{failure.error}; trying again for up to {left_s:.0f} s")
            self.policy.sleep(pause_s * random.SystemRandom().uniform(0.5, 1))  # else all workers come at once
            pause_s = min(2 * pause_s, self.policy.longest_s)


def summarize(error: Exception, secrets: Iterable[str] = ()) -> str:
    """The text of an exception as one short line, without passwords in addresses, and without any of `secrets`."""
    text = " ".join(str(error).split()) or type(error).__name__
    for secret in secrets:
        text = text.replace(secret, "***")
    return hide_passwords(text)[:_MAX_SUMMARY]


def hide_passwords(text: str) -> str:
    """A text whose addresses have no user, password or query: "https://me:secret@host/a?sig=x" -> "https://host/a?"."""
    return _QUERY.sub("", _USER_INFO.sub("", text))


def _gave_up(error: UserError, total_s: float) -> UserError:
    advice = "; ".join(filter(None, [error.advice, f"gave up after {total_s:g} s"]))
    return UserError(error.what, where=error.where, advice=advice, code=error.code)
