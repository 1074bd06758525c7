"""Python source as a syntax tree: no word about its style, and none about what else the process does meanwhile."""

from __future__ import annotations

import ast
import warnings

MAX_ATTEMPTS = 10
"""How often a text is read before a SystemError is believed."""


def parse_python(source: str | bytes, filename: str = "<unknown>") -> ast.Module:
    r"""The syntax tree, without Python's warnings about things like an invalid escape `"\d"`.

    CPython before 3.13 counts its recursion for the whole process. If the garbage collector runs a finalizer in the
    middle that parses, too, as printing a traceback does, the count is wrong and a SystemError blames the source.

    Raises:
        SyntaxError, ValueError: it is no Python 3.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(MAX_ATTEMPTS - 1):
            try:
                return ast.parse(source, filename)
            except SystemError:
                continue
        return ast.parse(source, filename)


def is_python(source: str) -> bool:
    """Whether it is Python 3 at all; old solutions may be Python 2."""
    try:
        parse_python(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
