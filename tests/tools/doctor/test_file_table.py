"""The files of a part as the doctor lists them, and which belong together."""

from __future__ import annotations

import numpy as np
from doctoring import IMAGES, MAPS, files, part
from images import Memory

from imagier.errors import UserError
from imagier.tools.doctor.file_table import listed, partners


class Closed(Memory):
    """A source that cannot be listed."""

    def keys(self, kind: str) -> list[str]:
        raise UserError(f"{self.name}: no folder {kind!r}; check `roots`")


def test_every_file_of_all_sources_has_a_place_and_an_address() -> None:
    first, second = files(3), files(2, seed=9)
    sources = [Memory(first, "one"), Memory(second, "two")]
    (images, maps), problems = listed(part({}, sources=sources))
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
    tables, _ = listed(part({}, sources=[Memory(one, "one"), Memory(two, "two")]))
    (found,) = partners(tables)
    images, maps = tables
    for place, partner in enumerate(found.places):
        source, key = images.items[place]
        there = ("maps", key) in source.files  # type: ignore[attr-defined]
        assert (maps.items[int(partner)] == (source, key)) if partner >= 0 else not there
    assert [maps.where(int(place)) for place in found.left_over] == ["one/maps/s/04.png"]
    assert np.count_nonzero(found.places < 0) == 2


def test_a_source_that_cannot_be_listed_is_told_and_the_others_are_listed() -> None:
    tables, problems = listed(part({}, sources=[Closed({}, "away"), Memory(files(2), "here")]))
    assert problems == ["away: no folder 'images'; check `roots`", "away: no folder 'maps'; check `roots`"]
    assert [len(table) for table in tables] == [2, 2]


def test_files_are_counted_by_their_outermost_folder() -> None:
    content = {("images", f"{name}/x/{i}"): b"" for name, count in (("b", 2), ("a", 3)) for i in range(count)}
    (table,), _ = listed(part(content, codecs=[IMAGES]))
    assert table.folders == {"a": 3, "b": 2}


def test_a_column_names_its_part_and_its_type() -> None:
    tables, _ = listed(part(files(1), "val"))
    assert list(map(str, tables)) == ["val, images", "val, maps"]
    assert [table.codec for table in tables] == [IMAGES, MAPS]
