"""The parser of command lines: argparse, which also says what was probably meant."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterable
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Names the nearest choice or flag for one that is not known. Parsers of commands made by it are of its kind."""

    def error(self, message: str) -> NoReturn:
        """Prints usage and message, and exits with 2."""
        choice = re.search(r"invalid choice: '(.+?)' \(choose from (.+)\)", message)
        if choice:
            message += suggest(choice[1], [word.strip(" '") for word in choice[2].split(",")])
        flag = re.match(r"unrecognized arguments: (--\w[\w-]*)", message)
        if flag:
            message += suggest(flag[1], [option for action in self._actions for option in action.option_strings])
        super().error(message)


def suggest(word: str, choices: Iterable[str]) -> str:
    """ "; did you mean train?", or nothing if no choice is near."""
    near = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""
