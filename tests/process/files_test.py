"""Atomic writes: a file is complete or unchanged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from uno_jax.process.errors import UserError
from uno_jax.process.files import atomic_file, check_folder, new_folder


def test_a_file_is_replaced_at_the_end(tmp_path):
    file = tmp_path / "file"
    file.write_text("old")
    with atomic_file(file) as temporary:
        temporary.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


def test_an_error_keeps_the_old_file_and_leaves_nothing_behind(tmp_path):
    file = tmp_path / "file"
    file.write_text("old")

    def fail() -> None:
        with atomic_file(file) as temporary:
            temporary.write_text("ne")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def fill(path: Path) -> None:
    with new_folder(path) as partial:
        (partial / "new").touch()


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_new_folder_appears_at_the_end_with_its_parents(tmp_path):
    with new_folder(tmp_path / "a" / "b") as partial:
        assert not (tmp_path / "a" / "b").exists()
        (partial / "new").touch()
    assert names(tmp_path) == ["a", "a/b", "a/b/new"]


def test_an_existing_empty_folder_is_filled_in_place(tmp_path, monkeypatch):
    """It may be a mount point, or the current folder of a shell."""
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    fill(Path("."))
    assert names(tmp_path) == ["out", "out/new"]
    assert os.listdir() == ["new"]


def test_the_target_of_a_link_is_replaced_and_the_link_stays(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "file").touch()
    (tmp_path / "link").symlink_to("old")
    (tmp_path / "dangling").symlink_to("nowhere")
    fill(tmp_path / "link")
    fill(tmp_path / "dangling")
    assert names(tmp_path) == ["dangling", "link", "nowhere", "nowhere/new", "old", "old/new"]


@pytest.mark.parametrize("existing", ["none", "empty", "full"])
def test_an_error_keeps_what_was_there(tmp_path, existing):
    if existing != "none":
        (tmp_path / "out").mkdir()
    if existing == "full":
        (tmp_path / "out" / "file").touch()
    before = names(tmp_path)

    def fail() -> None:
        with new_folder(tmp_path / "out") as partial:
            (partial / "new").touch()
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert names(tmp_path) == before


def test_a_folder_that_can_be_created_is_not_created_by_the_check(tmp_path):
    check_folder(tmp_path / "a" / "b")
    assert names(tmp_path) == []


@pytest.mark.parametrize("path", ["file", "file/a/b"])
def test_a_file_in_the_place_of_a_folder_is_named(tmp_path, path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"/file is a file, not a folder\. Give another path than .*"):
        check_folder(tmp_path / path)
