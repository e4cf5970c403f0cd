"""Mutation testing: changes one place of the code at a time and counts how many of the changes the tests notice.

    python benchmarks/mutation.py imagier/losses imagier/train/health.py --mutants 30 --seed 0

Of each file a sample of its mutants is tried, in a copy of the tree, one after the other. A mutant is killed if a test
fails or takes far longer than without it. The tests are those files of the same room that import the module, its own
first; where there are none, those of the modules that import it. Prints the survivors, then a table.

Not changed are annotations, strings, assertions (they watch our own mistakes) and arguments of `@dataclass`.
"""

from __future__ import annotations

import argparse
import ast
import compileall
import contextlib
import copy
import importlib
import multiprocessing
import os
import py_compile
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOADED_ONCE = ("torch._dynamo", "cv2", "yaml", "pydantic", "scipy.stats", "safetensors.torch")
PAIRS = ("Lt LtE", "Gt GtE", "Eq NotEq", "Is IsNot", "In NotIn", "Add Sub", "Mult Div", "BitOr BitAnd", "And Or")
OPERATORS = {a: b for pair in PAIRS for a, b in (pair.split(), pair.split()[::-1])} | dict.fromkeys(
    ("FloorDiv", "Mod", "Pow"), "Mult"
)
NEGATED = ("Eq", "NotEq", "Is", "IsNot", "In", "NotIn")
CALLS = {"min": "max", "max": "min", "any": "all", "all": "any", "floor": "ceil", "ceil": "floor"}
METHODS = CALLS | {"mean": "sum", "sum": "mean", "amax": "amin", "amin": "amax"}


@dataclass(frozen=True)
class Mutant:
    """A change of the bytes of a file from `start` up to `end`."""

    line: int
    start: int
    end: int
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.line}: {' '.join(self.old.split())[:110]}  ->  {' '.join(self.new.split())[:110]}"


def mutants(source: str) -> list[Mutant]:
    """All changes of a file, in the order of its text."""
    raw = source.encode()
    starts = [0]
    for line in raw.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def mutant(node: ast.AST, new: str, end: int) -> Mutant:
        start = starts[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
        return Mutant(node.lineno, start, end, raw[start:end].decode(), new)  # type: ignore[attr-defined]

    found = []
    for node in _nodes(ast.parse(source)):
        for part, new in [*_expressions(node), *_statements(node)]:
            found.append(mutant(part, new, starts[part.end_lineno - 1] + part.end_col_offset))  # type: ignore[attr-defined]
        if isinstance(node, ast.With) and not any(item.optional_vars for item in node.items):
            first = node.body[0]
            end = starts[first.lineno - 1] + first.col_offset
            found.append(mutant(node, "if True:\n" + " " * first.col_offset, end))
    return sorted(found, key=lambda m: (m.start, m.end, m.new))


def _nodes(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that may be changed."""
    if isinstance(node, ast.JoinedStr | ast.Assert) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    ):
        return
    yield node
    for field, value in ast.iter_fields(node):
        children = [child for child in (value if isinstance(value, list) else [value]) if isinstance(child, ast.AST)]
        if field == "decorator_list":
            children = [child for child in children if "dataclass" not in ast.unparse(child)]
        if field not in ("annotation", "returns"):
            yield from (part for child in children for part in _nodes(child))


def _expressions(node: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Expressions in a node, and what they become."""
    if isinstance(node, ast.Compare):
        for index, op in enumerate(node.ops):
            new = copy.deepcopy(node)
            new.ops[index] = getattr(ast, OPERATORS[type(op).__name__])()
            yield node, f"({ast.unparse(new)})"
    elif isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op).__name__ in OPERATORS:
        swapped = copy.deepcopy(node)
        swapped.op = getattr(ast, OPERATORS[type(node.op).__name__])()
        yield node, f"({ast.unparse(swapped)})"
    elif isinstance(node, ast.UnaryOp):
        yield node, f"({ast.unparse(node.operand)})"
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield node, f"({not node.value})"
        elif isinstance(node.value, int):
            yield from ((node, f"({node.value + step})") for step in (1, -1))
        elif isinstance(node.value, float):
            yield from ((node, f"({node.value * factor or factor})") for factor in (2.0, 0.9))
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS:
        yield node.func, CALLS[node.func.id]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
        yield node.func, ast.unparse(ast.Attribute(node.func.value, METHODS[node.func.attr]))
    conditions = node.ifs if isinstance(node, ast.comprehension) else [getattr(node, "test", None)]
    for test in conditions:
        negated = isinstance(test, ast.Compare) and type(test.ops[0]).__name__ in NEGATED  # by its operator already
        if test and not negated and not isinstance(test, ast.UnaryOp):
            yield test, f"({ast.unparse(ast.UnaryOp(ast.Not(), test))})"


def _statements(node: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """A statement, and what it becomes: without effect, or a return of None."""
    into_a_place = isinstance(node, ast.Assign) and not isinstance(node.targets[0], ast.Name | ast.Tuple)
    if into_a_place or isinstance(node, ast.Expr | ast.AugAssign | ast.Raise | ast.Continue | ast.Break | ast.Delete):
        yield node, "pass"
    elif isinstance(node, ast.Return) and node.value and ast.unparse(node.value) != "None":
        yield node, "return None"


def tests_of(path: Path) -> list[str]:
    """The test files that a mutant of a file must pass: paths from the root, its own first."""
    module, room = ".".join(path.with_suffix("").parts), path.parts[1]
    tests = sorted((ROOT / "tests" / room).rglob("test_*.py"), key=lambda test: test.name != f"test_{path.stem}.py")
    found = [test for test in tests if module in _imports(test)]
    if not found:
        users = [user.relative_to(ROOT) for user in (ROOT / "imagier").rglob("*.py") if module in _imports(user)]
        names = {".".join(user.with_suffix("").parts) for user in users}
        found = [test for test in tests if names & _imports(test)]
    return [str(test.relative_to(ROOT)) for test in found]


def _imports(path: Path) -> set[str]:
    """The modules that a file imports, and what it takes from them."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def copy_tree(folder: Path) -> Path:
    """A copy of all tracked files, with the recorded numbers and the data where the tests look for them."""
    tree = folder / "tree"
    for name in subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")[:-1]:
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    for link, target in ((folder / "shared", ROOT.parent / "shared"), (tree / "data", ROOT / "data")):
        if target.exists():
            link.symlink_to(target)
    # By content: by time and size, a mutant of the same second and length would be taken for the one before it.
    compileall.compile_dir(tree, quiet=1, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)
    return tree


def _pytest(tree: Path, tests: Sequence[str]) -> None:
    """The tests in a tree, in this process, up to the first that fails; exits with pytest's status."""
    os.setsid()
    os.chdir(tree)
    sys.path.insert(0, str(tree))
    os.environ["PYTHONPATH"] = str(tree)
    with (tree.parent / "log").open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    sys.exit(int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests])))


def passes(tree: Path, tests: Sequence[str], timeout_s: float) -> bool:
    """Whether the tests pass in time, in a process of their own that leaves no other behind."""
    process = multiprocessing.get_context("fork").Process(target=_pytest, args=(tree, tests))
    process.start()
    assert process.pid
    process.join(timeout_s)
    status = process.exitcode
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.join()
    return status == 0


def survivors(tree: Path, path: Path, count: int, seed: int) -> tuple[int, int]:
    """Tries mutants of a file and prints those that pass its tests -> how many were tried, and how many passed."""
    source = (ROOT / path).read_bytes()
    tests = tests_of(path)
    began = time.monotonic()
    if not tests or not passes(tree, tests, 3600):
        sys.exit(f"{path}: no tests, or they fail without a mutant: {tests}\n{(tree.parent / 'log').read_text()}")
    timeout_s = 30 + 5 * (time.monotonic() - began)
    every = mutants(source.decode())
    chosen = random.Random(f"{seed} {path}").sample(every, min(count, len(every)))
    alive = 0
    for mutant in sorted(chosen, key=lambda m: m.start):
        (tree / path).write_bytes(source[: mutant.start] + mutant.new.encode() + source[mutant.end :])
        if passes(tree, tests, timeout_s):
            print(f"{path}:{mutant}", flush=True)
            alive += 1
    (tree / path).write_bytes(source)
    return len(chosen), alive


def main() -> None:
    """Parses the arguments; prints survivors and a table of scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path, help="files and folders under imagier/")
    parser.add_argument("--mutants", type=int, default=30, help="most mutants of a file")
    parser.add_argument("--seed", type=int, default=0, help="of the samples")
    args = parser.parse_args()
    for name in LOADED_ONCE:
        importlib.import_module(name)
    files = [f for path in args.paths for f in ([path] if path.suffix else sorted(path.rglob("*.py")))]
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        tree = copy_tree(Path(folder))
        for path in files:
            if mutants((ROOT / path).read_text()):
                rows[str(path)] = survivors(tree, path, args.mutants, args.seed)
    rows["all"] = (sum(tried for tried, _ in rows.values()), sum(alive for _, alive in rows.values()))
    for name, (tried, alive) in rows.items():
        print(f"{name:44} {tried - alive:4} of {tried:4} killed, {1 - alive / max(tried, 1):.0%}")


if __name__ == "__main__":
    main()
