"""The files of a part as the doctor lists them, and which belong together."""

from __future__ import annotations

import numpy as np
from doctoring import IMAGES, MAPS, files, make_split
from images import Memory

from imagier.errors import UserError
from imagier.tools.doctor.file_table import list_files, match_partners


class Closed(Memory):
    """A source that cannot be listed."""

    def keys(self, kind: str) -> list[str]:
        raise UserError(f"no folder {kind!r}", where=self.name, advice="check `roots`", code="no-folder")


def test_every_file_of_all_sources_has_a_place_and_an_address() -> None:
    first, second = files(3), files(2, seed=9)
    sources = [Memory(first, "one"), Memory(second, "two")]
    (images, maps), problems = list_files(make_split({}, sources=sources))
    assert problems == []
    assert [images.where(i) for i in range(len(images))] == [
        f"{source.name}/images/{key}.png" for source in sources for key in source.keys("images")
    ]
    assert len(maps) == 5
    assert images.items[4] == (sources[1], "s/01")


def test_partners_are_those_of_the_same_source_and_name() -> None:
    one, two = files(5), files(4, seed=9)
    del one["maps", "s/02"]
    del one["images", "s/04"]
    del two["maps", "s/00"]
    tables, _ = list_files(make_split({}, sources=[Memory(one, "one"), Memory(two, "two")]))
    (found,) = match_partners(tables)
    images, maps = tables
    for index, partner in enumerate(found.indices):
        source, key = images.items[index]
        there = ("maps", key) in source.files  # type: ignore[attr-defined]
        assert (maps.items[int(partner)] == (source, key)) if partner >= 0 else not there
    assert [maps.where(int(index)) for index in found.left_over] == ["one/maps/s/04.png"]
    assert np.count_nonzero(found.indices < 0) == 2


def test_a_source_that_cannot_be_listed_is_told_and_the_others_are_listed() -> None:
    tables, problems = list_files(make_split({}, sources=[Closed({}, "away"), Memory(files(2), "here")]))
    assert [(error.where, error.code) for error in problems] == [("away", "no-folder")] * 2
    assert [len(table) for table in tables] == [2, 2]


def test_files_are_counted_by_their_outermost_folder() -> None:
    content = {("images", f"{name}/x/{i}"): b"" for name, count in (("b", 2), ("a", 3)) for i in range(count)}
    (table,), _ = list_files(make_split(content, codecs=[IMAGES]))
    assert table.folders == {"a": 3, "b": 2}


def test_a_column_names_its_part_and_its_type() -> None:
    tables, _ = list_files(make_split(files(1), "val"))
    assert list(map(str, tables)) == ["val, images", "val, maps"]
    assert [table.codec for table in tables] == [IMAGES, MAPS]
