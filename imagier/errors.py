"""What can end a command: a mistake of the user's (`UserError`), or anything else that is no bug (`RunError`).

Also what no message shows: secrets.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_USER_INFO = re.compile(
    r"""(?x) ( \b(?:https?|ftps?)://(?=[^/?\#\[\s"'@]+@)               # a token alone, which is one only on the web
             | ://(?=[^/?\#\[\s"'@:]*:(?!\d+(?:[/?\#\s"']|$))) )       # a name and a password; :8080/ is a port
        [^\s"']*@""",
    re.IGNORECASE,
)
"""What addresses hold before their last @. In abfs://container@account/... it is no secret."""
_QUERY = re.compile(r"(?<=://)([^\s\"'?]*\?)([^\s\"']+)")
_PAIR = re.compile(r"(?<![^&;#])([^=&;#]+)=([^&;#]+)")
_SECRET_NAME = re.compile(
    r"secret|passw|pwd|token|credential|cookie|signature(?!_?version)|auth(?!or(?!iz))|(^|_)(sig|sas)(_|$)|connection_?string"
    r"|(access|account|api|private)_?key|key$",
    re.IGNORECASE,
)
"""The names of options, headers and parts of a query that hold a secret, with _ for -."""


class UserError(ValueError):
    """A mistake that the user can mend. The command line prints it without a traceback and exits with 2.

    Its text, "where: what; advice", is made of its fields, without secrets in addresses; whoever needs a part takes the
    field.

    where: the file, key, flag or network in question, as the user knows it. what: what is wrong there. advice: what to
    do about it. code: a short name of this kind of mistake ("unknown-key"), which never changes.
    """

    def __init__(self, what: str, *, where: object = "", advice: str = "", code: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = str(where)
        self.advice = advice
        self.code = code

    def at(self, where: object) -> UserError:
        """The same mistake, with the place around it put in front: `error.at("data.train")`."""
        outer = f"{where}: {self.where}" if self.where else str(where)
        return UserError(self.what, where=outer, advice=self.advice, code=self.code)

    def __str__(self) -> str:
        parts = [f"{self.where}: " if self.where else "", self.what, f"; {self.advice}" if self.advice else ""]
        return hide_secrets("".join(parts))

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.what, self.__dict__)


def _restore(cls: type[UserError], what: str, fields: dict[str, Any]) -> UserError:
    """For pickle: a worker process sends its errors to the run."""
    error = cls.__new__(cls, what)
    error.args = (what,)
    error.__dict__.update(fields)
    return error


def hide_secrets(text: str) -> str:
    """A text whose addresses lack user, password and secrets in their query.

    "https://me:mine@host/a?x=1&sig=2" -> "https://host/a?x=1&sig=***".
    """

    def hide_value(pair: re.Match[str]) -> str:
        return f"{pair[1]}=***" if is_secret_name(pair[1]) else pair[0]

    return _QUERY.sub(lambda found: found[1] + _PAIR.sub(hide_value, found[2]), _USER_INFO.sub(r"\1", text))


def is_secret_name(name: str) -> bool:
    """Whether the value of an option, a header or a part of a query that is called so is a secret."""
    return _SECRET_NAME.search(name.replace("-", "_")) is not None


def find_secrets(options: object, is_secret: bool = False) -> list[str]:
    """The texts among options that are below a secret's name. is_secret: whether these options are."""
    if isinstance(options, Mapping):
        return [
            text
            for key, value in options.items()
            for text in find_secrets(value, is_secret or is_secret_name(str(key)))
        ]
    if isinstance(options, (list, tuple)):
        return [text for value in options for text in find_secrets(value, is_secret)]
    return [options] if is_secret and isinstance(options, str) and options else []


class RunError(RuntimeError):
    """What ended a run although nobody made a mistake. The command line prints it, no traceback, and exits with 1."""


def suggest_sibling(path: Path) -> str:
    """Advice that names what is there under a similar name: "did you mean logs/mine?"; nothing if there is nothing."""
    missing = path
    while not missing.parent.is_dir() and missing.parent != missing:  # the first part that is not there
        missing = missing.parent
    try:
        names = [other.name for other in missing.parent.iterdir()]
    except OSError:
        return ""
    near = difflib.get_close_matches(missing.name, names, n=1, cutoff=0.6)
    rest = path.relative_to(missing)
    return f"did you mean {missing.with_name(near[0]) / rest}?" if near else ""
