"""Models are found, refused and fingerprinted by what their folders hold."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.engines.config import ModelConfig
from tasks.engines.model_files import ModelNotFoundError, model_fingerprint, resolve_model


def test_a_copy_elsewhere_has_the_same_fingerprint(tiny_model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    (copy / "README.md").write_text("not part of the model")
    (copy / "training_args.bin").write_bytes(b"nor is this")
    assert model_fingerprint(ModelConfig(path=str(copy))) == model_fingerprint(ModelConfig(path=str(tiny_model)))


@pytest.mark.parametrize("name", ["model.safetensors", "chat_template.jinja", "tokenizer.json", "config.json"])
def test_any_change_of_a_model_file_changes_the_fingerprint(tiny_model: Path, tmp_path: Path, name: str) -> None:
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    before = model_fingerprint(ModelConfig(path=str(copy)))
    (copy / name).write_bytes((copy / name).read_bytes()[:-1] + b" ")
    assert model_fingerprint(ModelConfig(path=str(copy))) != before


def test_a_folder_that_is_no_model_is_refused_in_one_line(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    shutil.copytree(tiny_model, tmp_path / "no_weights", ignore=shutil.ignore_patterns("*.safetensors"))
    shutil.copytree(tmp_path / "no_weights", tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"")
    (tmp_path / "file").write_text("")
    wanted = {
        "empty": "has no config.json",
        "no_weights": "has no weights",
        "adapter": "holds an adapter",
        "file": "is a file",
        "nowhere": "no folder",
    }
    for name, message in wanted.items():
        with pytest.raises(ModelNotFoundError, match=message) as caught:
            resolve_model(ModelConfig(path=str(tmp_path / name)))
        assert "\n" not in str(caught.value)


def test_a_hub_name_that_cannot_be_fetched_says_to_use_a_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelNotFoundError, match="give a folder"):
        resolve_model(ModelConfig(path="nobody/nothing-of-this-name"))
    with pytest.raises(ModelNotFoundError, match="nor a hub name"):
        resolve_model(ModelConfig(path="what is this?"))


def test_checking_a_model_does_not_import_torch(tiny_model: Path) -> None:
    code = (
        "import sys; from tasks.engines import open_engine; from tasks.engines.config import ModelConfig; "
        "from tasks.engines.model_files import model_fingerprint; "
        f"model_fingerprint(ModelConfig(path={str(tiny_model)!r})); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3]).returncode == 0
