"""The contract of data sets: the example in its docstring runs, and a subclass behaves like its base."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from docstrings import example
from images import Memory, noise, png, write
from small_data import build, codec_for

from imagier.config.find import find, list_types
from imagier.config.schema import DATASET
from imagier.data import dataset, datasets
from imagier.errors import UserError

IMAGES = codec_for(name="images", ext="png", num_channels=3)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a package outside of ours."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "lab_of_sets"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    write(tmp_path / "lab_of_sets" / "__init__.py")
    return tmp_path / "lab_of_sets"


def test_the_example_in_the_docstring_keeps_images_that_are_large_enough(lab: Path) -> None:
    write(lab / "large_images.py", example(dataset.Dataset).encode())
    sizes = [(8, 9), (9, 4), (12, 8), (7, 30)]
    files = {("images", f"./{i}"): png(noise(*size, seed=i)) for i, size in enumerate(sizes)}
    cls = find(DATASET, "lab_of_sets.large_images")
    options = {"codecs": [IMAGES], "augmentations": {"resize_h_w": "4, 4"}}
    data = build(cls, [Memory(files)], min_side_px=8, **options)
    assert [data[0, i].keys["images"] for i in range(len(data))] == ["./0", "./2"]
    np.testing.assert_array_equal(data.load(1)["images"], noise(12, 8, seed=2))
    assert data[0, 1].arrays["images"].shape == (4, 4, 3)
    assert list(data.blocks) == [2]
    assert len(build(cls, [Memory(files)], **options)) == 4


@pytest.mark.parametrize("name", list_types(DATASET))
def test_an_empty_subclass_in_a_users_module_says_of_itself_what_its_base_says(lab: Path, name: str) -> None:
    code = f"from imagier.data.datasets.{name} import Dataset as Base\n\n\nclass Dataset(Base):\n    pass\n"
    write(lab / f"empty_{name}.py", code.encode())
    base, own = find(DATASET, name), find(DATASET, f"lab_of_sets.empty_{name}")
    facts = [fact for fact in vars(dataset.Dataset) if not fact.startswith("_") and not callable(getattr(base, fact))]
    assert {"is_video", "is_paired", "required_input_types"} < set(facts)
    assert own is not base
    assert {fact: getattr(own, fact) for fact in facts} == {fact: getattr(base, fact) for fact in facts}


def test_a_class_that_is_no_data_set_is_refused(lab: Path) -> None:
    write(lab / "no_set.py", b"class Dataset:\n    is_video = False\n")
    with pytest.raises(UserError) as caught:
        find(DATASET, "lab_of_sets.no_set")
    assert caught.value.code == "wrong-class"


def test_the_files_of_the_room_are_the_types() -> None:
    files = {path.stem for path in Path(datasets.__file__).parent.glob("*.py")} - {"__init__"}
    assert files == set(list_types(DATASET))
    videos = {"paired_videos", "paired_few_shot_videos"}
    assert files == {"images", "paired_images", "unpaired_few_shot_images", "unpaired_images", *videos}
