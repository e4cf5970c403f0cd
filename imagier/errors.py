"""What can end a command: a mistake of the user's (`UserError`), or anything else that is no bug (`RunError`)."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

_USER_INFO = re.compile(r"(?<=//)[^/\s@\"']*:[^/\s@\"']*@|(?<=(?:http|ttps)://)[^/\s@\"']+@")
"""What to hide before an @. In abfs://container@account/... it is no secret."""


class UserError(ValueError):
    """A mistake that the user can mend. The command line prints it without a traceback and exits with 2.

    Its text, "where: what; advice", is made of its fields, without passwords in addresses; whoever needs a part takes
    the field.

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
        return hide_user_info("".join(parts))

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.what, self.__dict__)


def _restore(cls: type[UserError], what: str, fields: dict[str, Any]) -> UserError:
    """For pickle: a worker process sends its errors to the run."""
    error = cls.__new__(cls, what)
    error.args = (what,)
    error.__dict__.update(fields)
    return error


def hide_user_info(text: str) -> str:
    """Removes user and password from addresses: "https://me:secret@host/a" -> "https://host/a"."""
    return _USER_INFO.sub("", text)


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
