"""What the doctor says of sets with one fault each."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from doctoring import IMAGES, MAPS, areas, examine, files, found, make_split, texts, through_jpeg
from images import encoded, noise, png, smooth
from small_data import codec_for

from imagier.tools.doctor.finding import Rows, Severity, format_count


def test_a_good_set_has_no_finding() -> None:
    diagnosis = examine(make_split(files(6)), make_split(files(3, seed=50), "val"))
    assert list(diagnosis.findings) == []
    assert diagnosis.errors == 0


def test_missing_partners_are_all_named_in_both_directions() -> None:
    content = files(8)
    for i in (1, 4):
        del content["maps", f"s/{i:02d}"]
    del content["images", "s/06"]
    diagnosis = examine(make_split(content))
    missing = found(diagnosis, "without a partner of this type")
    assert missing.severity is Severity.ERROR
    assert texts(missing) == [f"train/maps/s/{i:02d}.png: partner of train/images/s/{i:02d}.png" for i in (1, 4)]
    left_over = found(diagnosis, "never be read")
    assert left_over.severity is Severity.WARNING
    assert texts(left_over) == ["train/maps/s/06.png"]


def test_types_without_pairs_need_no_partners() -> None:
    content = files(8)
    del content["maps", "s/03"]
    assert examine(make_split(content, is_paired=False)).errors == 0


@pytest.mark.parametrize(
    ("count", "skips", "severity"), [(5, False, Severity.ERROR), (5, True, Severity.WARNING), (3, True, Severity.ERROR)]
)
def test_a_file_that_cannot_be_read_is_an_error_unless_a_few_are_skipped(
    count: int, skips: bool, severity: Severity
) -> None:
    content = files(count + 1)
    del content["images", "s/00"], content["maps", "s/00"]
    content["images", "s/02"] = b""
    content["images", "s/03"] = content["images", "s/03"][:50]
    finding = found(examine(make_split(content, should_skip=skips)), "cannot be read")
    assert finding.severity is severity
    assert finding.what.startswith(f"2 of {count} files")
    assert [line.partition(":")[0] for line in texts(finding)] == ["train/images/s/02.png", "train/images/s/03.png"]


def test_classes_beyond_the_last_are_named_with_their_files() -> None:
    content = files(5)
    content["maps", "s/01"] = png(np.where(areas(32) == 2, np.uint8(9), areas(32)))
    content["maps", "s/03"] = png(np.where(areas(32) == 1, np.uint8(255), areas(32)))  # 255 is no class, and no fault
    finding = found(examine(make_split(content)), "beyond")
    assert finding.severity is Severity.ERROR
    assert "9 (in 1 file)" in finding.what
    assert "255" not in finding.what
    assert [line.partition(":")[0] for line in texts(finding)] == ["train/maps/s/01.png"]


def test_absent_classes_and_classes_that_only_val_has_are_warnings() -> None:
    two = {
        key: png(areas(32, seed=i, classes=2)) if key[0] == "maps" else data
        for i, (key, data) in enumerate(files(4).items())
    }
    diagnosis = examine(make_split(two), make_split(files(3, seed=50), "val"))
    assert found(diagnosis, "in none of").what == "2 of 4 classes in none of the 4 maps: 2-3"
    assert found(diagnosis, "not seen in training").where == "val, maps"
    assert diagnosis.errors == 0


def test_classes_that_move_dont_care_makes_are_not_missed() -> None:
    kind = codec_for(name="maps", ext="png", num_classes=5, dont_care=4)
    content = files(4)
    assert found(examine(make_split(content, codecs=[IMAGES, kind])), "in none of").what.endswith(": 4")
    content["maps", "s/01"] = png(np.full((32, 40, 1), 255, np.uint8))
    assert not examine(make_split(content, codecs=[IMAGES, kind])).findings


def test_classes_are_not_missed_where_most_maps_were_not_read() -> None:
    content = files(6)
    for i in range(5):
        content["maps", f"s/{i:02d}"] = png(np.full((32, 40, 1), i % 2, np.uint8))
    held_out = make_split(files(3, seed=50), "val")
    assert not examine(make_split(content), held_out, most=2).findings
    assert not [f for f in examine(make_split(content), held_out).findings if "class" in f.what]


def test_a_quick_look_judges_wrong_maps_by_those_that_it_read() -> None:
    content = {
        key: png(np.full((32, 40, 1), 9, np.uint8)) if key[0] == "maps" else data for key, data in files(9).items()
    }
    finding = found(examine(make_split(content, should_skip=True), most=3), "beyond")
    assert finding.severity is Severity.ERROR
    assert finding.what.startswith("3 of 3 maps")


def test_key_points_must_be_as_many_in_each_file_of_a_batch_and_are_no_copies() -> None:
    kind = codec_for(name="points", ext="json", is_points=True)
    content = files(4)
    for i in range(4):
        content["points", f"s/{i:02d}"] = json.dumps([[1, 2]] * (4 if i == 2 else 5)).encode()
    parts = [make_split(content, name, codecs=[IMAGES, MAPS, kind]) for name in ("train", "val")]
    assert not [f for f in examine(*parts).findings if "pixels" in f.what and "points" in f.where]
    finding = found(examine(parts[0]), "no batch can hold together")
    assert finding.severity is Severity.ERROR
    assert finding.where == "train, points"
    assert texts(finding) == ["train/points/s/02.png"]
    assert examine(make_split(content, codecs=[IMAGES, MAPS, kind], batch_size=1)).errors == 0


def test_images_of_one_color_are_a_warning() -> None:
    content = files(4)
    content["images", "s/00"] = png(np.zeros((32, 40, 3), np.uint8))
    content["images", "s/01"] = png(np.full((32, 40, 3), 9, np.uint8))
    content["maps", "s/02"] = png(np.full((32, 40, 1), 1, np.uint8))  # a map of one class may well be
    finding = found(examine(make_split(content)), "of one color")
    assert "1 of them black" in finding.what
    assert texts(finding) == ["train/images/s/00.png", "train/images/s/01.png"]


def test_files_of_different_bits_are_an_error_if_they_meet_in_a_batch() -> None:
    kind = codec_for(name="depth", ext="png", num_channels=1)
    content = {("depth", f"s/{i}"): png(noise(32, 32, 1, seed=i)) for i in range(3)}
    content["depth", "s/3"] = png(noise(32, 32, 1, below=65536))
    alone, together = (
        examine(make_split(content, codecs=[kind], labels=frozenset(), batch_size=size)) for size in (1, 2)
    )
    assert alone.errors == 0
    finding = found(together, "no batch can hold together")
    assert texts(finding) == ["train/depth/s/3.png"]
    assert "8 (3) and 16 (1) bits" in finding.what


def test_images_of_16_bits_are_a_warning_and_ids_of_16_bits_are_not() -> None:
    content = {("depth", f"s/{i}"): png(noise(32, 32, 1, seed=i, below=65536)) for i in range(3)}
    for is_mask, count in ((False, 1), (True, 0)):
        kind = codec_for(name="depth", ext="png", num_channels=1, is_mask=is_mask)
        findings = examine(make_split(content, codecs=[kind])).findings
        assert len([f for f in findings if "16 bits" in f.what]) == count


def test_floats_outside_0_to_1_are_a_warning_with_their_range() -> None:
    kind = codec_for(name="depth", ext="tiff", num_channels=1)
    arrays = {f"s/{i}": np.random.default_rng(i).random((32, 32), np.float32) * (1 if i else 30) for i in range(3)}
    content = {("depth", key): cv2.imencode(".tiff", array)[1].tobytes() for key, array in arrays.items()}
    finding = found(examine(make_split(content, codecs=[kind])), "outside 0 to 1")
    low, high = arrays["s/0"].min(), arrays["s/0"].max()
    assert texts(finding) == [f"train/depth/s/0.png: {low:g} to {high:g}"]


def test_maps_of_classes_that_the_config_takes_for_images_are_told() -> None:
    kind = codec_for(name="maps", ext="png", num_channels=1)
    content = {("maps", f"s/{i}"): png(areas(32, seed=i)) for i in range(3)}
    finding = found(examine(make_split(content, codecs=[kind])), "as if these were classes")
    assert "one_hot_num_classes.maps: 4" in finding.advice
    gray = {("maps", f"s/{i}"): png(smooth(32, 32, 1, seed=i)) for i in range(3)}
    assert not [f for f in examine(make_split(gray, codecs=[kind])).findings if "as if" in f.what]


def test_smoothed_and_lossy_maps_are_warnings() -> None:
    many = codec_for(name="maps", ext="png", num_classes=200, use_dont_care=True)
    clean = {("maps", f"s/{i}"): png(areas(64, seed=i, below=200)) for i in range(3)}
    content = dict(clean)
    content["maps", "s/1"] = png(through_jpeg(areas(64, seed=1, below=200), 80))
    content["maps", "s/2"] = encoded(areas(64, seed=2, below=200), "JPEG", quality=100)
    options = {"codecs": [many]}
    diagnosis = examine(make_split(content, **options))
    assert texts(found(diagnosis, "in between"))[0] == "train/maps/s/1.png"
    assert texts(found(diagnosis, "changes the values")) == ["train/maps/s/2.png"]
    assert not [f for f in examine(make_split(clean, **options)).findings if "between" in f.what or "changes" in f.what]


def test_errors_come_first() -> None:
    content = files(5)
    content["images", "s/00"] = png(np.zeros((32, 40, 3), np.uint8))
    content["maps", "s/04"] = b""
    severities = [finding.severity for finding in examine(make_split(content)).findings]
    assert severities == sorted(severities, key=lambda severity: severity is not Severity.ERROR)
    assert len(set(severities)) == 2


def test_every_finding_says_where_what_and_what_to_do() -> None:
    content = files(8)
    content["images", "s/00"] = b""
    content["images", "s/01"] = png(np.zeros((32, 40, 3), np.uint8))
    content["images", "s/02"] = png(smooth(32, 40, 1))
    content["images", "s/03"] = png(smooth(40, 32))
    content["maps", "s/04"] = png(np.full((32, 40, 1), 7, np.uint8))
    del content["maps", "s/05"]
    content["images", "s/07"] = content["images", "s/06"]
    findings = examine(make_split(content)).findings
    assert len(findings) >= 7
    for finding in findings:
        assert finding.where.startswith("train")
        assert finding.what
        assert finding.advice
        assert "\n" not in finding.where + finding.what + finding.advice


def test_of_a_few_files_copies_are_not_looked_for() -> None:
    content = files(3)
    content["images", "s/01"] = content["images", "s/00"]
    assert found(examine(make_split(content)), "same pixels")
    assert not [f for f in examine(make_split(content), most=3).findings if "pixels" in f.what]


def test_rows_are_made_when_they_are_asked_for() -> None:
    made: list[int] = []
    rows = Rows(10**9, lambda i: made.append(i) or i)  # type: ignore[func-returns-value, arg-type, return-value]
    assert len(rows) == 10**9
    assert rows.first(3) == [0, 1, 2]
    assert made == [0, 1, 2]


def test_counts_read_as_english() -> None:
    assert [format_count(1, "file"), format_count(3, "file"), format_count(2, "class")] == [
        "1 file",
        "3 files",
        "2 classes",
    ]
    assert format_count(1, "class", 1) == "1 of 1 class"
    assert format_count(1, "class", 1200) == "1 of 1,200 classes"


# Pixels without a class


def binary(low: int, high: int) -> dict[tuple[str, str], bytes]:
    """Pairs whose maps hold two values, half and half."""
    pixels = np.full((32, 40, 1), low, np.uint8)
    pixels[:, 20:] = high
    return {key: png(pixels) if key[0] == "maps" else data for key, data in files(4).items()}


def test_masks_of_0_and_255_are_said_with_advice_that_helps() -> None:
    two = codec_for(name="maps", ext="png", num_channels=1, is_mask=True, num_classes=2)
    diagnosis = examine(make_split(binary(0, 255), codecs=[IMAGES, two]))
    finding = found(diagnosis, "no class")
    assert "50 % of the pixels are 255" in finding.what
    assert "store it as 1" in finding.advice
    assert "lower" not in found(diagnosis, "in none of").advice
    assert not examine(make_split(binary(0, 1), codecs=[IMAGES, two])).findings


def test_to_lower_the_number_of_classes_is_advised_only_where_it_helps() -> None:
    four = codec_for(name="maps", ext="png", num_channels=1, is_mask=True, num_classes=4)
    last = found(examine(make_split(binary(0, 1), codecs=[IMAGES, four])), "in none of")
    assert "lower one_hot_num_classes.maps to 2" in last.advice
    between = found(examine(make_split(binary(0, 3), codecs=[IMAGES, four])), "in none of")
    assert "lower" not in between.advice


def test_ids_in_a_label_without_classes_are_said_unless_they_are_instances() -> None:
    mask = codec_for(name="maps", ext="png", num_channels=1, is_mask=True)
    doubt = found(examine(make_split(binary(0, 1), codecs=[IMAGES, mask])), "as if these were classes")
    assert "one_hot_num_classes.maps: 2" in doubt.advice
    for others in ({"instances": frozenset({"maps"})}, {"labels": frozenset()}):
        assert not examine(make_split(binary(0, 1), codecs=[IMAGES, mask], **others)).findings
