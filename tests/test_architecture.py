"""The rules that every file under imagier/ keeps: who imports whom, sizes, docstrings, devices, exceptions."""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "imagier"
FILES = sorted(ROOT.rglob("*.py"))

ARROWS = {
    "errors": set(),
    "ranges": set(),
    "user_code": set(),
    "recipe": set(),
    "alternate": {"recipe"},
    "nn": set(),
    "metrics": {"nn"},
    "config": set(),
    "losses": {"nn"},
    "data": {"recipe"},
    "models": {"recipe", "alternate", "nn", "losses"},
    "train": {"recipe", "metrics"},
    "run": {"recipe", "nn", "metrics", "config", "losses", "data", "models", "train"},
    "tools": {"recipe", "nn", "metrics", "config", "losses", "data", "models", "train", "run"},
    "cli": {"recipe", "nn", "metrics", "config", "losses", "data", "models", "train", "run", "tools", "__init__"},
    "__init__": {"run"},
    "__main__": {"cli"},
}
"""What each room may import from imagier besides itself, the errors, the ranges of numbers, and `user_code`."""

SINGLE_FILES = {"data": {"imagier.nn.colorize"}}
"""Files of other rooms that a room may import, too."""

WITH_CODES = {"recipe", "train", "run", "models", "losses", "cli"}
"""Rooms in which every UserError has a code."""

RUNS_CODE_OF_USERS = {"user_code.py"}
"""Files that import a user's module, which may raise anything, and say where."""

FLAG = re.compile(r"(?<!\w)--[a-z]")

MAX_FUNCTION_LINES = 40
MAX_FILE_LINES = 400
MAX_MODEL_LINES = 900
LONG_FUNCTIONS: set[str] = set()
"""Functions that may be longer, as "models/spade.py: Decoder.__init__"."""

FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


each_file = pytest.mark.parametrize("path", FILES, ids=name_of)


def imports(tree: ast.AST) -> Iterator[tuple[str, list[str]]]:
    """Every module that is imported, and the names that are taken from it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            yield node.module or "", [alias.name for alias in node.names]


def rooms_imported(tree: ast.AST, single_files: Collection[str] = ()) -> Iterator[str]:
    for module, names in imports(tree):
        package, _, rest = module.partition(".")
        if package == "imagier" and module not in single_files:
            yield from [rest.partition(".")[0]] if rest else names or ["__init__"]


@each_file
def test_imports_follow_the_allowed_arrows(path: Path) -> None:
    allowed = ARROWS[room_of(path)] | {room_of(path), "errors", "ranges", "user_code"}
    assert set(rooms_imported(parsed(path), SINGLE_FILES.get(room_of(path), ()))) <= allowed


def modules_imported(path: Path) -> set[str]:
    """The modules of imagier that a file imports, wherever in it."""
    known = {module_of(other) for other in FILES}
    found = set()
    for module, names in imports(parsed(path)):
        found |= {f"{module}.{name}" for name in names} & known or {module} & known
    return found


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Every way from a module back to itself that a walk along the imports comes across."""
    found: list[list[str]] = []
    done: set[str] = set()

    def walk(module: str, way: list[str]) -> None:
        if module in way:
            found.append([*way[way.index(module) :], module])
        elif module not in done:
            for imported in sorted(arrows.get(module, ())):
                walk(imported, [*way, module])
            done.add(module)

    for module in sorted(arrows):
        walk(module, [])
    return found


def test_no_two_files_import_each_other_not_even_in_a_roundabout_way() -> None:
    assert circles({module_of(path): modules_imported(path) for path in FILES}) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [["b", "c", "b"]]


@each_file
def test_a_model_takes_only_networks_from_another(path: Path) -> None:
    if room_of(path) != "models":
        return
    for module, names in imports(parsed(path)):
        if module == "imagier.models" or (module.startswith("imagier.models.") and not names):
            pytest.fail(f"imports the whole module {module}; take its networks by name")
        if module.startswith("imagier.models."):
            assert not any("Recipe" in name for name in names), f"{module}: a recipe is never reused"


def statements_that_are_strings(tree: ast.AST) -> set[ast.AST]:
    """Docstrings, of attributes too."""
    return {
        node.value for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def words(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Names and strings of the code, with their lines."""
    documentation = statements_that_are_strings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in documentation:
            yield node.lineno, node.value
        elif isinstance(node, ast.Attribute):
            yield node.lineno, node.attr
        elif isinstance(node, ast.Name):
            yield node.lineno, node.id


@each_file
def test_cuda_is_written_in_the_runtime_and_as_a_choice_of_the_command_line_only(path: Path) -> None:
    found = [(line, word) for line, word in words(parsed(path)) if "cuda" in word.lower()]
    if name_of(path) == "train/runtime.py":
        assert found, "this test should have found it here"
    elif room_of(path) == "cli":
        assert all(word == "cuda" for _, word in found)
    else:
        assert not found


@each_file
def test_exceptions_are_caught_by_name(path: Path) -> None:
    """Only to clean up may everything be caught, and then it is raised again."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"line {node.lineno}: bare except"
            caught = {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)}
            is_users = name_of(path) in RUNS_CODE_OF_USERS
            assert is_users or "Exception" not in caught, f"line {node.lineno}: catches everything"
            assert "BaseException" not in caught or is_bare_raise(node.body[-1]), f"line {node.lineno}: swallows all"


def is_bare_raise(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Raise) and statement.exc is None


@each_file
def test_files_public_functions_and_public_classes_are_documented(path: Path) -> None:
    tree = parsed(path)
    public = [
        node for node in tree.body if isinstance(node, (*FUNCTION, ast.ClassDef)) and not node.name.startswith("_")
    ]
    assert [node.name for node in public if not ast.get_docstring(node)] == []
    assert not tree.body or ast.get_docstring(tree), "the file has no heading"


def user_errors(tree: ast.AST) -> Iterator[ast.Call]:
    """Every call that makes a UserError."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("UserError", "Unusable"):
            yield node


@each_file
def test_every_mistake_of_the_user_has_a_code(path: Path) -> None:
    if room_of(path) in WITH_CODES:
        calls = user_errors(parsed(path))
        assert [call.lineno for call in calls if "code" not in {keyword.arg for keyword in call.keywords}] == []


@each_file
def test_only_the_command_line_names_flags_in_errors(path: Path) -> None:
    """cli/flags.py puts them in place of the names that Python has."""
    if room_of(path) in WITH_CODES - {"cli"}:
        texts = [
            node for call in user_errors(parsed(path)) for node in ast.walk(call) if isinstance(node, ast.Constant)
        ]
        assert [node.lineno for node in texts if isinstance(node.value, str) and FLAG.search(node.value)] == []


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function]]:
    """All functions by their qualified names; those inside others are part of these."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from functions(node, f"{prefix}{node.name}.")
        elif isinstance(node, FUNCTION):
            yield f"{prefix}{node.name}", node
        elif isinstance(node, ast.stmt):
            yield from functions(node, prefix)


@cache
def lines_with_code(path: Path) -> frozenset[int]:
    """Lines that hold more than blanks and comments."""
    blank = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    with tokenize.open(path) as file:
        tokens = [token for token in tokenize.generate_tokens(file.readline) if token.type not in blank]
    return frozenset(line for token in tokens for line in range(token.start[0], token.end[0] + 1))


def body_length(function: Function, code: frozenset[int]) -> int:
    """Lines of code without signature and docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return len(code & set(range(body[0].lineno, function.body[-1].end_lineno + 1))) if body else 0


@each_file
def test_a_function_fits_on_a_screen(path: Path) -> None:
    lengths = {f"{name_of(path)}: {n}": body_length(f, lines_with_code(path)) for n, f in functions(parsed(path))}
    too_long = {name: length for name, length in lengths.items() if length > MAX_FUNCTION_LINES}
    assert {name: length for name, length in too_long.items() if name not in LONG_FUNCTIONS} == {}
    exceptions = {name for name in LONG_FUNCTIONS if name.startswith(f"{name_of(path)}:")}
    assert exceptions <= too_long.keys(), "an exception that is no longer needed"


@each_file
def test_a_file_is_one_idea_long(path: Path) -> None:
    limit = MAX_MODEL_LINES if room_of(path) == "models" else MAX_FILE_LINES
    assert len(path.read_text().splitlines()) <= limit


def test_a_wheel_holds_every_file_that_is_not_python() -> None:
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    settings = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())
    patterns = settings["tool"]["setuptools"]["package-data"]["imagier"]
    packaged = {pattern: set(ROOT.glob(pattern)) for pattern in patterns}
    assert [pattern for pattern, files in packaged.items() if not files] == []
    others = {path for path in ROOT.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert sorted(map(name_of, others.difference(*packaged.values()))) == []


def test_the_rules_find_what_they_forbid(tmp_path: Path) -> None:
    """So that none of them passes because it looks at nothing."""
    wrong = ast.parse("from imagier import cli\nimport imagier.train.runtime\nx = torch.cuda\ny = f'{x}:cuda'")
    assert set(rooms_imported(wrong)) == {"cli", "train"}
    assert set(rooms_imported(wrong, ["imagier.train.runtime"])) == {"cli"}
    assert [word for _, word in words(wrong) if "cuda" in word] == ["cuda", ":cuda"]
    (call,) = user_errors(ast.parse("raise UserError(f'x {y}', advice='name another --logdir')"))
    texts = [node.value for node in ast.walk(call) if isinstance(node, ast.Constant)]
    assert [text for text in texts if FLAG.search(text)] == ["name another --logdir"]
    code = 'class A:\n  def f(self,\n        x):\n    """Doc."""\n    # why\n    y = 1\n\n    return y\n'
    (tmp_path / "a.py").write_text(code)
    found = dict(functions(ast.parse(code)))
    assert {name: body_length(f, lines_with_code(tmp_path / "a.py")) for name, f in found.items()} == {"A.f": 2}
    assert {room_of(path) for path in FILES} == ARROWS.keys()
