"""Code of the user's that a config names: modules, and what is in them."""

from __future__ import annotations

import difflib
import importlib
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from imagier.errors import UserError


def import_user_module(path: str) -> ModuleType | None:
    """The module of a dotted path, or None if there is no such module.

    UserError if it cannot be imported, or needs one that is not installed.
    """
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if f"{path}.".startswith(f"{error.name}."):
            return None
        what = f"{path} needs the module {error.name!r}, which is not installed ({_locate(error)})"
        raise UserError(what, code="missing-module") from error
    except (Exception, SystemExit) as error:  # of the user's code
        what = f"{path} cannot be imported: {_explain(error)}"
        raise UserError(what, advice="correct that line", code="broken-module") from error


def load_user_object(name: str, key: str) -> Any:
    """What "module:name" means, such as "my_lab.nets:Segmenter".

    key: the option whose value this is. UserError if there is no such thing.
    """
    path, _, attribute = name.partition(":")
    is_path = all(part.isidentifier() for part in path.split("."))
    module = import_user_module(path) if is_path else None
    if module is None:
        advice = "expected module:name, of a module whose folder is on the Python path"
        raise UserError(f"no module {path!r}", where=key, advice=advice, code="unknown-module")
    if attribute not in vars(module):
        near = difflib.get_close_matches(attribute, vars(module), n=1)
        advice = f"did you mean {near[0]!r}?" if near else "define it there"
        raise UserError(f"{path} has no {attribute!r}", where=key, advice=advice, code="unknown-attribute")
    return vars(module)[attribute]


@contextmanager
def calling_user_code(name: str, what: str) -> Iterator[None]:
    """A context around a call of something of the user's; an exception of it becomes a UserError.

    name: of that thing. what: happened, before the reason, such as "fails".
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of the user's code
        raise UserError(f"{what}: {_explain(error)}", where=name, advice="correct it", code="broken-code") from error


def _explain(error: BaseException) -> str:
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    where = _locate(error)
    return ": ".join(filter(None, (type(error).__name__, " ".join(text.split())))) + (f" ({where})" if where else "")


def _locate(error: BaseException) -> str:
    """ "file:line" of an error of the user's code: the last line that is not of an installed package; "" if none is."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [(f.filename, f.lineno) for f in traceback.extract_tb(error.__traceback__)]
    frames = [frame for frame in frames if not frame[0].startswith((str(Path(__file__).parent), "<frozen"))]
    installed = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))
    own = [frame for frame in frames if not frame[0].startswith(installed)]
    return ":".join(map(str, (own or frames)[-1])) if frames else ""
