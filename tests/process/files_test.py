"""Atomic writes: a file is complete or unchanged."""

from __future__ import annotations

import pytest

from uno_jax.process.files import atomic_file


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
