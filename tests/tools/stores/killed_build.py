"""A build that kills itself, as no handler and no clean-up sees it: killed_build.py FOLDER OUT FORMAT STAGE COUNT."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from imagier.data.sources.folder import FolderSource
from imagier.tools.stores.engine import BuildSummary, ProgressBar, Writer, build
from imagier.tools.stores.lmdb_writer import LmdbWriter
from imagier.tools.stores.plan import Plan, make_plan
from imagier.tools.stores.shard_writer import ShardWriter

KINDS = {"images": "jpg", "maps": "png"}
WRITERS: dict[str, Callable[[Path, Plan], Writer]] = {
    "lmdb": lambda folder, planned: LmdbWriter(folder, planned, commit_files=7),
    "shards": lambda folder, planned: ShardWriter(folder, planned, shard_bytes=20_000),
}


def run(root: Path, out: Path, store: str, progress: ProgressBar, *, overwrite: bool = True) -> BuildSummary:
    """Builds a small store, with little between two commits."""
    source = FolderSource(root, KINDS)
    planned = make_plan(source, list(KINDS), paired=True)
    return build(source, planned, out, WRITERS[store], overwrite=overwrite, workers=2, progress=progress)


def killing(stage: str, count: int) -> ProgressBar:
    """Ends the process when so much of a stage is done."""

    @contextmanager
    def progress(what: str) -> Iterator[Callable[[int, int], None]]:
        def update(done: int, total: int) -> None:
            if what.startswith(stage) and done == count:
                os.kill(os.getpid(), signal.SIGKILL)

        yield update

    return progress


if __name__ == "__main__":
    root, out, store, stage, count = sys.argv[1:]
    run(Path(root), Path(out), store, killing(stage, int(count)))
