"""Tables of results, for people."""

from __future__ import annotations

from collections.abc import Sequence


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Prints rows of text, the first of which are the headings. Wide ones are not cut where no terminal limits them."""
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table

    table = Table()
    last = len(rows[0]) - 1
    for index, heading in enumerate(rows[0]):
        table.add_column(heading, justify="right" if 0 < index < last else "left", overflow="fold")
    for row in rows[1:]:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        console.width = max(
            console.width, Measurement.get(console, console.options.update(max_width=1000), table).maximum
        )
    console.print(table)
