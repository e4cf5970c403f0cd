"""The parts of the page that compute, in Node: painting, undo, tensors, PNG files, codes of styles."""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from imagier.tools.page.site import STATIC

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="needs Node (Debian's package nodejs)")

RASTER = """
const make = ({width, height, data}) => { const r = new Raster(width, height); r.data.set(data); return r; };
const show = ({width, height, data}) => ({width, height, data: [...data]});
"""


def run(modules: str, code: str, **values: Any) -> Any:
    """What a piece of JavaScript returns. modules: what it imports, as "raster.js: Raster, fill; png.js: ..."."""
    imports = ""
    for line in modules.split(";"):
        name, _, names = line.partition(":")
        imports += f"import {{{names}}} from {json.dumps((STATIC / name.strip()).as_uri())};\n"
    given = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in values.items())
    program = f"{imports}{given}{RASTER}const f = async () => {{ {code} }};\nconsole.log(JSON.stringify(await f()));"
    assert NODE is not None
    done = subprocess.run([NODE, "--input-type=module"], input=program, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def raster(array: np.ndarray) -> dict[str, Any]:
    return {"width": array.shape[1], "height": array.shape[0], "data": array.ravel().tolist()}


def array(shown: dict[str, Any]) -> np.ndarray:
    return np.array(shown["data"]).reshape(shown["height"], shown["width"])


def draw_map(height: int, width: int, classes: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, classes, (height, width))


def test_a_fill_reaches_what_hangs_together_by_edges() -> None:
    before = draw_map(20, 30, 2)
    code = "const r = make(map); floodFill(r, x, y, 9); return show(r);"
    for x, y in ((0, 0), (29, 19), (13, 7)):
        after = array(run("raster.js: Raster, floodFill", code, map=raster(before), x=x, y=y))
        regions, _ = ndimage.label(before == before[y, x])  # by edges
        assert (after == np.where(regions == regions[y, x], 9, before)).all()


def test_a_stroke_covers_the_pixels_near_its_segment_and_no_other() -> None:
    code = "const r = new Raster(40, 30); drawStroke(r, {x: 3.2, y: 5.9}, {x: 33.7, y: 21.1}, 6, 4); return show(r);"
    drawn = array(run("raster.js: Raster, drawStroke", code)) == 4
    steps = np.linspace(0, 1, 2001)[:, None]
    line = (1 - steps) * [3.5, 5.5] + steps * [33.5, 21.5]
    y, x = np.mgrid[:30, :40] + 0.5
    distance = np.sqrt((x[..., None] - line[:, 0]) ** 2 + (y[..., None] - line[:, 1]) ** 2).min(-1)
    assert drawn[distance < 2.98].all() and not drawn[distance > 3.02].any()


def test_a_stroke_of_one_pixel_has_no_gap() -> None:
    code = "const r = new Raster(40, 30); drawStroke(r, {x: 0, y: 29.9}, {x: 39.9, y: 3}, 1, 1); return show(r);"
    drawn = array(run("raster.js: Raster, drawStroke", code))
    _, regions = ndimage.label(drawn, np.ones((3, 3)))
    assert regions == 1 and drawn[29, 0] and drawn[3, 39] and drawn.any(0).all()


def test_a_soft_stroke_has_the_area_of_its_shape_and_repeats_without_effect() -> None:
    code = """const r = new Raster(60, 60, 255); const [a, b] = [{x: 20.3, y: 20.1}, {x: 40.3, y: 20.1}];
    drawSoftStroke(r, a, b, 5, 0); const once = r.copy(); drawSoftStroke(r, a, b, 5, 0);
    const again = r.equals(once); drawSoftStroke(r, a, b, 9, 255);
    return [show(once), again, r.data.every((v) => v === 255)];"""
    once, is_same, is_erased = run("raster.js: Raster, drawSoftStroke", code)
    area = (1 - array(once) / 255).sum()
    assert area == pytest.approx(20 * 5 + np.pi * 2.5**2, rel=0.01)
    assert is_same and is_erased


def test_a_raster_is_scaled_to_cover_another_size() -> None:
    before = draw_map(6, 8, 5)
    code = "return show(coverNearest(make(map), 12, 12));"
    after = array(run("raster.js: Raster, coverNearest", code, map=raster(before)))
    assert (after == before[:, 1:7].repeat(2, 0).repeat(2, 1)).all()  # its middle, 6 x 6, doubled


def test_undo_and_redo_walk_through_the_states() -> None:
    code = """const h = new History(0, 3); for (const state of [1, 2, 3, 4]) h.push(state);
    const back = [h.undo(), h.undo(), h.undo(), h.undo()]; const forth = [h.redo(), h.redo()];
    h.push(9); return [back, forth, h.canRedo, h.undo(), h.redo()];"""
    assert run("history.js: History", code) == [[3, 2, 1, 1], [2, 3], False, 3, 9]


def test_classes_become_channels_and_others_the_last_or_none() -> None:
    ids = np.array([[0, 7, 255], [3, 7, 0]])
    code = """const part = {channels, ignored, classes: [{id: 0}, {id: 7}]};
    const r = make(map); r.data.set(idsToChannels(r.data, part)); const out = new Float32Array(channels * 6 + 2);
    writeOneHot(r, channels, out, 2); return [[...out], [...channelsToIds(r.data, part)]];"""
    modules = "raster.js: Raster; bundle.js: idsToChannels, channelsToIds; tensors.js: writeOneHot"
    known = np.stack([ids == 0, ids == 7])
    out, back = run(modules, code, map=raster(ids), channels=2, ignored="none")
    assert out == [0, 0, *known.ravel().astype(int)] and back == [0, 7, 255, 255, 7, 0]
    out, back = run(modules, code, map=raster(ids), channels=3, ignored="last channel")
    assert out == [0, 0, *np.concatenate([known, ~known.any(0)[None]]).ravel().astype(int)]
    assert back == [0, 7, 255, 255, 7, 0]
    code = """const part = {channels: 2, ignored: 'none', largest_id: 7, classes: [{id: 0}, {id: 7}]};
    return idsToChannels([0, 3, 7, 200], part);"""
    assert run("bundle.js: idsToChannels", code) == [0, 2, 1, 1]


def test_a_map_is_shown_in_the_colors_of_its_classes() -> None:
    colors = np.array([[1, 2, 3], [250, 140, 60], [48, 48, 52]])  # the last one where there is no class
    channels = draw_map(7, 9, 3)
    code = """const classes = colors.slice(0, 2).map((color, id) => ({id, name: null, color}));
    const layer = new ClassLayer({kind: "classes", channels: 2, classes, ignored: "none"}, {width: 9, height: 7});
    layer.raster = make(map); return [...layer.toRgba()];"""
    shown = run("raster.js: Raster; layer.js: ClassLayer", code, map=raster(channels), colors=colors.tolist())
    assert (np.array(shown).reshape(7, 9, 4) == np.dstack([colors[channels], np.full((7, 9), 255)])).all()


def test_images_become_tensors_and_come_back() -> None:
    rgba = np.random.default_rng(1).integers(0, 256, (4, 5, 4))
    code = """const out = new Float32Array(60); writeRgb(new Uint8ClampedArray(rgba), [-1, 1], out);
    return [[...out], [...toRgba(out, [1, 3, 4, 5], [-1, 1])],
    [...toRgba([-1.1, 1.2, 0.0035], [1, 1, 1, 3], [-1, 1])]];"""
    out, back, clipped = run("tensors.js: writeRgb, toRgba", code, rgba=rgba.ravel().tolist())
    expected = (rgba[..., :3].astype(np.float32) / 127.5 - 1).transpose(2, 0, 1).ravel()
    assert np.abs(np.array(out) - expected).max() < 1e-6
    assert (np.array(back).reshape(4, 5, 4)[..., :3] == rgba[..., :3]).all()
    assert clipped == [0, 0, 0, 255, 255, 255, 255, 255, 128, 128, 128, 255]


@pytest.mark.parametrize(
    ("size", "fitted"),
    [
        ((64, 48), [64, 48]),
        ((640, 480), [64, 48]),
        ((50, 100), [48, 96]),
        ((1000, 100), [96, 48]),
        ((70, 48), [72, 48]),
    ],
)
def test_an_image_keeps_its_shape_where_the_network_takes_any(size: tuple[int, int], fitted: list[int]) -> None:
    code = """const bundle = {image_size: [48, 64], size_multiple: 8, has_dynamic_size};
    const {width, height} = fitSize(...size, bundle); return [width, height];"""
    assert run("tensors.js: fitSize", code, size=size, has_dynamic_size=True) == fitted
    assert run("tensors.js: fitSize", code, size=size, has_dynamic_size=False) == [64, 48]


def test_a_long_image_of_the_bundle_keeps_its_length() -> None:
    code = """const bundle = {image_size: [64, 208], size_multiple: 16, has_dynamic_size: true};
    const {width, height} = fitSize(208, 64, bundle); return [width, height];"""
    assert run("tensors.js: fitSize", code) == [208, 64]


@pytest.mark.parametrize("mode", ["L", "P", "1", "I;16", "P, 16 colors"])
def test_a_png_of_numbers_is_read_as_it_is_stored(mode: str) -> None:
    classes = {"1": 2, "I;16": 60000, "P, 16 colors": 16}.get(mode, 200)
    numbers = np.add.outer(np.arange(23), np.arange(37)) % classes  # smooth, so that the encoder filters rows
    numbers[5:9] = draw_map(4, 37, classes)
    image = Image.fromarray(numbers.astype(np.uint16 if mode == "I;16" else np.uint8))
    if mode == "1":
        image = Image.fromarray(numbers.astype(bool))
    elif mode.startswith("P"):
        image.putpalette([value for i in range(256) for value in (255 - i, i, 7)])
    file = io.BytesIO()
    image.save(file, "png", **({"bits": 4} if "16 colors" in mode else {}))
    code = "return show(await decodeNumbers(Uint8Array.from(atob(file), (c) => c.charCodeAt(0))));"
    read = run("png.js: decodeNumbers", code, file=base64.b64encode(file.getvalue()).decode())
    assert (array(read) == numbers).all()


def test_a_png_of_colors_is_none_of_numbers() -> None:
    file = io.BytesIO()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(file, "png")
    code = "return [await decodeNumbers(new Uint8Array(file)), await decodeNumbers(new Uint8Array(20))];"
    assert run("png.js: decodeNumbers", code, file=list(file.getvalue())) == [None, None]


@pytest.mark.parametrize("largest", [255, 1000])
def test_numbers_are_written_so_that_others_read_them(largest: int) -> None:
    numbers = draw_map(21, 34, largest + 1)
    numbers[0, 0] = largest
    code = "return [...new Uint8Array(await (await encodeNumbers(map)).arrayBuffer())];"
    file = bytes(run("png.js: encodeNumbers", code, map=raster(numbers)))
    image = Image.open(io.BytesIO(file))
    assert (np.array(image) == numbers).all() and image.mode == ("L" if largest == 255 else "I;16")


def test_codes_are_normal_and_mixed_along_an_arc() -> None:
    code = """let state = 1; const random = () => (state = (state * 48271) % 2147483647) / 2147483647;
    const a = drawCode(20000, random); const b = drawCode(20000, random);
    return [[...a], [...b], ...[0, 0.5, 1].map((share) => [...mixCodes(a, b, share)])];"""
    a, b, start, middle, end = map(np.array, run("style_code.js: drawCode, mixCodes", code))
    assert abs(a.mean()) < 0.02 and a.std() == pytest.approx(1, abs=0.02) and abs(np.corrcoef(a, b)[0, 1]) < 0.02
    assert (np.abs(a) < 1).mean() == pytest.approx(0.6827, abs=0.01)
    assert np.abs(start - a).max() < 1e-5 and np.abs(end - b).max() < 1e-5
    assert middle.std() == pytest.approx(1, abs=0.02)  # a straight line would give 0.71
    assert np.dot(middle, a) == pytest.approx(np.dot(middle, b), rel=0.02)


def test_a_slow_task_runs_once_more_for_all_that_was_asked_meanwhile() -> None:
    code = """const seen = []; let state = 0; let finish;
    const request = latestOnly(async () => { seen.push(state); await new Promise((done) => (finish = done)); });
    const first = request(); state = 1; request(); state = 2; request(); finish();
    await new Promise((done) => setTimeout(done)); finish(); await first; return seen;"""
    assert run("latest.js: latestOnly", code) == [0, 2]


def test_no_file_of_the_page_loads_anything_from_elsewhere() -> None:
    texts = {path.name: path.read_text() for path in STATIC.iterdir()}
    found = {name for name, text in texts.items() if "://" in text.replace("http://www.w3.org/2000/svg", "")}
    assert found == set()
    code = [text for name, text in texts.items() if not name.endswith(".svg")]
    assert max(len(line) for text in code for line in text.splitlines()) <= 120
    assert Path(STATIC, "index.html").read_text().count("Content-Security-Policy") == 1
