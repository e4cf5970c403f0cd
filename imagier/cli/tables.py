"""Tables of results, for people."""

from __future__ import annotations

from collections.abc import Sequence


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Prints rows of text, the first of which are the headings: names to the left, numbers to the right."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for index, heading in enumerate(rows[0]):
        table.add_column(heading, justify="right" if 0 < index < 4 else "left")
    for row in rows[1:]:
        table.add_row(*row)
    Console().print(table)
