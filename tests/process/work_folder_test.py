"""Work on a folder that goes on after a kill."""

import contextlib

import pytest

from uno_jax.process.lock import LockError
from uno_jax.process.work_folder import WorkError, recover, work_on


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def interrupted(path, parameters=None, files=("half",)):
    """Begins work and leaves it."""
    with contextlib.suppress(KeyboardInterrupt), work_on(path, parameters or {}) as work:
        for name in files:
            (work.made / name).write_text(name)
        raise KeyboardInterrupt


def test_the_folder_appears_at_the_end_and_nothing_else_stays(tmp_path):
    with work_on(tmp_path / "out", {"side": 1}) as work:
        (work.made / "file").write_text("content")
        assert not (tmp_path / "out").exists()
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["file"]


def test_what_was_done_is_there_when_the_work_goes_on(tmp_path):
    interrupted(tmp_path / "out", {"side": 1})
    with work_on(tmp_path / "out", {"side": 1}) as work:
        assert names(work.made) == ["half"]
    assert names(tmp_path) == ["out"]


def test_nothing_stays_of_work_in_which_nothing_was_done(tmp_path):
    interrupted(tmp_path / "out", files=())
    assert names(tmp_path) == []


def test_work_with_other_parameters_is_refused_by_their_names(tmp_path):
    interrupted(tmp_path / "out", {"side": 1, "records": "ab", "same": [1]})
    with (
        pytest.raises(WorkError, match=r"another value of records \('ab', now 'cd'\), side \(1, now None\), which"),
        work_on(tmp_path / "out", {"records": "cd", "same": (1,)}),
    ):
        pass


def test_one_process_at_a_time_works_on_a_folder(tmp_path):
    with (
        work_on(tmp_path / "out", {}),
        pytest.raises(LockError, match="in use by process"),
        work_on(tmp_path / "out", {}),
    ):
        pass


def test_a_folder_is_replaced_only_at_the_end(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "before").touch()
    with work_on(tmp_path / "out", {}) as work:
        (work.made / "after").touch()
        assert names(tmp_path / "out") == ["before"]
    assert names(tmp_path / "out") == ["after"]


def test_a_replacement_that_was_killed_halfway_is_undone(tmp_path):
    (tmp_path / ".out.old-0").mkdir()
    (tmp_path / ".out.old-0" / "before").touch()
    recover(tmp_path / "out")
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["before"]


def test_an_empty_folder_stays_in_its_place(tmp_path):
    (tmp_path / "out").mkdir()
    place = (tmp_path / "out").stat().st_ino
    with work_on(tmp_path / "out", {}) as work:
        (work.made / "file").touch()
        (work.made / "folder").mkdir()
    assert names(tmp_path / "out") == ["file", "folder"]
    assert (tmp_path / "out").stat().st_ino == place


def test_entries_that_were_put_in_their_place_when_a_kill_came_stay_there(tmp_path):
    (tmp_path / "out").mkdir()
    interrupted(tmp_path / "out", files=("a", "b"))
    folder = tmp_path / "out" / ".partial-0"
    (folder / "names.json").write_text('["a", "b"]')
    (folder / "made" / "a").rename(tmp_path / "out" / "a")
    recover(tmp_path / "out")
    assert names(tmp_path / "out") == ["a", "b"]


def test_work_whose_parameters_are_damaged_is_refused_with_what_to_remove(tmp_path):
    interrupted(tmp_path / "out")
    (tmp_path / ".out.partial-0" / "begun.json").write_text("{")
    with (
        pytest.raises(WorkError, match=r"begun.json: not valid JSON .* Remove .*partial-0, and run the command again"),
        work_on(tmp_path / "out", {}),
    ):
        pass
