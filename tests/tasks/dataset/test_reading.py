"""Data files that other programs wrote: their layouts, and files of columns."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tasks.dataset.reading import read_records
from tasks.dataset.rows import DataFileError

WANTED = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "What is 1 + 1?"},
    {"role": "assistant", "content": "2"},
]
SHAREGPT = [{"from": "human", "value": "What is 1 + 1?"}, {"from": "gpt", "value": "2"}]
LAYOUTS: dict[str, dict[str, Any]] = {
    "messages": {"messages": WANTED},
    "messages beside a prompt": {"messages": WANTED, "prompt": "What is 1 + 1?"},
    "conversations": {"conversations": [{"from": "system", "value": "Be short."}, *SHAREGPT]},
    "conversations beside a system": {"conversations": SHAREGPT, "system": "Be short."},
    "conversations of roles": {"conversations": WANTED},
    "prompt and completion": {"prompt": WANTED[:2], "completion": WANTED[2:]},
    "prompt, and a text": {"prompt": WANTED[:2], "completion": "2"},
    "prompt beside a system": {"prompt": "What is 1 + 1?", "completion": "2", "system": "Be short."},
    "messages beside a system": {"messages": WANTED[1:], "system": "Be short."},
    "messages that begin with the system beside them": {"messages": WANTED, "system": "Be short."},
    "messages without tools": {"messages": WANTED, "tools": []},
}


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_is_read_as_the_same_messages(tmp_path: Path, layout: str) -> None:
    (row,) = read_records([write(tmp_path / "own.jsonl", LAYOUTS[layout])])
    assert row.record.messages == WANTED


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_parquet_file_holds_the_same_whatever_it_is_called(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "rows.bin"
    pd.DataFrame([LAYOUTS[layout]] * 3).to_parquet(path)
    rows = list(read_records([path]))
    assert [(row.record.messages, row.number) for row in rows] == [(WANTED, n) for n in (1, 2, 3)]


def test_a_text_as_prompt_is_a_users_message(tmp_path: Path) -> None:
    (row,) = read_records([write(tmp_path / "own.jsonl", {"prompt": "What is 1 + 1?", "completion": "2"})])
    assert row.record.messages == WANTED[1:]


def test_layouts_may_be_mixed_in_a_file_and_rows_know_where_they_stand(tmp_path: Path) -> None:
    one = write(tmp_path / "1.jsonl", LAYOUTS["messages"], LAYOUTS["conversations"])
    pd.DataFrame([{"prompt": "q", "completion": "a"}]).to_parquet(two := tmp_path / "2.parquet")
    assert [(row.file, row.number) for row in read_records([one, two])] == [(0, 1), (0, 2), (1, 1)]


def test_what_is_null_in_a_column_is_not_there(tmp_path: Path) -> None:
    rows = [
        {"messages": None, "prompt": "q", "completion": "a", "metadata": {"agent_name": "me", "source": None}},
        {"messages": WANTED, "prompt": None, "completion": None, "metadata": {"agent_name": None, "source": "x"}},
    ]
    pd.DataFrame(rows).to_parquet(path := tmp_path / "rows.parquet")
    first, second = (row.record for row in read_records([path]))
    assert (first.messages[0]["content"], first.metadata.agent_name) == ("q", "me")
    assert (second.messages, second.metadata.agent_name) == (WANTED, "unknown")
    assert second.metadata.model_extra == {"source": "x"} and first.metadata.model_extra == {}


BROKEN: dict[str, dict[str, Any]] = {
    "message 0 has role 'narrator'; wanted one of": {"conversations": [{"from": "narrator", "value": "x"}, *SHAREGPT]},
    "the last message has role 'user'": {"conversations": [*SHAREGPT, SHAREGPT[0]]},
    'a "prompt" with a "completion"': {"prompt": "q", "response": "a"},
    "message 1 has role 'system'; wanted it first": {"messages": WANTED, "system": "Be long."},
    "message 0 has an object as content": {"messages": WANTED[1:], "system": {"text": "Be short."}},
    "the row also has 'tools', which would be lost": {"messages": WANTED, "tools": [{"name": "search"}]},
    "the row also has 'functions', which would be lost": {"prompt": "q", "completion": "a", "functions": "[{}]"},
    "the assistant's reply is empty": {"prompt": "q", "completion": " "},
    "message 1 also has 'tool_calls', which would be lost": {
        "prompt": "q",
        "completion": [{"role": "assistant", "content": "a", "tool_calls": [{"name": "x"}]}],
    },
}


@pytest.mark.parametrize("message", BROKEN)
def test_a_row_of_columns_that_cannot_be_trained_on_is_named_by_its_number(tmp_path: Path, message: str) -> None:
    pd.DataFrame([{"prompt": "q", "completion": "a"}]).to_parquet(good := tmp_path / "good.parquet")
    pd.DataFrame([BROKEN[message]]).to_parquet(bad := tmp_path / "bad.parquet")
    with pytest.raises(DataFileError) as caught:
        list(read_records([good, bad]))
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{bad}")


def test_a_parquet_file_that_is_torn_or_holds_something_else_is_said_in_one_line(tmp_path: Path) -> None:
    pd.DataFrame([{"text": "hello"}]).to_parquet(other := tmp_path / "other.parquet")
    (torn := tmp_path / "torn.parquet").write_bytes(other.read_bytes()[:-20])
    for path, message in ((other, "found the columns text; wanted a list"), (torn, "broken parquet after row 0")):
        with pytest.raises(DataFileError, match=message) as caught:
            list(read_records([path]))
        assert "\n" not in str(caught.value)


def test_half_a_character_is_refused(tmp_path: Path) -> None:
    (path := tmp_path / "own.jsonl").write_text('{"prompt": "q\\ud800", "completion": "a"}\n')
    with pytest.raises(DataFileError, match=r"own\.jsonl:1: message 0 holds half a character"):
        list(read_records([path]))


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_long_file_is_read_without_being_held(tmp_path: Path, ending: str) -> None:
    rows = [{"prompt": f"{i} " + "word " * 200, "completion": "a"} for i in range(8_000)]
    path = tmp_path / f"long.{ending}"
    if ending == "parquet":
        pd.DataFrame(rows).to_parquet(path, row_group_size=500, compression=None)
    else:
        write(path, *rows)
    del rows
    assert path.stat().st_size > (100_000 if ending == "parquet" else 8_000_000)
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_records([path])) == 8_000
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()
