"""The space of a sweep: a YAML of keys of a config, each with the values that are tried."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagier.config.check import check_options
from imagier.config.find import did_you_mean
from imagier.config.load import ConfigError, Document, dump_inline, load
from imagier.errors import UserError
from imagier.run.experiment import read_experiment
from imagier.run.options import RunOptions

if TYPE_CHECKING:
    from optuna.trial import Trial

Value = bool | int | float | str | None


@dataclass(frozen=True, kw_only=True)
class Float:
    """A number in [low, high]. log: sampled by its logarithm. step: only low, low + step, low + 2 step, ..."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        """UserError if there is nothing to choose from, or a range cannot be sampled by its logarithm."""
        _check_range(self.low, self.high)
        if self.log and self.low <= 0:
            raise _mistake("low", f"is {self.low:g}: with `log` it must be above 0", "wrong-range")
        if self.log and self.step is not None:
            raise _mistake("step", "cannot be combined with `log`", "wrong-range")
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            raise _mistake("step", f"is {self.step:g}: it must be above 0 and fit into the range", "wrong-range")

    @property
    def examples(self) -> Sequence[Value]:
        """Values that show whether a key can have all of them. Between the ends: the key may take whole numbers."""
        inside = self.low + (self.step or (self.high - self.low) / math.e)
        return self.low, self.high, inside

    def suggest(self, trial: Trial, key: str) -> Value:
        """The value of a trial."""
        return trial.suggest_float(key, self.low, self.high, log=self.log, step=self.step)


@dataclass(frozen=True, kw_only=True)
class Int:
    """A whole number in [low, high]. log: sampled by its logarithm. step: only low, low + step, low + 2 step, ..."""

    low: int
    high: int
    log: bool = False
    step: int = 1

    def __post_init__(self) -> None:
        """UserError if there is nothing to choose from, or a range cannot be sampled by its logarithm."""
        _check_range(self.low, self.high)
        if self.log and self.low < 1:
            raise _mistake("low", f"is {self.low}: with `log` it must be above 0", "wrong-range")
        if self.log and self.step != 1:
            raise _mistake("step", "cannot be combined with `log`", "wrong-range")
        if not 1 <= self.step <= self.high - self.low:
            raise _mistake("step", f"is {self.step}: it must be above 0 and fit into the range", "wrong-range")

    @property
    def examples(self) -> Sequence[Value]:
        """Values that show whether a key can have all of them."""
        return self.low, self.high

    def suggest(self, trial: Trial, key: str) -> Value:
        """The value of a trial."""
        return trial.suggest_int(key, self.low, self.high, log=self.log, step=self.step)


@dataclass(frozen=True, kw_only=True)
class Categorical:
    """One of several values."""

    choices: list[Value]

    def __post_init__(self) -> None:
        """UserError if there is nothing to choose from."""
        if len(self.choices) < 2:
            raise _mistake("choices", "leave nothing to choose from", "empty-range")
        texts = [dump_inline(choice) for choice in self.choices]
        if twice := next((text for text in texts if texts.count(text) > 1), None):
            raise _mistake("choices", f"hold {twice} twice", "wrong-range")

    @property
    def examples(self) -> Sequence[Value]:
        """Values that show whether a key can have all of them."""
        return self.choices

    def suggest(self, trial: Trial, key: str) -> Value:
        """The value of a trial."""
        return trial.suggest_categorical(key, self.choices)


Range = Float | Int | Categorical

TYPES: Mapping[str, type[Range]] = {"float": Float, "int": Int, "categorical": Categorical}


def read_space(path: Path, config: Path, overrides: Sequence[str]) -> dict[str, Range]:
    """The range of each key. ConfigError names all that is wrong, before anything is trained.

    config: the experiment, whose schema must allow every end of a range, and every choice. overrides: of the sweep.
    """
    document = load(path)
    errors: list[UserError] = []
    space: dict[str, Range] = {}
    if not document.tree:
        errors.append(UserError("holds no keys", where=path, advice="name some to try", code="empty-space"))
    for key, section in document.tree.items():
        try:
            space[key] = _read_range(key, section)
            if any(override.partition("=")[0] == key for override in overrides):
                raise UserError("is set by the command line, too", advice="leave it out there", code="set-twice")
            errors += _check_key(config, overrides, document, key, space[key])
        except UserError as error:
            errors.append(_locate(error, document, key))
    if errors:
        raise ConfigError(list({str(error): error for error in errors}.values()))
    return space


def format_override(key: str, value: Value) -> str:
    """A value as a command line sets it: "gen_opt.lr=1.0e-04"."""
    return f"{key}={dump_inline(value)}"


def _read_range(key: str, section: Any) -> Range:
    if not isinstance(section, Mapping):
        advice = (
            "write {type: float, low: 1.0e-5, high: 1.0e-3, log: true}, or int, or {type: categorical, choices: []}"
        )
        raise UserError(f"expected a range, got {section!r}", advice=advice, code="wrong-type")
    options = dict(section)
    name = options.pop("type", None)
    if not isinstance(name, str) or name not in TYPES:
        if nested := next((inner for inner, value in options.items() if isinstance(value, Mapping)), None):
            raise UserError("is a section, not a range", advice=f"write {key}.{nested}: ...", code="wrong-type")
        what = "missing key 'type'" if name is None else f"no range {name!r}"
        raise UserError(what, where="type", advice=did_you_mean(str(name), list(TYPES)), code="unknown-type")
    return TYPES[name](**check_options(TYPES[name], options))


def _check_key(config: Path, overrides: Sequence[str], document: Document, key: str, values: Range) -> list[UserError]:
    """What the schema has against a value of a key. Errors at other keys say with which value they come."""
    errors: list[UserError] = []
    for value in values.examples:
        override = format_override(key, value)
        try:
            read_experiment(config, RunOptions(), [*overrides, override])
        except ConfigError as error:
            for each in error.errors:
                is_here = each.where == f"command line: {key}"
                where = "" if is_here else f"with {override}: {each.where}"
                own = UserError(each.what, where=where, advice=each.advice, code=each.code)
                errors.append(_locate(own, document, key))
            if not isinstance(values, Categorical):
                break  # what is wrong with one end of a range is so with the other, or is said next time
    return errors


def _locate(error: UserError, document: Document, key: str) -> UserError:
    """The error at the line of a key."""
    origin = document.origin((key, *error.where.split("."))) if error.where else document.origin((key,))
    inner = f".{error.where}" if error.where and " " not in error.where else ""
    rest = f": {error.where}" if error.where and not inner else ""
    return UserError(error.what, where=f"{origin}: {key}{inner}{rest}", advice=error.advice, code=error.code)


def _check_range(low: float, high: float) -> None:
    if not low < high:
        raise UserError(f"the range from {low:g} to {high:g} is empty", where="high", code="empty-range")


def _mistake(key: str, what: str, code: str) -> UserError:
    return UserError(what, where=key, code=code)
