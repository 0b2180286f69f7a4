"""The shape of the source: what STYLE.md promises, and neither imports nor types can say."""

import ast
import inspect
import json
import statistics
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

import brownout

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "brownout"
MODULES = sorted(PACKAGE.rglob("*.py"))
CORE = sorted((PACKAGE / "_core").rglob("*.py"))

MODULE_LINES = 400
MODULE_LINES_MEDIAN = 150
FUNCTION_LINES = 60
PUBLIC_NAMES = 30
VAGUE_NAMES = ["base", "common", "helpers", "manager", "utils"]


def lines(path: Path) -> int:
    return len(path.read_text("utf-8").splitlines())


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


# ------------------------------------------------------------------------------ the core is pure
# A set's order differs from one process to the next, so a decision that walks one is not repeated
# by the same seed. What only asks (`in`, `len`, `min`, `sorted`) is fine.

WAITS = (ast.Await, ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith)
SET_TYPES = {"set", "frozenset", "Set", "AbstractSet", "MutableSet"}
SET_METHODS = {"union", "intersection", "difference", "symmetric_difference", "copy"}
SET_OPERATORS = (ast.BitOr, ast.BitAnd, ast.BitXor, ast.Sub)
WALKERS = {"enumerate", "filter", "iter", "list", "map", "reversed", "sum", "tuple", "zip"}


def is_set(node: ast.expr | None, known: set[str]) -> bool:
    """Whether `node` is a set as far as its text tells; `known` are names bound to one."""
    match node:
        case ast.Set() | ast.SetComp():
            return True
        case ast.Call(func=ast.Name(id="set" | "frozenset")):
            return True
        case ast.Call(func=ast.Attribute(value=value, attr=attr)):
            return attr in SET_METHODS and is_set(value, known)
        case ast.BinOp(left=left, op=op, right=right):
            return isinstance(op, SET_OPERATORS) and (is_set(left, known) or is_set(right, known))
        case ast.Name() | ast.Attribute():
            return ast.unparse(node) in known
        case _:
            return False


def is_set_type(annotation: ast.expr) -> bool:
    return ast.unparse(annotation).partition("[")[0].rpartition(".")[2] in SET_TYPES


def names_of_sets(tree: ast.Module) -> set[str]:
    """Names that are bound or annotated as a set anywhere in the module."""
    known: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=targets, value=value) if is_set(value, known):
                known.update(ast.unparse(target) for target in targets)
            case ast.arg(arg=name, annotation=ast.expr() as kind) if is_set_type(kind):
                known.add(name)
            case ast.AnnAssign(target=target, annotation=kind) if is_set_type(kind):
                known.update([ast.unparse(target), f"self.{ast.unparse(target)}"])
            case _:
                pass
    return known


def walked(node: ast.AST) -> list[ast.expr]:
    """What `node` takes one by one, in the order it comes."""
    match node:
        case ast.For(iter=one) | ast.comprehension(iter=one) | ast.Starred(value=one):
            return [one]
        case ast.Call(func=ast.Name(id=name), args=args) if name in WALKERS:
            return args
        case ast.Call(func=ast.Attribute(value=one, attr="pop"), args=[]):
            return [one]
        case ast.Call(func=ast.Attribute(attr="join" | "extend"), args=args):
            return args
        case _:
            return []


def impurities(tree: ast.Module) -> Iterator[str]:
    known = names_of_sets(tree)
    for node in ast.walk(tree):
        if isinstance(node, WAITS) or (isinstance(node, ast.comprehension) and node.is_async):
            yield f"waits: {ast.unparse(node).splitlines()[0]}"
        elif isinstance(node, ast.Global):
            yield f"line {node.lineno}: global"
        for one in walked(node):
            if is_set(one, known):
                yield f"line {one.lineno}: walks the set {ast.unparse(one)}"


def test_the_core_waits_for_nothing_keeps_no_globals_and_walks_no_set() -> None:
    found = [f"{path.name} {what}" for path in CORE for what in impurities(parse(path))]
    assert CORE
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "async def f(): pass",
        "async def f():\n    async with x: pass",
        "y = [a async for a in b]",
        "def f():\n    global x",
        "for x in {1, 2}: pass",
        "y = [x for x in set(z)]",
        "y = list(a & {1})",
        "y = [*frozenset(z)]",
        "def f(seen: set[int]):\n    for x in seen: pass",
        "class A:\n    seen: set[int]\n    def f(self):\n        return tuple(self.seen)",
        "seen = set()\nfor x in seen.union(y): pass",
        "seen = set()\nx = seen.pop()",
    ],
)
def test_an_impurity_is_found(text: str) -> None:
    assert list(impurities(ast.parse(text)))


@pytest.mark.parametrize(
    "text",
    [
        "for x in [1, 2]: pass",
        "y = sorted({1, 2})",
        "y = x in {1, 2}",
        "y = len(set(z))",
        "y = list(a - b)",
        "def f(d: dict[int, set[int]]):\n    for x in d: pass",
        "x = [1].pop()",
    ],
)
def test_what_is_pure_is_left_alone(text: str) -> None:
    assert list(impurities(ast.parse(text))) == []


# ------------------------------------------------------------------------------------------ sizes


def test_modules_are_short() -> None:
    sizes = {str(path.relative_to(PACKAGE)): lines(path) for path in MODULES}
    assert {name: size for name, size in sizes.items() if size > MODULE_LINES} == {}
    assert statistics.median(sizes.values()) <= MODULE_LINES_MEDIAN


def test_functions_are_short() -> None:
    """Docstring and comments count: what is long to read is long."""
    sizes = {
        f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for path in MODULES
        for node in ast.walk(parse(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
    }
    assert {name: size for name, size in sizes.items() if size > FUNCTION_LINES} == {}


def test_no_module_is_named_for_nothing() -> None:
    vague = [path for path in PACKAGE.rglob("*") if path.stem.strip("_") in VAGUE_NAMES]
    assert vague == []


# --------------------------------------------------------------------------------- the front door


def test_public_names_are_few_and_sorted() -> None:
    """Sorted as `sorted` does it: capitals first, so classes stand before functions."""
    assert list(brownout.__all__) == sorted(set(brownout.__all__))
    assert len(brownout.__all__) <= PUBLIC_NAMES


def public_things() -> Iterator[tuple[str, str | None]]:
    """Each public class and function, and the public methods of each class, with its docstring."""
    for name in brownout.__all__:
        thing: object = getattr(brownout, name)
        if isinstance(thing, type):
            text = vars(thing).get("__doc__")
            # dataclass and NamedTuple write "Name(field, ...)" where nobody wrote anything
            yield name, None if str(text).startswith(f"{thing.__name__}(") else text
            for part, member in vars(thing).items():
                if not part.startswith("_") and isinstance(
                    member, property | staticmethod | classmethod | type(public_things)
                ):
                    yield f"{name}.{part}", inspect.getdoc(getattr(thing, part))
        elif callable(thing):
            yield name, inspect.getdoc(thing)


def test_every_public_name_has_a_docstring() -> None:
    assert brownout.__doc__
    assert [name for name, text in public_things() if not text] == []


def test_import_brownout_pulls_in_no_asyncio_and_no_third_party_module() -> None:
    """Asked of a bare interpreter that could import every installed library, and has none yet."""
    code = """
import json, sys
sys.path[:0] = sys.argv[1:]
before = set(sys.modules)
import brownout
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    libraries = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    command = [sys.executable, "-I", "-S", "-c", code, str(PACKAGE.parent), *libraries]
    told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
    modules: list[str] = json.loads(told.stdout)
    roots = {name.partition(".")[0] for name in modules}
    assert "brownout" in roots
    assert sorted(roots - sys.stdlib_module_names) == ["brownout"]
    assert "asyncio" not in roots


def test_import_brownout_pulls_in_nothing_that_is_needed_only_later() -> None:
    """Each of these costs milliseconds at the start of every process that guards a call."""
    code = "import sys, brownout; print(*sorted(sys.modules))"
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    late = {
        "asyncio", "brownout.fleet.sharing", "dataclasses", "inspect", "json", "logging", "random",
        "socket", "sqlite3", "traceback",
    }  # fmt: skip
    assert late & set(told.stdout.split()) == set()


# --------------------------------------------------------------------------------- the repository


def test_no_file_names_a_package_registry() -> None:
    """Where packages come from is the machine's business."""
    hosts = ["pypi" + ".org", "python" + "hosted", "debian" + ".org", "npm" + "js"]
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others"]
    listed = subprocess.run([*command, "--exclude-standard"], capture_output=True, check=False)
    if listed.returncode:
        pytest.skip(f"not a git checkout: {listed.stderr.decode().strip()}")
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    found = [
        f"{path.relative_to(ROOT)} names {host}"
        for path in paths
        if path.is_file()
        for host in hosts
        if host.encode() in path.read_bytes().lower()
    ]
    assert found == []
