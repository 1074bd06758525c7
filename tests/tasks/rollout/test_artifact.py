"""Published files and folders are whole or not there, whatever interrupts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.rollout.artifact import publish_folder


def publish(folder: Path, text: str) -> None:
    with publish_folder(folder) as tmp:
        (tmp / "file").write_text(text)


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    publish(tmp_path / "model", "old")
    publish(tmp_path / "model", "new")
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "file").read_text() == "new"


@pytest.mark.parametrize("is_there", [True, False])
def test_a_folder_is_replaced_where_a_link_leads(tmp_path: Path, is_there: bool) -> None:
    disk = tmp_path / "disk"
    (disk / "big" if is_there else disk).mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(disk / "big")
    for content in ("one", "two"):
        with publish_folder(link) as folder:
            (folder / "file").write_text(content)
        assert link.is_symlink() and (disk / "big" / "file").read_text() == content
    assert [path.name for path in disk.iterdir()] == ["big"] and len(list(tmp_path.iterdir())) == 2


def test_a_failure_between_the_renames_keeps_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path / "model", "old")
    rename = Path.rename

    def fail_for_new(self: Path, target: Path) -> Path:
        if self.suffix == ".tmp":
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_new)
    with pytest.raises(OSError, match="no"):
        publish(tmp_path / "model", "new")
    assert (tmp_path / "model" / "file").read_text() == "old"


def test_a_folder_that_a_kill_left_aside_is_put_back(tmp_path: Path) -> None:
    publish(tmp_path / "model", "old")
    (tmp_path / "model").rename(tmp_path / ".model.old")
    with pytest.raises(RuntimeError), publish_folder(tmp_path / "model"):
        raise RuntimeError
    assert (tmp_path / "model" / "file").read_text() == "old"
