"""Winnow's training, called directly: WORK_DIR/job.json as a training has it."""

from __future__ import annotations

import sys
from pathlib import Path

from tasks.training.job import JOB_FILE, Job
from tasks.training.sft import run_job

if __name__ == "__main__":
    outcome = run_job(Job.model_validate_json((Path(sys.argv[1]) / JOB_FILE).read_text()))
    assert outcome.kind == "done", outcome.message
