"""All files are read once, whoever reads them; or a few of them from everywhere."""

from __future__ import annotations

import os
import pickle
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from doctoring import IMAGES, examine, files, make_split
from images import Memory, png, smooth, write

from imagier.data.sources.folder import FolderSource
from imagier.errors import RunError
from imagier.tools.doctor.file_table import FileTable, list_files
from imagier.tools.doctor.reading import _StatsReader, read_all


class Deadly(Memory):
    """A source at whose file the process dies that reads it."""

    def read(self, kind: str, key: str) -> bytes:
        if key == "s/3":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(kind, key)


def columns_of(count: int) -> list[FileTable]:
    """A column with so many images."""
    one = png(smooth(16, 16))
    tables, _ = list_files(make_split({("images", f"s/{i}"): one for i in range(count)}, codecs=[IMAGES]))
    return tables


def broken() -> dict[tuple[str, str], bytes]:
    content = files(40)
    content["images", "s/07"] = b""
    content["maps", "s/11"] = content["images", "s/11"]
    del content["maps", "s/20"]
    return content


def test_what_is_found_does_not_depend_on_the_processes() -> None:
    alone, together = (examine(make_split(broken()), workers=workers) for workers in (0, 2))
    for mine, theirs in zip(alone.reports[0].tables, together.reports[0].tables):
        np.testing.assert_array_equal(mine.notes, theirs.notes)
        np.testing.assert_array_equal(mine.pixels, theirs.pixels)
        assert mine.messages == theirs.messages
    assert [finding.what for finding in alone.findings] == [finding.what for finding in together.findings]


def test_it_is_told_after_every_file_how_far_it_has_come() -> None:
    told: list[tuple[int, int]] = []
    read_all(columns_of(40), workers=0, update=lambda done, total: told.append((done, total)))
    assert told == [(i, 40) for i in range(1, 41)]


@pytest.mark.parametrize(("length", "most"), [(100, 10), (99, 20), (5, 20)])
def test_a_few_files_are_spread_evenly_over_all(length: int, most: int) -> None:
    (table,) = columns_of(length)
    read_all([table], workers=0, update=lambda done, total: None, most=most)
    assert len(table.readable) == min(most, length)
    assert np.ptp(np.diff(table.readable)) <= 1


def test_reading_ends_when_its_time_is_over_having_been_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    (table,) = columns_of(400)
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def update(done: int, total: int) -> None:
        now[0] += 0.1

    read_all([table], workers=0, update=update, most=200, seconds=3.95)
    assert len(table.readable) == 40
    assert {index // 100 for index in table.readable.tolist()} == {0, 1, 2, 3}


def test_a_process_that_dies_is_told_in_a_line() -> None:
    one = png(smooth(16, 16))
    source = Deadly({("images", f"s/{i}"): one for i in range(40)})
    tables, _ = list_files(make_split({}, sources=[source], codecs=[IMAGES]))
    with pytest.raises(RunError, match=r"a process that reads data .* was killed"):
        read_all(tables, workers=2, update=lambda done, total: None)


def test_what_reads_can_be_sent_to_a_process_that_knows_nothing(tmp_path: Path) -> None:
    for (kind, key), data in files(3).items():
        write(tmp_path / kind / f"{key}.png", data)
    source = FolderSource(tmp_path, {"images": "png", "maps": "png"})
    tables, _ = list_files(make_split({}, sources=[source]))
    read_all(tables, workers=0, update=lambda done, total: None)
    arrived = pickle.loads(pickle.dumps(_StatsReader(tables)))
    for number, table in enumerate(tables):
        notes = [seen.note for seen in arrived[number, range(3)]]
        np.testing.assert_array_equal(np.stack(notes), table.notes)
