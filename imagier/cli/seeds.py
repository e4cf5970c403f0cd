"""The argument that names the seed of everything random."""

from __future__ import annotations

import argparse

DEFAULT_SEED = 2

END = 2**63
"""torch and the files of a run hold a seed as an integer of 64 bits with a sign."""


def seed(text: str) -> int:
    """A seed. ArgumentTypeError unless it is a whole number from 0 on, below 2**63."""
    if not (text.isascii() and text.isdecimal() and int(text[:20]) < END):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 0 to 2**63 - 1")
    return int(text)
