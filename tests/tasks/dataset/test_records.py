from __future__ import annotations

import json

import pytest

from tasks.dataset.reading import read_records
from tasks.dataset.records import DatasetRef, Funnel, Record, RecordMetadata, beside, write_records
from tasks.dataset.rows import DataFileError
from tasks.dataset.select import select_turns
from tasks.rollout.artifact import content_hash
from tasks.rollout.config import CollectConfig

GOOD = '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}'


def records_in(path):
    return [row.record for row in read_records([path])]


def test_a_row_on_disk_has_the_documented_fields_first(build, tmp_path):
    path = tmp_path / "sft_data.jsonl"
    write_records(path, select_turns([build.episode()], CollectConfig(), frozenset()).kept)
    row = json.loads(path.read_text())
    assert list(row) == ["messages", "metadata"]
    assert list(row["metadata"])[:8] == [
        *("agent_name", "policy_name", "reward", "env_success"),
        *("env_name", "env_idx", "rollout_idx", "turn_idx"),
    ]


def test_what_is_written_is_read_back(build, tmp_path):
    texts = ["ünï\u2028code", "line\nbreak", '"quoted"', "😀"]
    episodes = [build.episode(i, turns=[build.turn(reply=text)]) for i, text in enumerate(texts)]
    kept = select_turns(episodes, CollectConfig(), frozenset()).kept
    write_records(tmp_path / "x.jsonl", kept)
    assert records_in(tmp_path / "x.jsonl") == kept


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text(GOOD)

    def failing():
        yield Record.model_validate_json(GOOD)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_records(path, failing())
    assert path.read_text() == GOOD
    assert list(tmp_path.iterdir()) == [path]


def test_a_row_of_the_users_own_needs_no_metadata_and_gets_none_invented(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text(GOOD + "\n\n" + GOOD[:-1] + ', "metadata": {"source": "me"}, "id": 7}\n')
    first, second = records_in(path)
    assert first.metadata == RecordMetadata()
    assert second.metadata.model_extra == {"source": "me"}
    write_records(path, [first])
    assert json.loads(path.read_text()) == json.loads(GOOD) | {"metadata": {}}


def row(*roles_and_contents, **more):
    return json.dumps({"messages": [{"role": r, "content": c} for r, c in roles_and_contents], **more})


USER, REPLY = ("user", "q"), ("assistant", "a")
BROKEN = {
    '{"messages": [': r"broken JSON \(Expecting value at column \d+\); wanted one JSON object a line; mend or delete",
    "[1]": 'found a list; wanted an object with a list "messages", a list',
    '{"text": "hello"}': "found an object with 'text'; wanted an object with a list \"messages\", a",
    row(): "messages is empty; wanted a prompt and an assistant's reply; delete the line",
    row(USER): r"no assistant message \(roles: user\); wanted the reply to train on as the last one; add it",
    row(USER, REPLY, USER): "the last message has role 'user'; wanted 'assistant', whose reply is trained on; cut",
    row(USER, ("bot", "a")): "message 1 has role 'bot'; wanted one of system, user, assistant, tool; mend the line",
    row(USER, ("system", "s"), REPLY): "message 1 has role 'system'; wanted it first or nowhere",
    row(REPLY): r"no user's message before the reply \(roles: assistant\); wanted a prompt",
    row(("user", None), REPLY): "message 0 has null as content; wanted text",
    row(("user", [{"type": "text"}]), REPLY): "message 0 has a list as content; wanted text",
    row(USER, ("assistant", " \n")): "the assistant's reply is empty; wanted text to train on; delete the line",
    '{"messages": ["hi"]}': "message 0 is text; wanted an object with role and content",
    GOOD.replace('"a"}', '"a", "tool_calls": [1]}'): "message 1 also has 'tool_calls', which would be lost",
    row(USER, REPLY, metadata={"reward": "high"}): "metadata.reward is 'high'; Input should be a valid number",
    row(USER, REPLY, metadata=[1]): r"metadata is \[1\]; Input should be a valid dict",
}


@pytest.mark.parametrize("line", BROKEN)
def test_a_row_that_cannot_be_trained_on_is_named_by_file_and_line(tmp_path, line):
    path = tmp_path / "mine.jsonl"
    path.write_text(f"{GOOD}\n\n{line}\n{GOOD}\n")
    with pytest.raises(DataFileError, match=BROKEN[line]) as caught:
        records_in(path)
    assert str(caught.value).startswith(f"{path}:3: ")
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_named_by_file_and_line(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_bytes(GOOD.encode() + b"\n{\xff}\n")
    with pytest.raises(DataFileError, match=r":2: broken JSON \(a byte that is not UTF-8 at column 2\)"):
        records_in(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(DataFileError, match="cannot be read: Is a directory; wanted a JSONL or parquet file"):
        records_in(tmp_path)


FUNNEL = Funnel(finished=1, succeeded=1, errored=0, turns=1, kept=1, kept_by_agent={"a": 1}, rejected={})


def test_a_funnel_that_does_not_add_up_is_refused():
    with pytest.raises(ValueError, match="does not add up: 2 turns, 1 kept"):
        Funnel.model_validate(FUNNEL.model_dump() | {"turns": 2})


def test_a_dataset_ref_whose_file_is_gone_or_changed_is_an_error(tmp_path):
    path = tmp_path / "sft_data_20260101_000000.jsonl"
    path.write_text(GOOD)
    for ending in ("_rejected.jsonl", "_config.yaml"):
        beside(path, ending).write_text("")
    saved = DatasetRef(path=path, sha256=content_hash(path), funnel=FUNNEL).model_dump_json()
    assert DatasetRef.model_validate_json(saved).stats_path.name == "sft_data_20260101_000000_stats.json"
    path.write_text(GOOD + "\n" + GOOD)
    with pytest.raises(ValueError, match="has changed"):
        DatasetRef.model_validate_json(saved)
    path.unlink()
    with pytest.raises(ValueError, match="is gone"):
        DatasetRef.model_validate_json(saved)
