"""benchmarks/mutation.py: which changes it makes, and that it tells the tests that notice from those that do not."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import mutation  # noqa: E402

SOURCE = '''"""A docstring with 1 number."""
from dataclasses import dataclass

LIMIT: float = 0.5

@dataclass(frozen=True)
class Box:
    side: int = 3

def size(x: int, wide: bool = True) -> int:
    """Another: 2."""
    assert x > 0, "ours"
    with lock:
        x += 1
    if wide and x >= LIMIT:
        raise ValueError(f"{x + 1}")
    return (x - 1).sum() if x else min(x, 4)
'''


def change(mutant: mutation.Mutant, source: str = SOURCE) -> str:
    raw = source.encode()
    return (raw[: mutant.start] + mutant.new.encode() + raw[mutant.end :]).decode()


def test_each_change_is_one_of_these() -> None:
    assert [(m.line, m.old.split("\n")[0], m.new.split("\n")[0]) for m in mutation.mutants(SOURCE)] == [
        (4, "0.5", "(0.45)"),
        (4, "0.5", "(1.0)"),
        (8, "3", "(2)"),
        (8, "3", "(4)"),
        (10, "True", "(False)"),
        (13, "with lock:", "if True:"),
        (14, "x += 1", "pass"),
        (14, "1", "(0)"),
        (14, "1", "(2)"),
        (15, "wide and x >= LIMIT", "(not (wide and x >= LIMIT))"),
        (15, "wide and x >= LIMIT", "(wide or x >= LIMIT)"),
        (15, "x >= LIMIT", "(x > LIMIT)"),
        (16, 'raise ValueError(f"{x + 1}")', "pass"),
        (17, "return (x - 1).sum() if x else min(x, 4)", "return None"),
        (17, "(x - 1).sum", "(x - 1).mean"),
        (17, "x - 1", "(x + 1)"),
        (17, "1", "(0)"),
        (17, "1", "(2)"),
        (17, "x", "(not x)"),
        (17, "min", "max"),
        (17, "4", "(3)"),
        (17, "4", "(5)"),
    ]


@pytest.mark.parametrize("path", ["data/loading/order.py", "losses/gan.py", "nn/norm.py", "train/trainer.py"])
def test_every_mutant_is_python_that_does_something_else(path: str) -> None:
    source = (ROOT / "imagier" / path).read_text()
    changed = [ast.unparse(ast.parse(change(mutant, source))) for mutant in mutation.mutants(source)]
    assert len(set(changed) | {ast.unparse(ast.parse(source))}) == len(changed) + 1


def test_its_own_tests_come_first_and_all_others_of_the_room_import_it() -> None:
    tests = mutation.tests_of(Path("imagier/nn/norm.py"))
    assert tests[0] == "tests/nn/test_norm.py"
    assert all("imagier.nn.norm" in (ROOT / test).read_text() for test in tests)


@pytest.mark.slow
def test_a_change_that_a_test_notices_is_killed(tmp_path: Path) -> None:
    """In a package of its own: nothing but the copied file is ever written."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "boxes.py").write_text("def area(side):\n    return side * side\n")
    (tree / "test_boxes.py").write_text("import boxes\n\ndef test_area():\n    assert boxes.area(1) == 1\n")
    assert mutation.passes(tree, ["test_boxes.py"], timeout_s=100)
    (tree / "boxes.py").write_text("def area(side):\n    return side / side\n")
    assert mutation.passes(tree, ["test_boxes.py"], timeout_s=100), "1 / 1 is 1 too"
    (tree / "boxes.py").write_text("def area(side):\n    return None\n")
    assert not mutation.passes(tree, ["test_boxes.py"], timeout_s=100)
    (tree / "boxes.py").write_text("def area(side):\n    while True:\n        pass\n")
    assert not mutation.passes(tree, ["test_boxes.py"], timeout_s=2)
