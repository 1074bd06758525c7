"""Which fenced block of a reply is meant."""

from __future__ import annotations

import pytest

from envs.replies import json_block, python_block


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("```python\na\n```\nIt prints\n```\nb\n```", "a\n"),
        ("```\nb\n```\n```py\na\n```", "a\n"),
        ("```python\na\n```\n```Python3\nb\n```", "b\n"),
        ("```\na\n```\n```\nb\n```", "b\n"),
        ("```json\n[]\n```\n```\nb\n```\n```c++\nc\n```", "b\n"),
        ("```json\n[]\n```", None),
        ("no block", None),
        ("```python\r\na\r\nb\r\n```\r\n", "a\r\nb\n"),
    ],
)
def test_the_last_marked_block_is_the_program_and_else_the_last_unmarked_one(reply: str, found: str | None) -> None:
    assert python_block(reply) == found


def test_a_marked_json_block_goes_before_a_later_unmarked_one() -> None:
    assert json_block("```json\n[1]\n```\n```\n[2]\n```") == "[1]\n"
    assert json_block("```python\n1\n```\n```\n[2]\n```") == "[2]\n"
