from __future__ import annotations

import ast
import gc
import inspect
from collections.abc import Iterator

import pytest

from envs.python_source import is_python, parse_python


class ParsesWhenCollected:
    """Garbage in a circle whose finalizer parses, as asyncio's do that print the traceback of a lost task."""

    num_collected = 0

    def __init__(self) -> None:
        self.circle = self

    def __del__(self) -> None:
        type(self).num_collected += 1
        ast.parse("a = b + c * (d + e)")


@pytest.fixture
def eager_collector() -> Iterator[None]:
    usual = gc.get_threshold()
    gc.collect()
    gc.set_threshold(500)
    yield
    gc.set_threshold(*usual)


@pytest.mark.usefixtures("eager_collector")
def test_a_finalizer_that_parses_in_the_middle_spoils_no_tree() -> None:
    source = inspect.getsource(ast)
    wanted = ast.dump(parse_python(source))
    for _ in range(20):
        before = ParsesWhenCollected.num_collected
        ParsesWhenCollected()
        assert ast.dump(parse_python(source)) == wanted
        assert ParsesWhenCollected.num_collected == before + 1


@pytest.mark.filterwarnings("error")
def test_python_2_is_told_apart_and_style_is_not_remarked_upon() -> None:
    assert is_python('pattern = "\\d"')
    assert not is_python("print 1")
    assert not is_python("a = 1\x00")
