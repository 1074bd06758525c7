"""A merged model says what base and adapter say together."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from tasks.engines.adapter_probe import make_probe
from tasks.engines.config import ModelConfig
from tasks.training.model_folder.merge import write_merged
from tasks.training.model_folder.proof import UnusableWeightsError
from tests.tasks.training.jobs import job_of, write_adapter


@pytest.mark.parametrize("use_dora", [False, True])
def test_a_merged_model_says_what_base_and_adapter_say(tiny_model: Path, tmp_path: Path, use_dora: bool) -> None:
    job = job_of(tiny_model, tmp_path, use_dora=use_dora)
    adapter = write_adapter(job, tmp_path / "a")
    write_merged(adapter, job, AutoTokenizer.from_pretrained(tiny_model), tmp_path / "merged")
    probe = make_probe(ModelConfig(path=str(tiny_model)), {"adapter": adapter, "merged": tmp_path / "merged"})
    assert probe.adapters["merged"] == pytest.approx(probe.adapters["adapter"], abs=1e-3)
    assert probe.adapters["merged"] != pytest.approx(probe.base, abs=1e-2)
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").chat_template


def test_a_merged_model_ends_its_replies_as_the_base_does(tiny_model: Path, tmp_path: Path) -> None:
    own = shutil.copytree(tiny_model, tmp_path / "own")
    said = {"eos_token_id": [2, 0], "temperature": 0.6, "do_sample": False}  # transformers would not write this
    (own / "generation_config.json").write_text(json.dumps(said))
    job = job_of(own, tmp_path)
    adapter = write_adapter(job, tmp_path / "a")
    write_merged(adapter, job, AutoTokenizer.from_pretrained(own), tmp_path / "merged")
    assert json.loads((tmp_path / "merged/generation_config.json").read_text()) == said
    (own / "generation_config.json").unlink()
    write_merged(adapter, job, AutoTokenizer.from_pretrained(own), tmp_path / "again")
    assert not (tmp_path / "again/generation_config.json").exists()


def test_a_sum_that_is_not_finite_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    job = job_of(tiny_model, tmp_path)
    adapter = write_adapter(job, tmp_path / "a", float("nan"))
    with pytest.raises(UnusableWeightsError, match="cannot be merged"):
        write_merged(adapter, job, AutoTokenizer.from_pretrained(tiny_model), tmp_path / "merged")
