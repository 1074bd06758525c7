"""Which GPUs hold a copy of the model together."""

from __future__ import annotations

import pytest

from tasks.engines.vllm.engine import _groups


def test_gpus_are_dealt_to_copies_of_the_model() -> None:
    assert _groups(["0", "1", "2", "3"], 2, None) == [["0", "1"], ["2", "3"]]
    assert _groups([], 1, 0) == [()]
    with pytest.raises(ValueError, match=r"tensor_parallel: found 4, and there are 3 GPUs"):
        _groups(["0", "1", "2"], 4, None)


@pytest.mark.parametrize(
    ("gpus", "size", "wanted", "used", "said"),
    [
        (["0", "1", "2"], 2, None, 2, "engine.num_gpus is not given, 3 of them are visible"),
        (["0", "1"], 1, 4, 2, "engine.num_gpus is 4, 2 of them are visible"),
        ([], 1, 1, 0, "engine.num_gpus is 1, 0 of them are visible"),
    ],
)
def test_gpus_that_are_not_used_though_they_were_asked_for_are_told(
    gpus: list[str], size: int, wanted: int | None, used: int, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert sum(map(len, _groups(gpus, size, wanted))) == used
    assert f"{used} GPUs are used: {said}" in caplog.text
