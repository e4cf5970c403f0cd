"""Images and clips of the app are those of the generator; what is wrong is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from contract.experiment import SIZE, write_data

from imagier.errors import UserError
from imagier.run.mp4 import encode_mp4
from imagier.tools.app.fields import Form, Way
from imagier.tools.app.making import Maker
from imagier.tools.app.samples import MOST_IMAGES, copy_samples

from .generators import make_generator


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def spade(data: Path) -> Maker:
    return Maker(Form(make_generator("spade", data)))


@pytest.fixture(scope="module")
def clips(data: Path) -> Maker:
    return Maker(Form(make_generator("fs_vid2vid", data)))


def frames_of(data: Path, name: str, sequence: str = "a") -> list[Path]:
    return sorted((data / name / sequence).iterdir())


def frames_in(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_inputs_are_given_in_the_way_that_suits_them(data: Path, spade: Maker, clips: Maker) -> None:
    assert {each.name: each.way for each in spade.form.fields} == {"images": Way.IMAGE, "seg_maps": Way.CLASSES}
    assert {each.way for each in clips.form.fields} == {Way.FILE}
    gray = make_generator("spade", data, "data.one_hot_num_classes={}", "data.input_types.1.seg_maps.is_mask=false")
    assert {each.name: each.way for each in Form(gray).fields}["seg_maps"] is Way.GRAYS


def test_an_image_is_that_of_the_generator_in_a_random_style_or_that_of_an_image(data: Path, spade: Maker) -> None:
    label, style = data / "seg_maps/a/0.png", data / "images/b/1.png"
    generator = spade.form.generator
    random = [spade.make_image({"seg_maps": label}, {}, seed) for seed in (3, 4)]
    assert random[0] == generator({"seg_maps": label}, seed=3) and random[0] != random[1]
    inputs = {"seg_maps": label, "images": style}
    arguments = {"random_style": False, "use_fixed_random_style": False}
    assert spade.make_image(inputs, {}, 3) == generator(inputs, seed=3, **arguments) != random[0]


def test_a_setting_changes_which_inputs_are_read(data: Path) -> None:
    """MUNIT in the other direction makes images of a of those of b."""
    form = Form(make_generator("munit", data))
    assert [(each.name, each.kind, each.value) for each in form.settings] == [("a2b", bool, True)]
    there, back = form.find_needs({"a2b": True}), form.find_needs({"a2b": False})
    assert (there.content, there.style, back.content, back.style) == (
        ["images_a"],
        "images_b",
        ["images_b"],
        "images_a",
    )
    image = data / "images_b/a/0.png"
    made = Maker(form).make_image({"images_b": image}, {"a2b": False})
    assert made == form.generator({"images_b": image}, a2b=False)
    with pytest.raises(UserError) as error:
        Maker(form).make_image({"images_b": image}, {"a2b": True})
    assert (error.value.where, error.value.code) == ("images_a", "missing-input")


def test_a_style_that_is_needed_is_asked_for(data: Path) -> None:
    maker = Maker(Form(make_generator("funit", data)))
    content, style = data / "images_content/a/0.png", data / "images_style/b/1.png"
    with pytest.raises(UserError) as error:
        maker.make_image({"images_content": content}, {})
    assert (error.value.where, error.value.code) == ("images_style", "missing-input")
    inputs = {"images_content": content, "images_style": style}
    assert maker.make_image(inputs, {}) == maker.form.generator(inputs)


def test_a_clip_has_the_frames_of_a_rollout_in_the_order_of_their_numbers(
    data: Path, clips: Maker, tmp_path: Path
) -> None:
    labels = []
    for number, source in zip((9, 10, 8), frames_of(data, "seg_maps")):  # by letters, 10 comes before 8
        labels.append(Path(shutil.copy(source, tmp_path / f"{number}.png")))
    references = {name: frames_of(data, name)[:2] for name in ("images", "seg_maps")}
    seen: list[tuple[int, int]] = []
    path = tmp_path / "clip.mp4"
    clips.make_clip({"seg_maps": labels}, references, {}, path, lambda *done: seen.append(done))
    shown = [{name: of[i] for name, of in references.items()} for i in range(2)]
    ordered = [{"seg_maps": labels[i]} for i in (2, 0, 1)]
    images = [np.asarray(image) for image in clips.form.generator.rollout(ordered, references=shown)]
    with (tmp_path / "expected.mp4").open("wb") as file:
        encode_mp4(file, images, 15, "")
    assert all(map(np.array_equal, frames_in(path), frames_in(tmp_path / "expected.mp4")))
    assert seen == [(1, 3), (2, 3), (3, 3)] and len(frames_in(path)) == 3


def test_a_video_is_as_good_as_its_frames(data: Path, tmp_path: Path) -> None:
    """Of gray images, without loss: as labels of vid2vid."""
    maker = Maker(Form(make_generator("vid2vid", data, "data.one_hot_num_classes={seg_maps: 4}")))
    paths = frames_of(data, "seg_maps")
    with av.open(str(tmp_path / "labels.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=15)
        stream.width = stream.height = SIZE
        stream.pix_fmt = "gray"
        for path in paths:
            array = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="gray")))
        container.mux(stream.encode(None))
    made = []
    for number, files in enumerate((paths, [tmp_path / "labels.mkv"])):
        maker.make_clip({"seg_maps": files}, {}, {}, tmp_path / f"{number}.mp4", lambda *done: None)
        made.append((tmp_path / f"{number}.mp4").read_bytes())
    assert made[0] == made[1]


def test_what_is_wrong_with_a_clip_is_named(data: Path, clips: Maker, tmp_path: Path) -> None:
    labels, images = frames_of(data, "seg_maps"), frames_of(data, "images")
    video = tmp_path / "a.mp4"
    video.write_bytes(b"no video")
    mistakes = [
        ({}, {}, "missing-input"),
        ({"seg_maps": labels}, {}, "no-references"),
        ({"seg_maps": labels}, {"seg_maps": labels[:2], "images": images[:1]}, "frames-differ"),
        ({"seg_maps": [*labels, video]}, {}, "mixed-inputs"),
        ({"seg_maps": [labels[0], frames_of(data, "images")[0]]}, {}, "same-names"),
    ]
    for files, references, code in mistakes:
        with pytest.raises(UserError) as error:
            clips.make_clip(files, references, {}, tmp_path / "clip.mp4", lambda *done: None)
        assert error.value.code == code and [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_a_clip_ends_when_the_app_does(data: Path, tmp_path: Path) -> None:
    maker = Maker(Form(make_generator("vid2vid", data)))
    with pytest.raises(UserError, match="ended"):
        maker.make_clip({"seg_maps": frames_of(data, "seg_maps")}, {}, {}, tmp_path / "a.mp4", lambda *_: maker.stop())


def test_examples_are_the_first_samples_as_they_are_stored(data: Path, spade: Maker, tmp_path: Path) -> None:
    samples = copy_samples(spade.form, tmp_path)
    assert len(samples) == MOST_IMAGES and [each.name for each in samples[:2]] == ["0", "2"]
    for sample in samples:
        assert set(sample.files) == {"images", "seg_maps"}
        for name, (path,) in sample.files.items():
            assert path.read_bytes() in {each.read_bytes() for each in (data / name).rglob(f"{sample.name}.png")}


def test_examples_of_clips_have_the_references_of_the_data_set(data: Path, clips: Maker, tmp_path: Path) -> None:
    first, second = copy_samples(clips.form, tmp_path)
    assert (first.name, second.name) == ("a", "b")
    assert [path.read_bytes() for path in first.files["seg_maps"]] == [
        path.read_bytes() for path in frames_of(data, "seg_maps")
    ]
    spread = [frames_of(data, "images", "b")[i] for i in (0, 2)]  # two of four, evenly
    assert [path.read_bytes() for path in second.references["images"]] == [path.read_bytes() for path in spread]
    clips.make_clip(second.files, second.references, {}, tmp_path / "clip.mp4", lambda *done: None)
    assert len(frames_in(tmp_path / "clip.mp4")) == 4


def test_without_the_data_there_are_no_examples(data: Path, tmp_path: Path) -> None:
    gone = shutil.copytree(data, tmp_path / "gone")
    form = Form(make_generator("spade", gone))
    shutil.rmtree(gone)
    assert copy_samples(form, tmp_path / "examples") == []
