"""What the rules of an env are, as a hash of its source: a change of rules or prompts replays episodes by itself."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import envs
from envs.base import Env
from envs.python_source import parse_python


def env_fingerprint(env_class: type[Env]) -> str:
    """Sixteen hex digits that change with the code of an env and stay when only comments or formatting do.

    Covers the modules of the class and its bases up to `Env`, and whatever those import, however deep, except the
    standard library and installed packages: a prompt or a judge in a neighbouring module counts as much as one in the
    env's file. The judges and the sandbox count whole, since some of their files are started by path.

    Raises:
        ValueError: a module has no source to read, e.g. a class typed into a prompt.
    """
    bases = env_class.__mro__[: env_class.__mro__.index(Env) + 1]
    waiting = [base.__module__ for base in bases]
    packages = {_package(name) for name in waiting}
    waiting += _judging_modules()
    trees: dict[str, ast.Module] = {}
    while waiting:
        name = waiting.pop()
        if name in trees:
            continue
        trees[name] = _parse(name)
        own = (
            found for found in _imported(trees[name], name) if _package(found) in packages or _is_local(_package(found))
        )
        waiting += [found for found in own if _source_path(found) is not None]
    total = hashlib.sha256()
    for name, tree in sorted(trees.items()):
        total.update(f"{name}\n{ast.dump(_WithoutDocstrings().visit(tree))}\n".encode())
    return total.hexdigest()[:16]


class _WithoutDocstrings(ast.NodeTransformer):
    """Drops every string that stands alone as a statement: docstrings, and notes below a constant."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        alone = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if alone else node


def _package(module: str) -> str:
    return module.partition(".")[0]


def _judging_modules() -> list[str]:
    """All modules that run and judge what players wrote."""
    root = Path(envs.__file__).parent
    files = [path for part in ("grading", "sandbox") for path in (root / part).rglob("*.py")]
    return [".".join(("envs", *path.relative_to(root).with_suffix("").parts)) for path in files]


def _is_local(package: str) -> bool:
    """Whether a top-level package or module is neither of the standard library nor installed."""
    if not package or package in sys.stdlib_module_names:
        return False
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return False
    if spec is None:
        return False
    places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or ())
    return not any({"site-packages", "dist-packages"} & set(Path(place).parts) for place in places)


def _source_path(module: str) -> Path | None:
    """The file of a module, or None if there is no such module or it is not Python source."""
    try:
        spec = importlib.util.find_spec(module)
    except Exception:  # it imports the packages that the module is in, and those may raise anything
        return None
    path = Path(spec.origin) if spec is not None and spec.origin is not None else None
    return path if path is not None and path.suffix == ".py" else None


def _parse(module: str) -> ast.Module:
    path = _source_path(module)
    if path is None:
        raise ValueError(f"env.name: the source of {module} cannot be read; put the env in an importable .py file")
    return parse_python(path.read_bytes(), str(path))


def _imported(tree: ast.Module, importer: str) -> Iterator[str]:
    """Names of all modules that a module imports, wherever in its code it does; some may be no modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = _absolute(node, importer)
            yield source
            yield from (f"{source}.{alias.name}" for alias in node.names)  # it may be `from package import module`


def _absolute(node: ast.ImportFrom, importer: str) -> str:
    if not node.level:
        return node.module or ""
    path = _source_path(importer)
    up = node.level - (path is not None and path.name == "__init__.py")
    parts = importer.split(".")
    return ".".join([*parts[: len(parts) - up], *([node.module] if node.module else [])])
