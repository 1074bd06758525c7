"""Which of a process's threads wait in a busy loop, as its environment says when torch is imported."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SHOWN = "print(os.environ.get('OMP_WAIT_POLICY'), as_given(os.environ).get('OMP_WAIT_POLICY'), end=' ')"


@pytest.mark.parametrize(
    ("given", "shown"),
    [({}, "PASSIVE None None None"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE ACTIVE ACTIVE ACTIVE")],
)
def test_playing_leaves_cores_to_others_and_training_keeps_them_unless_the_user_says_how(
    given: dict[str, str], shown: str
) -> None:
    script = f"import os; from tasks.engines.openmp import as_given, keep_cores; {SHOWN}; keep_cores(); {SHOWN}"
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment | given, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == shown


def test_torch_is_not_imported_before_a_training_has_said_how_its_threads_wait() -> None:
    script = "import sys, tasks.training.sft; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "False\n"
