"""The structure of the code: layout, imports, sizes, tests, signatures.

Each rule is a function from a source tree to a list of violations. It is tested twice: the project has none, and a
small tree with one planted violation has one.
"""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("compress", "export", "runtimes")

MAX_MODULES, MAX_LINES, MAX_FUNCTION_LINES, MAX_PARAMETERS = 20, 400, 60, 6
WITHOUT_OWN_TEST = ("__init__.py", "__main__.py")
ONE_TEST_FOR_ALL = ("compress/models",)  # plug-ins of one kind share a parametrised test file
UNMIRRORED = ("arm64", "bench", "faults", "hostile", "samples", "support", "system")  # folders of tests of no module

# Which packages of compress a package may import. `compress` alone stands for the modules directly in it.
LOW = {"process", "recipe.section"}
CONFIGS = {"recipe.plugins", "recipe.foreign", "recipe.strict_yaml", "recipe.errors"}  # read settings; know no recipe
IMAGES = {"images", *LOW}
NETWORKS = {"networks", *CONFIGS, *LOW}
QUANTIZATION = {"quantization", "verdict.statistics", *IMAGES}
TRAINING = {"training", *QUANTIZATION, *NETWORKS}
PRUNING = {"pruning", *TRAINING}
STAGES = {"stages", *PRUNING}
VERDICT = {"verdict", *LOW, "recipe.names", "images.synsets"}
REPORT = {"report", *VERDICT, "images", "pruning.tables", "pruning.plans", "quantization.tables"}
RECIPE = {"recipe", *LOW, "verdict.gate", "quantization.config", "images.samples"}
PIPELINE = {"pipeline", "recipe", *STAGES, *REPORT}
INIT = {"init", "data", "pipeline.finished_run", "pipeline.run_folder", "recipe", *TRAINING, *VERDICT}
MAY_IMPORT = {
    "process": {"process"},
    "images": IMAGES,
    "models": LOW,
    "data": {*IMAGES},
    "networks": NETWORKS,
    "quantization": QUANTIZATION,
    "training": TRAINING,
    "pruning": PRUNING,
    "stages": STAGES,
    "verdict": VERDICT,
    "report": REPORT,
    "recipe": RECIPE,
    "pipeline": PIPELINE,
    "init": INIT,
    "sweep": {"sweep", "recipe", "pipeline.identity", *REPORT},
    "boards": {"boards", "recipe", *REPORT},
}
FOR_BOARDS = {"numpy"}  # besides the standard library
DECODERS = {"PIL"}  # in runtimes.images; tests/runtimes/test_images.py shows that boards without it work
ENGINES = {"onnxruntime", "tensorrt", "tensorrt_rtx", "cuda", "openvino", "ai_edge_litert"}  # in runtimes/backends
RIDDLES = ("What", "Who", "Where", "How", "Whether", "Which", "From", "Tell", "Tells", "Learn", "Learns")


@dataclass(frozen=True)
class Import:
    """One imported module or name. comment: whether one explains it."""

    target: str
    line: int
    in_function: bool
    comment: bool


@dataclass(frozen=True)
class Module:
    """A parsed source file. path: relative to the root of its tree."""

    name: str
    path: Path
    text: str
    tree: ast.Module


class Tree:
    """All modules below a root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.modules = {module.name: module for module in self._read()}

    def _read(self) -> Iterator[Module]:
        for package in PACKAGES:
            for path in sorted((self.root / package).rglob("*.py")):
                relative = path.relative_to(self.root)
                name = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
                text = path.read_text()
                yield Module(name, relative, text, ast.parse(text))

    def own_imports(self, module: Module) -> list[Import]:
        """Return the imports of modules of this tree, each once per statement."""
        found = []
        for item in imports(module):
            target = item.target
            while target and target not in self.modules:
                target = target.rpartition(".")[0]
            if target and target != module.name:
                found.append(Import(target, item.line, item.in_function, item.comment))
        return found


def imports(module: Module) -> Iterator[Import]:
    """Yield every imported name with its module, as in `package.module.name`."""
    lines = module.text.splitlines()
    in_functions = {
        id(node)
        for function in ast.walk(module.tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        for node in ast.walk(function)
    }
    for node in ast.walk(module.tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            yield Import(name, node.lineno, id(node) in in_functions, _explained(lines, node.lineno))


def _explained(lines: list[str], number: int) -> bool:
    """Return whether a comment stands on the line, or above the block of imports that it is in."""
    if "#" in lines[number - 1]:
        return True
    above = number - 2
    while above >= 0 and lines[above].strip().startswith(("from ", "import ")):
        if "#" in lines[above]:
            return True
        above -= 1
    return above >= 0 and lines[above].strip().startswith("#")


def functions(module: Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield all functions and methods of a module."""
    for node in ast.walk(module.tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


# The rules.


def cycles(tree: Tree) -> list[str]:
    """Return each group of modules that import each other, counting imports in functions and under TYPE_CHECKING."""
    edges = {
        name: {item.target for item in tree.own_imports(module) if not _is_package(tree, item.target)}
        for name, module in tree.modules.items()
    }
    return [" <-> ".join(sorted(group)) for group in _components(edges) if len(group) > 1]


def _is_package(tree: Tree, name: str) -> bool:
    return tree.modules[name].path.name == "__init__.py"


def _components(edges: dict[str, set[str]]) -> list[list[str]]:
    """Return the strongly connected components of a graph (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    components: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in edges[node]:
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            components.append([])
            while True:
                components[-1].append(stack.pop())
                if components[-1][-1] == node:
                    return

    for node in edges:
        if node not in index:
            visit(node)
    return components


def wrong_directions(tree: Tree) -> list[str]:
    """Return imports against the directions that CONTRIBUTING.md draws."""
    wrong = []
    for name, module in tree.modules.items():
        for item in tree.own_imports(module):
            if not _may_import(name, item.target):
                wrong.append(f"{module.path}:{item.line} imports {item.target}")
    return wrong


def _may_import(name: str, target: str) -> bool:
    top, target_top = name.partition(".")[0], target.partition(".")[0]
    if top != target_top or target == "compress":
        return PACKAGES.index(top) <= PACKAGES.index(target_top)
    if top != "compress":
        return True
    package, wanted = name.split(".")[1:], target.removeprefix("compress.")
    if wanted.split(".")[0] == "cli":
        return package[:1] == ["cli"] or name == "compress.__main__"
    if wanted.split(".")[0] == "api":
        return package[:1] in (["api"], ["cli"]) or name == "compress"
    if not package or package[0] not in MAY_IMPORT:  # cli, and the modules directly in compress
        return True
    allowed = MAY_IMPORT[package[0]]
    return any(wanted == entry or wanted.startswith(f"{entry}.") for entry in allowed)


def not_for_boards(tree: Tree) -> list[str]:
    """Return imports in runtimes of packages that a board does not have."""
    wrong = []
    for name, module in tree.modules.items():
        if name.split(".")[0] != "runtimes":
            continue
        for item in imports(module):
            top = item.target.partition(".")[0]
            engine = top in ENGINES and name.startswith("runtimes.backends")
            decoder = top in DECODERS and name == "runtimes.images"
            if not (top in sys.stdlib_module_names or top in FOR_BOARDS or top == "runtimes" or engine or decoder):
                wrong.append(f"{module.path}:{item.line} imports {item.target}")
    return wrong


def unexplained_function_imports(tree: Tree) -> list[str]:
    """Return imports of our own modules inside functions that no comment explains."""
    return [
        f"{module.path}:{item.line} imports {item.target} in a function without a comment that says why"
        for module in tree.modules.values()
        for item in tree.own_imports(module)
        if item.in_function and not item.comment
    ]


def large_packages(tree: Tree) -> list[str]:
    """Return packages with more than 20 modules."""
    folders: dict[Path, int] = {}
    for module in tree.modules.values():
        folders[module.path.parent] = folders.get(module.path.parent, 0) + (module.path.name not in WITHOUT_OWN_TEST)
    return [f"{folder}: {count} modules" for folder, count in folders.items() if count > MAX_MODULES]


def long_modules(tree: Tree) -> list[str]:
    """Return modules of more than 400 lines."""
    counts = {module.path: len(module.text.splitlines()) for module in tree.modules.values()}
    return [f"{path}: {count} lines" for path, count in counts.items() if count > MAX_LINES]


def long_functions(tree: Tree) -> list[str]:
    """Return functions of more than 60 lines."""
    return [
        f"{module.path}:{function.lineno} {function.name}: {length} lines"
        for module in tree.modules.values()
        for function in functions(module)
        if (length := (function.end_lineno or 0) - function.lineno + 1) > MAX_FUNCTION_LINES
    ]


def many_parameters(tree: Tree) -> list[str]:
    """Return functions with more than 6 parameters besides self and cls; the options of commands are not counted."""
    wrong = []
    for module in tree.modules.values():
        for function in functions(module):
            arguments = function.args
            names = [item.arg for item in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
            count = len(names) - (names[:1] in (["self"], ["cls"]))
            if count > MAX_PARAMETERS and not _is_command(function):
                wrong.append(f"{module.path}:{function.lineno} {function.name}: {count} parameters")
    return wrong


def _is_command(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(".command(" in ast.unparse(decorator) for decorator in function.decorator_list)


def untested_modules(tree: Tree) -> list[str]:
    """Return modules without a test file at the mirrored place."""
    return [
        f"{module.path}: no tests/{_test_of(module.path)}"
        for module in tree.modules.values()
        if module.path.name not in WITHOUT_OWN_TEST
        and module.path.parent.as_posix() not in ONE_TEST_FOR_ALL
        and not (tree.root / "tests" / _test_of(module.path)).exists()
    ]


def _test_of(path: Path) -> Path:
    return path.with_name(f"test_{path.name}")


def unmirrored_tests(tree: Tree) -> list[str]:
    """Return test files that mirror no module."""
    mirrored = {_test_of(module.path) for module in tree.modules.values()}
    mirrored |= {Path(folder) / f"test_{Path(folder).name}.py" for folder in ONE_TEST_FOR_ALL}
    mirrored |= {module.path.parent / "test_main.py" for module in tree.modules.values()
                 if module.path.name == "__main__.py"}  # fmt: skip
    tests = [path.relative_to(tree.root / "tests") for path in sorted((tree.root / "tests").rglob("test_*.py"))]
    return [
        f"tests/{path}: mirrors no module"
        for path in tests
        if path not in mirrored and path.parts[0] not in UNMIRRORED and path != Path("test_house.py")
    ]


def unexplained_any(tree: Tree) -> list[str]:
    """Return public functions whose signature says Any, except as the dtype of an array.

    `Json` and the plug-ins' Config are aliases that say what they are.
    """
    wrong = []
    for module in tree.modules.values():
        for function in functions(module):
            if function.name.startswith("_") or _is_command(function):
                continue
            arguments = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
            annotations = [item.annotation for item in arguments] + [function.returns]
            lines = module.text.splitlines()[function.lineno - 1 : function.body[0].lineno - 1]
            explained = any("# Any:" in line for line in lines)
            if not explained and any(_says_any(annotation) for annotation in annotations if annotation):
                wrong.append(f"{module.path}:{function.lineno} {function.name}: Any in a public signature")
    return wrong


def _says_any(annotation: ast.expr) -> bool:
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value).endswith("NDArray"):
        return False
    if isinstance(annotation, ast.Name):
        return annotation.id == "Any"
    return any(_says_any(child) for child in ast.iter_child_nodes(annotation) if isinstance(child, ast.expr))


def riddles(tree: Tree) -> list[str]:
    """Return docstrings that begin with a relative clause instead of a verb or a noun."""
    wrong = []
    for module in tree.modules.values():
        for node in (module.tree, *ast.walk(module.tree)):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                first = (ast.get_docstring(node) or "").split(" ")[0].rstrip(",:")
                if first in RIDDLES:
                    wrong.append(f"{module.path}:{getattr(node, 'lineno', 1)} docstring begins with '{first}'")
    return sorted(set(wrong))


RULES: list[Callable[[Tree], list[str]]] = [
    cycles, wrong_directions, not_for_boards, unexplained_function_imports, large_packages, long_modules,
    long_functions, many_parameters, untested_modules, unmirrored_tests, unexplained_any, riddles,
]  # fmt: skip


@functools.cache
def project() -> Tree:
    tree = Tree(ROOT)
    assert len(tree.modules) > 150
    return tree


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_project_keeps_the_rule(rule: Callable[[Tree], list[str]]) -> None:
    violations = rule(project())
    assert not violations, "\n".join(violations)


TESTED = {"tests/compress/test_a.py": "", "compress/a.py": ""}
LONG = "def f() -> None:\n" + "    x = 1\n" * 60
PLANTED: list[tuple[Callable[[Tree], list[str]], dict[str, str]]] = [
    (cycles, {"compress/a.py": "from compress import b", "compress/b.py": "from compress import a"}),
    (cycles, {"compress/a.py": "import compress.b", "compress/b.py": "def f():\n    from compress.a import x"}),
    (cycles, {"export/a.py": "if TYPE_CHECKING:\n    from export.b import X", "export/b.py": "import export.a"}),
    (wrong_directions, {"runtimes/a.py": "import export.b", "export/b.py": ""}),
    (wrong_directions, {"export/a.py": "from compress.process.b import x", "compress/process/b.py": ""}),
    (wrong_directions, {"compress/report/a.py": "from compress.cli.b import x", "compress/cli/b.py": ""}),
    (wrong_directions, {"compress/a.py": "from compress.api.b import x", "compress/api/b.py": ""}),
    (wrong_directions, {"compress/training/a.py": "from compress.stages.b import x", "compress/stages/b.py": ""}),
    (wrong_directions, {"compress/data/a.py": "def f():\n    import compress.models.b", "compress/models/b.py": ""}),
    (not_for_boards, {"runtimes/a.py": "import torch"}),
    (not_for_boards, {"runtimes/a.py": "import onnxruntime"}),  # an engine outside the backends
    (unexplained_function_imports, {"compress/a.py": "def f():\n    import compress.b", "compress/b.py": ""}),
    (large_packages, {f"compress/m{index}.py": "" for index in range(MAX_MODULES + 1)}),
    (long_modules, {"export/a.py": "x = 1\n" * (MAX_LINES + 1)}),
    (long_functions, {"export/a.py": LONG}),
    (many_parameters, {"compress/a.py": "class A:\n    def f(self, a, b, c, d, e, f, *, g): ..."}),
    (untested_modules, {"compress/a.py": ""}),
    (unmirrored_tests, {**TESTED, "tests/compress/test_b.py": ""}),
    (unexplained_any, {"compress/a.py": "def f(x: dict[str, Any]) -> None: ..."}),
    (unexplained_any, {"compress/a.py": "def f() -> list[Any] | None: ..."}),
    (riddles, {"compress/a.py": '"""What people read of a run."""'}),
    (riddles, {"compress/a.py": 'def f() -> bool:\n    """Whether it is."""'}),
]  # fmt: skip

KEPT: list[tuple[Callable[[Tree], list[str]], dict[str, str]]] = [
    (cycles, {"compress/a.py": "from compress import b", "compress/b.py": "import runtimes.c", "runtimes/c.py": ""}),
    (wrong_directions, {"compress/pruning/a.py": "import compress.training.b", "compress/training/b.py": ""}),
    (not_for_boards, {"runtimes/backends/a.py": "import json, numpy, onnxruntime"}),
    (unexplained_function_imports, {
        "compress/a.py": "def f():\n    # torch is slow to import\n    import compress.b", "compress/b.py": ""
    }),
    (large_packages, {f"compress/m{index}.py": "" for index in range(MAX_MODULES)}),
    (long_functions, {"export/a.py": LONG.removesuffix("    x = 1\n")}),
    (many_parameters, {"compress/a.py": "class A:\n    def f(self, a, b, c, d, e, f): ..."}),
    (many_parameters, {"compress/a.py": "@click.command('x')\ndef run(a, b, c, d, e, f, g): ..."}),
    (untested_modules, TESTED),
    (unmirrored_tests, TESTED),
    (unexplained_any, {"compress/a.py": "def f(x: npt.NDArray[Any], y: Json) -> None: ...\ndef _g(x: Any): ..."}),
    (riddles, {"compress/a.py": '"""Statistics for paired predictions."""'}),
]  # fmt: skip


def planted(root: Path, files: dict[str, str]) -> Tree:
    for package in PACKAGES:
        (root / package).mkdir()
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return Tree(root)


@pytest.mark.parametrize(("rule", "files"), PLANTED, ids=lambda value: getattr(value, "__name__", ""))
def test_a_planted_violation_is_found(rule: Callable[[Tree], list[str]], files: dict[str, str], tmp_path: Path) -> None:
    assert len(rule(planted(tmp_path, files))) == 1


@pytest.mark.parametrize(("rule", "files"), KEPT, ids=lambda value: getattr(value, "__name__", ""))
def test_what_is_allowed_is_not_reported(
    rule: Callable[[Tree], list[str]], files: dict[str, str], tmp_path: Path
) -> None:
    assert rule(planted(tmp_path, files)) == []


def test_every_rule_has_a_planted_violation() -> None:
    assert {rule for rule, _ in PLANTED} == set(RULES)
