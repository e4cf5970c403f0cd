"""report.html from the folder of a run alone, and the cards of its checkpoints on it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import tiny
import torch
from test_report import ABOUT, ended, write_log
from test_trainer import Line, trainer

from imagier.errors import UserError
from imagier.metrics.metric import Score
from imagier.run import RunOptions, train
from imagier.train.card import Card, read_card
from imagier.train.hooks import charts, evaluations, page, report_file
from imagier.train.hooks.baselines import CLASS_COLORS, ClassErrors
from imagier.train.hooks.evaluation import GENERATOR
from imagier.train.hooks.page import render_page, write_page
from imagier.train.hooks.report import Report

FD, KD = "FD-EffLite0", "KD-EffLite0"


def card(step: int, weights: str = "average", resize: str = "bicubic", **values: float) -> Card:
    return Card(
        values=values or {FD: 100.0 - step, KD: 0.5},
        intervals={FD: (90.0 - step, 110.0 - step)},
        floor={FD: 42.0, KD: -0.0007},
        floor_sizes=(1500, 1500),
        at_floor_sizes={FD: 95.0},
        protocol={"features": {"resize": resize}, "num_real": 3000},
        subject={
            "iteration": step,
            "num_generated": 2000,
            "weights": weights,
            "checkpoint": f"<{step}>.pt",
            "nearest": f"Nearest to <{step}>.",
        },
        warnings=[f"mostly bias at <{step}>"],
        made_by={"imagier": "9.9", "date": "2026-01-01T00:00:00Z"},
        higher_is_better={FD: False},
    )


def write_cards(logdir: Path, *cards: Card) -> list[Path]:
    paths = []
    for number, each in enumerate(cards):
        paths.append(logdir / evaluations.FOLDER / f"{number}.json")
        each.write(paths[-1])
    return paths


def tables(text: str) -> list[list[list[str]]]:
    """The cells of every table of cards on a page, without its headings."""
    found = re.findall(r"<th>better</th></tr></thead>\s*<tbody>(.*?)</tbody>", text, re.DOTALL)
    rows = [re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL) for body in found]
    return [
        [[re.sub("<.*?>", "", cell) for cell in re.findall(r"<td.*?>(.*?)</td>", row)] for row in table]
        for table in rows
    ]


# The folder ----------------------------------------------------------------------------------------------------------


def test_the_page_of_a_training_is_made_of_its_folder_alone(tmp_path: Path) -> None:
    data = tiny.write_data(tmp_path / "data", train=4, val=3)
    config = tiny.config(data, max_iter=2, logging_iter=1)
    train(config, RunOptions(logdir=tmp_path / "log", device="cpu", command="imagier train <x>"))
    written = (tmp_path / "log" / page.NAME).read_text(encoding="utf-8")
    copy = (tmp_path / "log").rename(tmp_path / "copy")
    assert render_page(copy) == written.replace(">log<", ">copy<").replace("<title>log:", "<title>copy:")
    assert "Finished: iteration 2 of 2" in written and "imagier train &lt;x&gt;" in written
    assert "no better than the mean color" in written and written.count('<td class="bad">no better</td>') == 4
    (copy / page.NAME).unlink()
    write_page(copy)
    assert (copy / page.NAME).read_text(encoding="utf-8") == render_page(copy)


def test_what_a_run_says_of_itself_is_read_as_it_was_written(tmp_path: Path) -> None:
    about = replace(ABOUT, facts={"a": "<b>"}, commands={"c": "d"}, config="e: 1\n", scores=[Score("FD_a", True, "f")])
    rows = [report_file.ClassRow(1, "10 %", "0.1", "nan", True)]
    standing = report_file.Standing(about, "failed", "ü", 3, 1, 12.5, "cpu", 2**40, ["lost"], rows)
    report_file.write(tmp_path, standing)
    assert report_file.read(tmp_path) == standing


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"about": {}}', '{"state": 3}'])
def test_a_folder_without_a_sound_description_has_a_page_with_what_is_there(
    tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / report_file.NAME).write_text(content)
    (tmp_path / "epoch_00001_iteration_000001200_checkpoint.pt").touch()
    assert "Iteration 1,200<" in render_page(tmp_path) and "<h2>Curves" not in render_page(tmp_path)
    write_log(tmp_path, {"L1/regular": 0.25, "L1/baseline/black": 0.5, "gen_update/GAN": 1.0})
    write_cards(tmp_path, card(1300))
    text = render_page(tmp_path)
    assert "Iteration 1,300<" in text and "<h2>Curves" in text
    assert [*re.findall(r"<td class=.name.>(generator|black)</td><td class=.n.>(.*?)</td>", text)] == [
        ("generator", "0.25"),
        ("black", "0.5"),
    ]
    assert "Health" not in text and "Config" not in text and "None" not in text


def test_the_folder_of_another_program_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 3, "loss/a": 1.5, "loss/b": "high", "x": null}\n[1]\n"a"\n')
    (tmp_path / "images").mkdir()
    foreign = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    image = foreign[:20] + b"\xff\xfe\x00\x06\xfcPIL" + foreign[20:]
    (tmp_path / "images" / "epoch_00001_iteration_000000003.jpg").write_bytes(image)
    text = render_page(tmp_path)
    assert "Iteration 3<" in text and text.count("<svg viewBox") == 1 and text.count("<img") == 1
    assert "Iteration 0<" in render_page(tmp_path / "nothing")


def test_a_continued_run_keeps_the_table_by_class_until_there_is_a_new_one(tmp_path: Path) -> None:
    errors = ClassErrors()
    errors.update(torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2), torch.ones(1, 1, 2, 2))
    by_class = {GENERATOR: errors, CLASS_COLORS: errors}
    Report(tmp_path, ABOUT, by_class=by_class).write(trainer(Line()), "running")
    Report(tmp_path, replace(ABOUT, from_step=1)).write(trainer(Line()), "running")
    assert "no better</td>" in render_page(tmp_path)
    Report(tmp_path, ABOUT).write(trainer(Line()), "running")
    assert "no better</td>" not in render_page(tmp_path), "it is of an older run"


def test_an_image_is_encoded_again_only_if_it_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images").mkdir()
    path = tmp_path / "images" / "epoch_00000_iteration_000000001.jpg"
    cv2.imwrite(str(path), np.zeros((16, 32, 3), np.uint8))
    tested = page.Page(tmp_path)
    first = tested.render()
    with monkeypatch.context() as patched:
        patched.setattr(page, "_encode_data_uri", None)
        assert tested.render() == first
    cv2.imwrite(str(path), np.full((16, 32, 3), 255, np.uint8))
    assert tested.render() == render_page(tmp_path) != first


# Two processes -------------------------------------------------------------------------------------------------------


def test_a_training_does_not_take_the_cards_off_its_page(tmp_path: Path) -> None:
    hook = Report(tmp_path, ABOUT)
    hook.write(trainer(Line()), "running")
    write_cards(tmp_path, card(7))
    write_page(tmp_path)
    evaluated = (tmp_path / page.NAME).read_text()
    assert "Running: iteration 0 of 10" in evaluated and len(tables(evaluated)) == 1
    hook.write(trainer(Line()), "running")
    assert tables((tmp_path / page.NAME).read_text()) == tables(evaluated)
    assert tables(ended(tmp_path, 10)) == tables(evaluated)


@pytest.mark.parametrize(
    ("what", "pages"), [("the training ends", 2), ("a card is written", 2), ("a card is half written", 1)]
)
def test_the_last_page_shows_what_another_process_wrote_in_the_meantime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, pages: int
) -> None:
    """Its page was replaced by one that was begun before."""
    (tmp_path / evaluations.FOLDER).mkdir()
    hook = Report(tmp_path, ABOUT)
    hook.write(trainer(Line()), "running")
    slow = page.Page(tmp_path)
    render, count = slow.render, 0

    def render_meanwhile() -> str:
        nonlocal count
        count += 1
        text = render()
        if count == 1 and what == "the training ends":
            hook.after_fit(trainer(Line()), None)
        elif what == "a card is half written":
            (tmp_path / evaluations.FOLDER / ".0.json.99.tmp").touch()
        elif count == 1:
            write_cards(tmp_path, card(7))
            write_page(tmp_path)
        return text

    monkeypatch.setattr(slow, "render", render_meanwhile)
    slow.write()
    assert count == pages
    assert (tmp_path / page.NAME).read_text() == render_page(tmp_path)


# Cards ---------------------------------------------------------------------------------------------------------------


def test_the_newest_checkpoint_is_in_a_table_with_both_kinds_of_weights(tmp_path: Path) -> None:
    other = replace(card(20, "regular"), values={FD: 85.0, KD: math.nan}, higher_is_better={})
    write_cards(tmp_path, card(10), other, card(20))
    text = render_page(tmp_path)
    assert tables(text) == [
        [
            [FD, "80", "70 to 90", "85", "70 to 90", "42", "95", "lower"],
            [KD, "0.5", "-", "-", "-", "-0.0007", "-", ""],
        ]
    ]
    assert "<h3>Iteration 20</h3>" in text and text.index(">average weights</th>") < text.index(">live weights</th>")
    assert "3,000 real and 2,000 generated images; floor: 1,500 against 1,500 real images" in text
    assert "mostly bias at &lt;20&gt;" in text and "at &lt;10&gt;" not in text
    assert text.count("<summary>The card of the") == 2 and "&lt;20&gt;.pt" in text and "features.resize" in text
    assert other.protocol_hash in text and "9.9" in text


def test_the_way_that_is_better_comes_from_the_run_if_the_card_does_not_know(tmp_path: Path) -> None:
    write_cards(tmp_path, card(10, **{FD: 1.0, "mIoU_a": 0.5, "error": 0.1}))
    text = ended(tmp_path, 10, replace(ABOUT, scores=[Score("mIoU_a", True, "About <mIoU>."), Score("z", True, "?")]))
    assert {row[0]: row[-1] for row in tables(text)[0]} == {FD: "lower", "mIoU_a": "higher", "error": ""}
    assert "About &lt;mIoU&gt;." in text and "<li>?</li>" not in text


def test_two_protocols_are_in_two_tables_and_a_line_says_what_differs(tmp_path: Path) -> None:
    write_cards(tmp_path, card(10, resize="<area>"), card(20), card(10), card(5, resize="<area>"))
    text = render_page(tmp_path)
    assert [[row[1] for row in table if row[0] == FD] for table in tables(text)] == [["80"], ["90"]]
    newer, older = text.split("<section")[1:]
    assert "another protocol" in older and "<th>features.resize</th><td>bicubic</td><td>&lt;area&gt;</td>" in older
    assert "another protocol" not in newer and "area" not in newer
    assert newer.count("<svg viewBox") == older.count("<svg viewBox") == 2


def test_a_checkpoint_that_was_measured_twice_counts_once_with_the_later_card(tmp_path: Path) -> None:
    later = replace(card(10, **{FD: 7.0}), made_by={"date": "2026-02-02T00:00:00Z"})
    write_cards(tmp_path, later, card(10))
    assert [[row[1] for row in table] for table in tables(render_page(tmp_path))] == [["7"]]


@pytest.mark.parametrize(
    "change",
    [
        {"values": 3},
        {"values": {"FD": "low"}},
        {"floor": None},
        {"floor_sizes": [1]},
        {"intervals": {"FD": [1]}},
        {"format": 99},
        {"warnings": "no list"},
        {"protocol": []},
        {"subject": {}},
        {"subject": {"iteration": "10"}},
    ],
    ids=str,
)
def test_a_damaged_card_is_left_out_and_named(tmp_path: Path, change: Mapping[str, Any]) -> None:
    (path, _) = write_cards(tmp_path, card(10), card(20))
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    text = render_page(tmp_path)
    assert len(re.findall("evaluations/0.json: .*; it is left out", text)) == 1 and "0.json" in text
    assert [row[1] for row in tables(text)[0]] == ["80", "0.5"]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"null", b"\xff\xfe"])
def test_what_is_no_card_is_left_out_and_named(tmp_path: Path, content: bytes) -> None:
    (path,) = write_cards(tmp_path, card(10))
    path.write_bytes(content)
    assert "evaluations/0.json: is no " in render_page(tmp_path)
    with pytest.raises(UserError) as caught:
        read_card(path)
    assert (caught.value.where, caught.value.code) == (str(path), "damaged-card")


def test_numbers_that_are_not_finite_are_read_as_nan(tmp_path: Path) -> None:
    odd = replace(card(1), values={FD: math.inf}, floor={FD: math.nan}, intervals={FD: (math.nan, -math.inf)})
    (path,) = write_cards(tmp_path, odd)
    assert "NaN" not in path.read_text() and "Infinity" not in path.read_text()
    found = read_card(path)
    assert np.isnan([found.values[FD], found.floor[FD], *found.intervals[FD]]).all()
    assert replace(found, values={}, floor={}, intervals={}) == replace(odd, values={}, floor={}, intervals={})
    assert tables(render_page(tmp_path))[0][0][1:4] == ["-", "-", "-"]


def test_the_nearest_training_images_are_on_the_page_with_their_caption(tmp_path: Path) -> None:
    old, new = write_cards(tmp_path, card(10), card(20))
    for path in (old, new):
        cv2.imwrite(str(path.with_name(f"{path.stem}_nearest.jpg")), np.zeros((8, 8, 3), np.uint8))
    text = render_page(tmp_path)
    assert text.count("<img src") == 1 and "average weights: Nearest to &lt;20&gt;." in text and "<10>" not in text
    new.with_name("1_nearest.jpg").write_bytes(b"")
    assert "<img" not in render_page(tmp_path)


def test_a_card_shows_no_secret(tmp_path: Path) -> None:
    address = "https://me:hidden@host/a?sig=hidden"
    leaky = replace(card(1), warnings=[address], subject={"iteration": 1, "real": address, "nearest": address})
    write_cards(tmp_path, leaky, replace(leaky, protocol={"real": address}))
    assert "hidden" not in render_page(tmp_path) and "https://host/a" in render_page(tmp_path)


# Bands ---------------------------------------------------------------------------------------------------------------


def test_a_band_reaches_from_end_to_end_of_its_intervals_and_breaks_at_gaps() -> None:
    points = [(0, 2.0), (1, 2.0), (2, 2.0), (3, 2.0)]
    band = [(0, 1.0, 3.0), (1, 0.0, 4.0), (2, math.nan, 4.0), (3, 1.0, 3.0)]
    svg = charts.draw_chart({"a": points}, {"floor": 2.0}, {"a": band}).svg
    ElementTree.fromstring(svg)
    areas = re.findall(r'd="M([^"]+)Z"', svg)
    places = [[tuple(map(float, place.split())) for place in area.split("L")] for area in areas]
    assert [len(area) for area in places] == [4, 2]
    (start_low, end_low, end_high, start_high) = places[0]
    assert start_low[0] == start_high[0] == charts.LEFT < end_low[0] == end_high[0]
    assert end_low[1] > start_low[1] > start_high[1] > end_high[1] >= charts.TOP, "all of it is in the frame"
    middle = (start_low[1] + start_high[1]) / 2
    assert f"M{charts.LEFT}.0 {middle:.1f}L" in svg
