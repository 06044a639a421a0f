"""Flags of commands: valid command lines, and messages for invalid ones."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from absl import flags

from tests.helpers.paths import ROOT
from uno_jax.process.flags import (
    ValueParser,
    choose_command,
    define_config,
    define_fields,
    define_path,
    define_paths,
    field_values,
    parse_flags,
    section_of,
)


@dataclass(frozen=True)
class Settings:
    size: int = 3
    scale: float | None = None
    kind: Literal["red", "blue"] = "red"
    fast: bool = False
    range: tuple[float, float] = (0.0, 1.0)


NOTES = {"size": "in pixels", "scale": "of it", "kind": "colour", "fast": "at once", "range": "LOW,HIGH"}


def parsed(*arguments: str, required: tuple[str, ...] = (), positional: tuple[str, ...] = ()):
    """Parses the flags of `Settings`, `--name` and `--title`, and the positional arguments."""
    flag_values = flags.FlagValues()
    define_fields(flag_values, Settings(), NOTES, "settings", "set.")
    flags.DEFINE_multi_string("name", [], "who", **section_of(flag_values, "names"))
    flags.DEFINE(ValueParser(str.upper), "title", None, "of all", **section_of(flag_values, "names"))
    given = parse_flags(
        flag_values, arguments, command="paint", about="Paints.", required=required, positional=positional
    )
    return flag_values, given


def failure(capsys, *arguments: str, **expected) -> str:
    with pytest.raises(SystemExit) as exit:
        parsed(*arguments, **expected)
    assert exit.value.code == 2
    usage, message = capsys.readouterr().err.splitlines()
    assert usage.startswith("usage: python -m uno_jax.paint")
    return message


def test_fields_of_a_dataclass_are_flags_of_their_types_with_their_defaults():
    assert Settings(**field_values(parsed()[0], NOTES, "set.")) == Settings()
    line = ["--set.size=5", "--set.scale", "0.5", "--set.kind=blue", "--set.fast", "--set.range=0.2,1"]
    assert Settings(**field_values(parsed(*line)[0], NOTES, "set.")) == Settings(5, 0.5, "blue", True, (0.2, 1.0))


def test_flags_stand_before_and_after_positional_arguments():
    flag_values, given = parsed("a", "--set.size=5", "b", "--noset.fast", positional=("SRC", "DST"))
    assert given == ["a", "b"]
    assert flag_values["set.size"].value == 5


def test_arguments_after_two_dashes_are_positional():
    assert parsed("--", "--set.size=5", positional=("SRC",))[1] == ["--set.size=5"]


def test_a_flag_can_be_given_several_times():
    assert parsed("--name=a", "--name", "b")[0].name == ["a", "b"]


def test_a_function_parses_a_value():
    assert parsed("--title=x")[0].title == "X"
    assert parsed()[0].title is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set.sise=5"], "Unknown command line flag 'set.sise'. Did you mean: set.size ?"),
        (["--set.size=many"], "flag --set.size=many: expected a whole number"),
        (["--set.kind=green"], "flag --set.kind=green: value should be one of <red|blue>"),
        (["--set.range=1"], "flag --set.range=1: '1': expected two numbers such as 0.4,1"),
        (["--set.size"], "Missing value for flag --set.size"),
        (["a"], "unexpected argument: a"),
    ],
)
def test_an_invalid_command_line_exits_with_one_sentence(capsys, arguments, message):
    assert failure(capsys, *arguments) == message


def test_missing_flags_and_arguments_are_named(capsys):
    assert failure(capsys, required=("title", "set.scale")) == "missing --title and --set.scale"
    assert failure(capsys, "a", positional=("SRC", "DST")) == "expected SRC DST, got a"
    assert failure(capsys, positional=("SRC", "DST")) == "expected SRC DST, got no argument"


def test_help_describes_the_flags_by_section(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as exit:
        parsed("--help", required=("title",), positional=("SRC",))
    assert exit.value.code == 0
    assert capsys.readouterr().out.splitlines() == [
        "usage: python -m uno_jax.paint SRC --title=.. [--flag=value ..]",
        "",
        "Paints.",
        "",
        "settings:",
        "  --set.size=INT            in pixels (default: 3)",
        "  --set.scale=FLOAT         of it",
        "  --set.kind=ENUM           <red|blue>: colour (default: red)",
        "  --[no]set.fast            at once",
        "  --set.range=VALUE         LOW,HIGH (default: 0.0,1.0)",
        "",
        "names:",
        "  --name=STRING             who; repeat this option to specify a list of values",
        "  --title=VALUE             of all",
    ]


def test_help_is_readable_in_a_terminal_of_one_column(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1")
    with pytest.raises(SystemExit):
        parsed("--help")
    assert "  --set.size=INT            in pixels (default: 3)" in capsys.readouterr().out.splitlines()


def config_of(*arguments: str):
    flag_values = flags.FlagValues()
    define_config(flag_values, arguments, {"data.weights": float})
    parse_flags(flag_values, arguments, command="paint", about="Paints.", required=("config",))
    return flag_values.config


@pytest.fixture
def config_file(tmp_path) -> Path:
    file = tmp_path / "config.py"
    file.write_text(
        "import ml_collections\n"
        "def get_config():\n"
        "    return ml_collections.ConfigDict({'steps': 10, 'data': {'rows': 2, 'on': True, 'weights': {}}})\n"
    )
    return file


def test_overrides_apply_each_time_a_config_is_read(config_file):
    first = config_of(f"--config={config_file}", "--config.data.rows=4", "--noconfig.data.on")
    assert first.to_dict() == {"steps": 10, "data": {"rows": 4, "on": False, "weights": {}}}
    assert config_of(f"--config={config_file}", "--config.steps", "5").data.rows == 2


def test_overrides_add_entries_to_fields_that_are_dictionaries(config_file):
    config = config_of(f"--config={config_file}", "--config.data.weights.a=3", "--config.data.weights.b", "0.5")
    assert config.data.weights.to_dict() == {"a": 3.0, "b": 0.5}
    assert config_of(f"--config={config_file}").data.weights.to_dict() == {}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--config.data.rosw=3", 'Did you mean "rows" instead of "rosw"?'),
        ("--config.steps.x=3", "steps.x (given: --config.steps.x=3)"),
        ("--config.steps=many", "flag --config.steps=many: expected a whole number"),
        ("--config.data.on=maybe", "flag --config.data.on=maybe: expected true or false"),
        ("--config.data.weights.a=many", "flag --config.data.weights.a=many: expected a number"),
    ],
)
def test_an_invalid_override_exits_with_one_sentence(config_file, capsys, override, message):
    with pytest.raises(SystemExit) as exit:
        config_of(f"--config={config_file}", override)
    assert exit.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("overrides", [[], ["--config.steps=3"]])
def test_a_missing_config_file_is_named(tmp_path, capsys, overrides):
    with pytest.raises(SystemExit) as exit:
        config_of(f"--config={tmp_path / 'nothing.py'}", *overrides)
    assert exit.value.code == 2
    error = f"--config: {tmp_path / 'nothing.py'} cannot be read (No such file or directory)"
    assert capsys.readouterr().err.splitlines()[-1] == error


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("confg.py", "", "cannot be read (No such file or directory); did you mean"),
        ("", "", "expected a path"),
        ("~/config.py", "", "cannot be read"),
        ("config.py", "A config.", "config.py:1 is not Python (invalid syntax)"),
        ("config.py", "\0", "is not Python (source code string cannot contain null bytes)"),
        ("config.py", "\udcff", "is not a Python file"),
        ("config.py", "def get_confg():\n    pass\n", "has no get_config(); expected a file such as"),
        ("config.py", "# get_config\n", "has no get_config(); expected a file such as"),
        ("config.py", "def get_config():\n    return open('lost.json')\n", "No such file or directory: 'lost.json'"),
        ("config.py", "raise RuntimeError('no\\nGPU')\nget_config = 1", "config.py:1 raised RuntimeError: no GPU"),
        ("config.py", "import nothing\nget_config = 1", "config.py:1 raised ModuleNotFoundError: No module named"),
        ("config.py", "def get_config():\n    return {}['steps']\n", "config.py:2 raised KeyError: 'steps'"),
        ("config.py", "def get_config():\n    return int('many')\n", "config.py:2 raised ValueError: invalid literal"),
        ("config.py", "def get_config(size):\n    pass\n", "cannot be called: get_config() missing 1 required"),
        ("config.py", "get_config = 1\n", "cannot be called: 'int' object is not callable"),
    ],
)
@pytest.mark.parametrize("overrides", [[], ["--config.steps=3"]])
def test_what_is_no_config_file_is_refused_with_one_sentence(
    tmp_path, monkeypatch, capsys, name, source, message, overrides
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "config.py").write_bytes(source.encode(errors="surrogateescape"))
    with pytest.raises(SystemExit) as exit:
        config_of(f"--config={name}", *overrides)
    assert exit.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("--config: ")
    assert message in last


@pytest.mark.parametrize("value", ["None", "3"])
def test_a_config_file_must_return_a_config(tmp_path, capsys, value):
    (tmp_path / "config.py").write_text(f"def get_config():\n    return {value}\n")
    with pytest.raises(SystemExit):
        config_of(f"--config={tmp_path / 'config.py'}")
    assert f"--config: get_config() returned {value}; expected a ConfigDict" in capsys.readouterr().err.splitlines()[-1]


def test_paths_are_local_and_their_home_folder_is_expanded(monkeypatch, capsys):
    monkeypatch.setenv("HOME", "/home/me")

    def given(*arguments: str):
        flag_values = flags.FlagValues()
        define_path(flag_values, "out", "pictures", "folder", "output")
        define_paths(flag_values, "image", "picture", "output")
        parse_flags(flag_values, arguments, command="paint", about="Paints.")
        return flag_values

    assert given().out == "pictures"
    assert given("--out=~/mine", "--image=~/a.png", "--image=b.png").out == "/home/me/mine"
    assert given("--image=~/a.png", "--image=b.png").image == ["/home/me/a.png", "b.png"]
    for path, message in (("", "expected a path"), ("gs://bucket/run", "is a URL")):
        with pytest.raises(SystemExit):
            given(f"--out={path}")
        assert message in capsys.readouterr().err


def test_a_subcommand_is_chosen_by_name(capsys):
    class Command:
        about, positional = "Does it.", ("SRC",)

    commands = {"import": Command, "export": Command}
    assert choose_command("paint", commands, ["export", "a"], "Paints.") == ("export", Command)
    with pytest.raises(SystemExit) as exit:
        choose_command("paint", commands, ["exprot"], "Paints.")
    assert exit.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == "unknown command exprot: did you mean export?"
    with pytest.raises(SystemExit) as exit:
        choose_command("paint", commands, ["--help"], "Paints.")
    assert exit.value.code == 0
    assert "  import SRC                Does it." in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("file", (ROOT / "uno_jax").rglob("*.py"), ids=lambda file: file.name)
def test_modules_define_no_flags_on_import_and_do_not_use_argparse(file):
    """Flags that a module defines on import would clash with those of another command."""
    for node in ast.parse(file.read_text()).body:
        assert "import argparse" not in ast.unparse(node)
        assert "DEFINE_" not in ast.unparse(node) or isinstance(node, ast.FunctionDef), f"{file}:{node.lineno}"


def test_only_options_that_name_no_file_are_plain_texts():
    """Others must be paths, in which `~` is expanded (`define_path`)."""
    names = set()
    for file in (ROOT / "uno_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("DEFINE_string", "DEFINE_multi_string")):
                names.add(ast.literal_eval(node.args[0]))
    assert names == {
        "prompt",
        "split",
        "stop",
        "coordinator",
        "host",
        "topology",
        "only",
        "name",
        "preset",
        "judge",
        "judge_url",
        "judge_model",
        "mixture",
        "beam_flags",
    }


def test_a_terminal_that_does_not_know_a_character_gets_it_escaped():
    program = (
        "from absl import flags\nfrom uno_jax.process.flags import parse_flags\n"
        "parse_flags(flags.FlagValues(), [], command='paint', about=None)\nprint('caf\u00e9 \\udce9')"
    )
    settings = os.environ | {"PYTHONIOENCODING": "ascii"}
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=settings, capture_output=True, check=False)
    assert (ended.stdout, ended.stderr) == (b"caf\\xe9 \\udce9\n", b"")
