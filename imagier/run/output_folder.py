"""A folder that a command writes: whole or not at all, in place of the one that it wrote before."""

from __future__ import annotations

import glob
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from imagier.errors import UserError
from imagier.train.disk import describe_error


@contextmanager
def replace_folder(out: Path, owned: Collection[str] = ()) -> Iterator[Path]:
    """An empty folder to fill, which becomes `out` at the end; if that fails, nothing is left of it.

    owned: patterns of names in `out` that are replaced, as is what has a name that is made; whatever else is there
    stays. UserError (unwritable-folder) if there can be no such folder.
    """
    out = out.resolve()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-", suffix=".partial"))
    except OSError as error:
        raise _not_writable(out, "written", error) from error
    try:
        made = scratch / "made"  # a subfolder, since other users cannot read the temporary folder itself
        made.mkdir()
        yield made
        try:
            _replace(out, made, owned)
        except OSError as error:  # another disk is mounted there
            raise _not_writable(out, "replaced", error) from error
    finally:
        shutil.rmtree(scratch)


def _replace(out: Path, made: Path, owned: Collection[str]) -> None:
    if not out.exists():
        made.rename(out)
        return
    replaced = [*owned, *(glob.escape(each.name) for each in made.iterdir())]
    kept = [each.name for each in out.iterdir() if not any(fnmatch(each.name, pattern) for pattern in replaced)]
    old = made.with_name("old")
    out.rename(old)
    try:
        for name in kept:
            (old / name).rename(made / name)
        made.rename(out)
    except BaseException:  # Ctrl-C, too: what was there comes back
        for name in kept:
            if not (old / name).exists():
                (made / name).rename(old / name)
        old.rename(out)
        raise


def _not_writable(out: Path, what: str, error: OSError) -> UserError:
    return UserError(
        f"cannot be {what}: {describe_error(error)}",
        where=f"out {out}",
        advice="name another folder",
        code="unwritable-folder",
    )
