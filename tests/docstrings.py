"""The code in docstrings, for tests that run it."""

from __future__ import annotations

import inspect
import textwrap


def example(documented: type) -> str:
    """The indented code of a class's docstring; its own docstrings are written with ''' there."""
    text = inspect.getdoc(documented)
    assert text is not None
    lines = text.splitlines()
    code = [number for number, line in enumerate(lines) if line.startswith("    ")]
    return textwrap.dedent("\n".join(lines[code[0] : code[-1] + 1]))
