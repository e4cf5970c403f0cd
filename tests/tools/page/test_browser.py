"""The page in Chromium: what is painted goes through the network, and what is shown is what torch computes of it."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from browser import Browser, needs_chromium
from images import png, smooth, write
from torch import Tensor

from . import visit
from .bundles import CODE, HEIGHT, IMAGE, IMAGE_PART, LINES, MAP, NOISE, STYLE, WIDTH, label_input, make_bundle
from .visit import difference, opened, read, served, shown

pytest.importorskip("onnx", reason="needs onnx, to make small networks")
pytestmark = [pytest.mark.slow, needs_chromium]


def saved_drawing(browser: Browser, name: str) -> np.ndarray:
    """The file of the drawing, H x W."""
    return cv2.imread(str(browser.download("#save-drawing", f"{name}.png")), cv2.IMREAD_UNCHANGED)


def assert_shows(browser: Browser, images: Tensor) -> None:
    """That the page soon shows these images, 1 x 3 x H x W in [-1, 1]."""
    expected = ((images[0] + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    assert expected.std() > 20, "an image without contents would prove little"
    visit.assert_shows(browser, expected)


def one_hot(ids: np.ndarray) -> Tensor:
    """Class ids H x W -> 1 x 5 x H x W, the last channel for what is no class."""
    known = torch.stack([torch.from_numpy(ids == each["id"]) for each in MAP["classes"]])
    return torch.cat([known, ~known.any(0, keepdim=True)]).float()[None]


def to_tensor(image: np.ndarray, low: float, high: float) -> Tensor:
    """H x W x C or H x W bytes -> 1 x C x H x W in [low, high]."""
    return torch.from_numpy(np.atleast_3d(image)).permute(2, 0, 1)[None].float() / 255 * (high - low) + low


def test_an_example_shows_what_torch_computes(browser: Browser, tmp_path: Path) -> None:
    network = make_bundle(tmp_path / "bundle", label_input(LINES))
    with opened(browser, tmp_path / "bundle"):
        for index in (0, 1):
            browser.click(f"#example-list button:nth-child({index + 1})")
            stored = read(tmp_path / f"bundle/samples/{index}.edge_maps.input.png")
            assert_shows(browser, network({"label": to_tensor(stored, 0, 1)}))
        assert difference(read(browser.download("#save-result", "tiny.png")), shown(browser)) == 0


def test_of_examples_that_are_clicked_quickly_the_last_one_is_shown(browser: Browser, tmp_path: Path) -> None:
    network = make_bundle(tmp_path / "bundle", label_input(LINES), samples=6)
    with opened(browser, tmp_path / "bundle"):
        for last in (5, 2):
            order = [*range(6), last]
            browser.evaluate(f"{order}.forEach((i) => document.querySelectorAll('#example-list button')[i].click())")
            time.sleep(0.3)
            stored = read(tmp_path / f"bundle/samples/{last}.edge_maps.input.png")
            assert_shows(browser, network({"label": to_tensor(stored, 0, 1)}))
            assert difference(saved_drawing(browser, "edge_maps"), stored) == 0


def test_lines_are_drawn_erased_undone_and_redone(browser: Browser, tmp_path: Path) -> None:
    network = make_bundle(tmp_path / "bundle", label_input(LINES))
    with opened(browser, tmp_path / "bundle"):
        before = saved_drawing(browser, "edge_maps")
        browser.drag("#board", (0.1, 0.2), (0.5, 0.9), (0.9, 0.2))
        drawn = saved_drawing(browser, "edge_maps")
        assert (
            drawn.min() == 0 and len(np.unique(drawn)) > 4 and (drawn <= before).all() and (drawn < before).sum() > 50
        )
        assert_shows(browser, network({"label": to_tensor(drawn, 0, 1)}))

        browser.press("e")
        browser.drag("#board", (0.1, 0.2), (0.5, 0.9))
        erased = saved_drawing(browser, "edge_maps")
        assert (erased >= drawn).all() and (erased > drawn).any()
        for keys, state in (("z", drawn), ("z", before), ("Z", drawn), ("y", erased)):
            browser.press(keys, modifiers=10 if keys == "Z" else 2)
            assert difference(saved_drawing(browser, "edge_maps"), state) == 0
        assert_shows(browser, network({"label": to_tensor(erased, 0, 1)}))

        browser.click("#clear")
        assert (saved_drawing(browser, "edge_maps") == 255).all()


def test_classes_are_painted_filled_and_saved_as_ids(browser: Browser, tmp_path: Path) -> None:
    network = make_bundle(tmp_path / "bundle", label_input(MAP))
    with opened(browser, tmp_path / "bundle"):
        before = saved_drawing(browser, "seg_maps")
        assert difference(before, read(tmp_path / "bundle/samples/0.seg_maps.input.png")) == 0
        assert_shows(browser, network({"label": one_hot(before)}))

        browser.click("#palette label:nth-child(3)")
        browser.drag("#board", (0.6, 0.5), (0.9, 0.6))
        drawn = saved_drawing(browser, "seg_maps")
        assert set(np.unique(drawn[drawn != before])) == {2}
        browser.press("f")
        browser.press("4")
        browser.click("#board")  # its middle is sky
        filled = saved_drawing(browser, "seg_maps")
        sky = cv2.floodFill(drawn.copy(), None, (WIDTH // 2, HEIGHT // 2), 7, flags=4)[1]
        assert difference(filled, sky) == 0 and (filled != drawn).any()
        assert_shows(browser, network({"label": one_hot(filled)}))


def test_a_keyboard_alone_paints(browser: Browser, tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle", label_input(MAP))
    with opened(browser, tmp_path / "bundle"):
        before = saved_drawing(browser, "seg_maps")
        browser.evaluate("document.getElementById('board').focus()")
        for key in ("ArrowUp", "ArrowLeft", " "):
            browser.press(key, code=key)
        once = saved_drawing(browser, "seg_maps")
        browser.evaluate("document.getElementById('board').focus()")
        for _ in range(4):
            browser.press("ArrowRight", code="ArrowRight", modifiers=8)
        line = saved_drawing(browser, "seg_maps")
        assert 0 < (once != before).sum() < (line != before).sum()


def test_a_file_of_the_users_takes_its_place_at_its_own_shape(browser: Browser, tmp_path: Path) -> None:
    network = make_bundle(tmp_path / "bundle", IMAGE, samples=1)
    own = smooth(HEIGHT, 88, seed=3)
    write(tmp_path / "own.png", png(own))
    with opened(browser, tmp_path / "bundle"):
        stored = read(tmp_path / "bundle/samples/0.images.input.png")
        assert_shows(browser, network({"images": to_tensor(stored, -1, 1)}))
        browser.choose_file("#upload + input", tmp_path / "own.png")
        assert_shows(browser, network({"images": to_tensor(own, -1, 1)}))


def test_a_new_style_is_another_image_and_the_slider_leads_back(browser: Browser, tmp_path: Path) -> None:
    network = make_bundle(tmp_path / "bundle", label_input(LINES), NOISE)
    with opened(browser, tmp_path / "bundle"):
        code = torch.tensor([[0.5, *[0.3] * (CODE - 1)]])
        stored = read(tmp_path / "bundle/samples/0.edge_maps.input.png")
        assert_shows(browser, network({"label": to_tensor(stored, 0, 1), "noise": code}))
        first = shown(browser)
        browser.click("#new-style")
        browser.wait("!document.querySelector('.busy')")
        second = wait_for_other(browser, first)
        browser.evaluate(
            "(() => { const s = document.getElementById('style-mix'); s.value = 0; s.dispatchEvent(new Event('input'));"
            " s.dispatchEvent(new Event('change')); })()"
        )
        assert difference(wait_for_other(browser, second), first) == 0


def test_the_style_image_that_is_chosen_is_used(browser: Browser, tmp_path: Path) -> None:
    network = make_bundle(tmp_path / "bundle", IMAGE, STYLE)
    content = to_tensor(read(tmp_path / "bundle/samples/0.images.input.png"), -1, 1)
    with opened(browser, tmp_path / "bundle"):
        for index in (0, 1):
            browser.click(f"#style-thumbs label:nth-child({index + 1})")
            style = to_tensor(read(tmp_path / f"bundle/samples/{index}.style.png"), -1, 1)
            assert_shows(browser, network({"images": content, "style_images": style}))
        own = smooth(HEIGHT, 96, seed=7)  # of a shape of its own
        write(tmp_path / "own.png", png(own))
        browser.choose_file("#upload-style + input", tmp_path / "own.png")
        assert_shows(browser, network({"images": content, "style_images": to_tensor(own, -1, 1)}))


def test_a_label_of_two_parts_has_two_layers(browser: Browser, tmp_path: Path) -> None:
    network = make_bundle(tmp_path / "bundle", label_input(LINES, MAP))
    with opened(browser, tmp_path / "bundle"):
        browser.drag("#board", (0.1, 0.1), (0.8, 0.3))
        lines = saved_drawing(browser, "edge_maps")
        browser.click("#layers label:nth-child(2)")
        browser.drag("#board", (0.1, 0.9), (0.8, 0.7))
        ids = saved_drawing(browser, "seg_maps")
        assert_shows(browser, network({"label": torch.cat([to_tensor(lines, 0, 1), one_hot(ids)], 1)}))


def test_lines_of_a_gray_image_are_drawn(browser: Browser, tmp_path: Path) -> None:
    gray = {**IMAGE, "type": "drawings", "shape": ["batch", 1, "height", "width"]}
    network = make_bundle(tmp_path / "bundle", gray)
    with opened(browser, tmp_path / "bundle"):
        before = saved_drawing(browser, "drawings")
        assert difference(before, read(tmp_path / "bundle/samples/0.drawings.input.png")) == 0
        browser.drag("#board", (0.1, 0.2), (0.9, 0.7))
        drawn = saved_drawing(browser, "drawings")
        assert (drawn < before).any()
        assert_shows(browser, network({"images": to_tensor(drawn, -1, 1)}))


def test_a_bundle_without_examples_begins_with_an_empty_board(browser: Browser, tmp_path: Path) -> None:
    network = make_bundle(tmp_path / "bundle", label_input(LINES), samples=0)
    with opened(browser, tmp_path / "bundle"):
        size = browser.evaluate("(({width, height}) => [width, height])(document.getElementById('board'))")
        assert size == [WIDTH, HEIGHT]
        browser.drag("#board", (0.1, 0.2), (0.9, 0.7))
        drawn = saved_drawing(browser, "edge_maps")
        assert drawn[int(0.2 * HEIGHT), int(0.1 * WIDTH)] < 128 and drawn[-1, 0] == 255
        assert_shows(browser, network({"label": to_tensor(drawn, 0, 1)}))


def test_a_second_finger_draws_nothing_and_ends_nothing(browser: Browser, tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle", label_input(LINES), samples=0)
    with opened(browser, tmp_path / "bundle"):
        second = [("down", 2, 0.1), ("move", 2, 0.9), ("up", 2, 0.9)]
        events = [("down", 1, 0.1), *second, ("move", 1, 0.9), ("up", 1, 0.9)]
        browser.evaluate(
            "(() => { const board = document.getElementById('board'); board.setPointerCapture = () => {};"
            " const {left, top, width, height} = board.getBoundingClientRect();"
            f" for (const [type, pointerId, x] of {json.dumps(events)})"
            " board.dispatchEvent(new PointerEvent(`pointer${type}`, {pointerId, clientX: left + x * width,"
            " clientY: top + (pointerId === 1 ? 0.1 : 0.9) * height})); })()"
        )
        drawn = saved_drawing(browser, "edge_maps")
        assert drawn[int(0.1 * HEIGHT), WIDTH // 2] < 128 and (drawn[HEIGHT // 4 :] == 255).all()


def test_what_is_only_chosen_is_no_board(browser: Browser, tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle", label_input(IMAGE_PART, LINES))
    state = "(({tabIndex, role, ariaLabel}) => [tabIndex, role, ariaLabel])(document.getElementById('board'))"
    with opened(browser, tmp_path / "bundle"):
        assert browser.evaluate(state) == [-1, "img", "Input image"]
        browser.click("#layers label:nth-child(2)")
        assert browser.evaluate(state) == [0, "application", "Drawing board"]


def test_a_style_that_is_no_image_is_refused_and_the_one_before_stays(browser: Browser, tmp_path: Path) -> None:
    network = make_bundle(tmp_path / "bundle", IMAGE, STYLE)
    content, style = (
        to_tensor(read(tmp_path / f"bundle/samples/0.{name}.png"), -1, 1) for name in ("images.input", "style")
    )
    with opened(browser, tmp_path / "bundle"):
        browser.choose_file("#upload-style + input", write(tmp_path / "broken.png", b"no image"))
        browser.wait("!document.getElementById('error').hidden")
        assert "broken.png is no image" in browser.evaluate("document.getElementById('error').textContent")
        assert browser.evaluate("document.getElementById('style-thumbs').children.length") == 2
        browser.click("#example-list button:nth-child(1)")
        assert_shows(browser, network({"images": content, "style_images": style}))
        browser.wait("document.getElementById('error').hidden")
        browser.evaluate("document.getElementById('error').textContent = ''")


def test_an_image_that_is_dropped_beside_the_board_does_not_replace_the_page(browser: Browser, tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle", IMAGE)
    with opened(browser, tmp_path / "bundle"):
        for name in ("dragover", "drop"):
            event = f"new DragEvent('{name}', {{bubbles: true, cancelable: true}})"
            assert browser.evaluate(f"document.getElementById('output-panel').dispatchEvent({event})") is False


def test_a_network_that_is_none_is_an_error_on_the_page(browser: Browser, tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle", label_input(LINES), has_network=False)
    with served(tmp_path / "bundle") as url:
        browser.open(url)
        browser.wait("!document.getElementById('error').hidden")
        assert "did not work" in browser.evaluate("document.getElementById('error').textContent")


def test_where_it_cannot_run_the_page_says_why(browser: Browser, tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle", label_input(LINES), has_network=False)
    with served(tmp_path / "bundle") as url, browser.running_first("delete globalThis.WebAssembly"):
        browser.open(url)
        browser.wait("!document.getElementById('error').hidden")
        assert "no WebAssembly" in browser.evaluate("document.getElementById('error').textContent")
    browser.open((tmp_path / "site/index.html").as_uri())
    browser.wait("!document.getElementById('error').hidden")
    assert "python -m http.server" in browser.evaluate("document.getElementById('error').textContent")


def test_images_are_dropped_and_pasted(browser: Browser, tmp_path: Path) -> None:
    network = make_bundle(tmp_path / "bundle", IMAGE)
    with opened(browser, tmp_path / "bundle"):
        for index, event in ((1, "drop"), (0, "paste")):
            stored = tmp_path / f"bundle/samples/{index}.images.input.png"
            file = base64.b64encode(stored.read_bytes()).decode()
            field = "clipboardData" if event == "paste" else "dataTransfer"
            kind = "ClipboardEvent" if event == "paste" else "DragEvent"
            browser.evaluate(
                f"(() => {{ const data = new DataTransfer(); const bytes = Uint8Array.from(atob('{file}'),"
                " (c) => c.charCodeAt(0)); data.items.add(new File([bytes], 'a.png', {type: 'image/png'}));"
                f" document.getElementById('board').dispatchEvent(new {kind}('{event}', {{{field}: data,"
                " bubbles: true, cancelable: true})); })()"
            )
            assert_shows(browser, network({"images": to_tensor(read(stored), -1, 1)}))


def test_no_control_lacks_a_name_and_nothing_is_wider_than_a_phone(browser: Browser, tmp_path: Path) -> None:
    parts = [LINES, MAP, IMAGE_PART, {**IMAGE_PART, "type": "normals_of_surfaces"}]
    make_bundle(tmp_path / "bundle", label_input(*parts), NOISE)
    with opened(browser, tmp_path / "bundle"):
        browser.resize(390, 844, is_touch=True)
        assert browser.evaluate("document.documentElement.scrollWidth") <= 390
        nameless = browser.evaluate(
            "[...document.querySelectorAll('button, input:not([type=file]), canvas[tabindex], progress')].filter((e) =>"
            " !(e.ariaLabel || e.textContent.trim() || e.closest('label')?.textContent.trim())).map((e) => e.outerHTML)"
        )
        assert nameless == []


def wait_for_other(browser: Browser, image: np.ndarray) -> np.ndarray:
    """What is shown as soon as it is not this image any more."""
    end = time.monotonic() + 15
    while difference(shown(browser), image) == 0:
        assert time.monotonic() < end, "still the same image"
        time.sleep(0.05)
    time.sleep(0.3)  # a slider asks twice
    return shown(browser)
