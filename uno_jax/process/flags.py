"""Command-line flags. A command defines its own flags when it runs, so that importing its module defines none.

They are absl flags, like the config overrides `--config.any.field=value`. The syntax is `--name=value` or
`--name value`, and `--name` or `--noname` for booleans, before or after the positional arguments. The flags of a
command are in a `flags.FlagValues`, and are read as attributes or by `flag_values["with.dots"].value`.
"""

from __future__ import annotations

import ast
import difflib
import io
import math
import re
import shutil
import sys
import textwrap
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

from absl import flags
from ml_collections import config_flags

from uno_jax.process.errors import exit_with_message, raised_in
from uno_jax.process.output import open_missing_streams
from uno_jax.process.paths import local_path

T = TypeVar("T")

_HELP = {"--help", "-help", "-h", "--helpfull", "--helpshort"}
_COLUMN = 28  # where descriptions begin


class ValueParser(flags.ArgumentParser[T], Generic[T]):
    """Parses the text of a flag with a function that raises ValueError for invalid text."""

    def __init__(self, read: Callable[[str], T]):
        self._read = read

    def parse(self, argument: Any) -> T:
        return self._read(argument) if isinstance(argument, str) else argument  # defaults are already parsed

    def flag_type(self) -> str:
        return "value"


class PathParser(ValueParser[str]):
    """Parses a path of this machine, and expands `~`."""

    def __init__(self) -> None:
        super().__init__(local_path)

    def flag_type(self) -> str:
        return "path"


def define_path(flag_values: flags.FlagValues, name: str, default: str | None, note: str, section: str) -> None:
    """Defines a flag whose value is a path."""
    flags.DEFINE(PathParser(), name, default, note, **section_of(flag_values, section))


def define_paths(flag_values: flags.FlagValues, name: str, note: str, section: str) -> None:
    """Defines a flag whose values are paths, one for each time it is given."""
    place = section_of(flag_values, section)
    flags.DEFINE_multi(PathParser(), flags.ArgumentSerializer(), name, [], note, **place)


def section_of(flag_values: flags.FlagValues, title: str) -> dict[str, Any]:
    """Keyword arguments of `flags.DEFINE_*` that list a flag under `title` in `--help`."""
    return {"flag_values": flag_values, "module_name": title}  # absl groups flags by module


class _EntryParser(ValueParser[T]):
    """Parses the value of an entry of a config field that is a dictionary."""


def define_config(
    flag_values: flags.FlagValues, arguments: Sequence[str], dictionaries: Mapping[str, Callable[[str], Any]] = {}
) -> None:
    """Defines `--config`, and a flag for each of the `arguments` that overrides a config field.

    Args:
      flag_values: the flags to add to.
      arguments: the command line.
      dictionaries: dotted name of each config field that is a dictionary, and how to read the text of a value. Only
        overrides of these fields, such as `--config.data.task_weights.editing=1`, may name entries that the config
        lacks.
    """
    readers = {f"config.{field}.": read for field, read in dictionaries.items()}
    entries: dict[str, Callable[[str], Any]] = {}
    others = [""]
    for argument in arguments:
        name = argument.lstrip("-").partition("=")[0]
        found = [read for field, read in readers.items() if argument.startswith("-") and name.startswith(field)]
        entries.update((name, read) for read in found)
        others += [] if found else [argument]
    _check_flag_files("usage: python -m uno_jax COMMAND --config=..", others)
    note = "config file: a Python file with get_config(). --config.any.field=value overrides a field"
    config_flags.DEFINE_config_file("config", None, note, flag_values, sys_argv=others)
    flag_values.flags_by_module_dict()["config"] = flag_values.flags_by_module_dict().pop(__name__)
    for name, read in entries.items():
        flags.DEFINE(_EntryParser(read), name, None, "entry of a dictionary", **section_of(flag_values, "config"))


def define_fields(
    flag_values: flags.FlagValues, defaults: Any, notes: Mapping[str, str], section: str, prefix: str = ""
) -> None:
    """Defines a flag `--{prefix}{field}` for each field of a dataclass that `notes` describes.

    Args:
      flag_values: the flags to add to.
      defaults: an instance with the default values.
      notes: field -> description.
      section: title of the flags in `--help`.
      prefix: prefix of the flag names.
    """
    kinds = typing.get_type_hints(type(defaults))
    for name, note in notes.items():
        define_typed(flag_values, prefix + name, kinds[name], getattr(defaults, name), note, section)


def define_typed(
    flag_values: flags.FlagValues,
    name: str,
    kind: Any,
    default: Any,
    note: str,
    section: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
) -> None:
    """Defines a flag whose values have the type `kind`.

    Args:
      flag_values: the flags to add to.
      name: name of the flag.
      kind: bool, int, float, str, Path, a Literal, `float | None`, or a pair of floats.
      default: the default value.
      note: description.
      section: title of the flag in `--help`.
      minimum: the minimum of a number, or None.
      maximum: the maximum of a number, or None.
    """
    place = section_of(flag_values, section)
    bounds: dict[str, Any] = {"lower_bound": minimum, "upper_bound": maximum}
    if typing.get_origin(kind) is typing.Literal:
        flags.DEFINE_enum(name, default, typing.get_args(kind), note, **place)
    elif kind is bool:
        flags.DEFINE_boolean(name, default, note, **place)
    elif kind is int:
        flags.DEFINE_integer(name, default, note, **bounds, **place)
    elif kind in (float, float | None):
        flags.DEFINE_float(name, default, note, **bounds, **place)
    else:
        flags.DEFINE(_PARSERS[kind], name, default, note, **place)


def field_values(flag_values: flags.FlagValues, fields: Iterable[str], prefix: str = "") -> dict[str, Any]:
    """Values of the flags from `define_fields`, by field."""
    return {field: flag_values[prefix + field].value for field in fields}


def parse_flags(
    flag_values: flags.FlagValues,
    arguments: Sequence[str],
    *,
    command: str,
    about: str | None,
    required: Sequence[str] = (),
    positional: Sequence[str] = (),
) -> list[str]:
    """Parses a command line.

    Args:
      flag_values: the flags of the command, which receive the parsed values.
      arguments: the command line without the name of the program.
      command: name of the command: `train`, or `convert export` with a subcommand.
      about: description of the command, at the top of `--help`.
      required: names of flags without a default that must be given.
      positional: names of the positional arguments, all of which must be given.

    Returns:
      The positional arguments.

    Raises:
      SystemExit: with status 0 after `--help`, with status 2 for an invalid command line.
    """
    open_missing_streams()
    usage = " ".join([f"usage: python -m uno_jax.{command}", *positional, *(f"--{name}=.." for name in required)])
    if _HELP & set(arguments):
        _print_help(f"{usage} [--flag=value ..]\n\n{(about or '').strip()}\n{_described(flag_values)}")
    # grain and absl's logging read absl's global flags, which must be marked as parsed.
    flags.FLAGS.mark_as_parsed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names need not be text, nor terminals know a character
    _check_flag_files(usage, arguments)
    try:
        if "config" in flag_values:
            arguments = _with_config_file(arguments)
        _, *given = flag_values(["", *arguments])
        config = flag_values["config"].value if "config" in flag_values else None
        getattr(config, "keys", None)  # raises the error of a config file that could not be read
        _set_entries(flag_values)
        _reject_nan(flag_values)
    except Exception as error:
        message = _usage_error(error, arguments)
        if message is None:
            raise
        fail_usage(usage, message)
    if "config" in flag_values and flag_values["config"].present and not hasattr(config, "keys"):
        fail_usage(usage, f"--config: get_config() returned {config!r}; expected a ConfigDict, as in configs/base.py")
    missing = [f"--{name}" for name in required if flag_values[name].value in (None, [])]
    if missing:
        fail_usage(usage, f"missing {' and '.join(missing)}")
    if given and not positional:
        fail_usage(usage, f"unexpected argument: {' '.join(given)}")
    if len(given) != len(positional):
        fail_usage(usage, f"expected {' '.join(positional)}, got {' '.join(given) or 'no argument'}")
    return given


def _check_flag_files(usage: str, arguments: Sequence[str]) -> None:
    """Exits with status 2 if a file of arguments, `--flagfile`, cannot be read."""
    try:
        flags.FLAGS.read_flags_from_files(list(arguments), force_gnu=False)
    except (flags.Error, ValueError) as error:  # ValueError: not UTF-8
        fail_usage(usage, f"--flagfile: {str(error).removeprefix('ERROR:: ')}")


def _reject_nan(flag_values: flags.FlagValues) -> None:
    """Refuses flags that are not a number, which no bound of absl does. Fields of configs have their own checks."""
    for name in flag_values:
        value = flag_values[name].value
        if isinstance(value, float) and math.isnan(value) and not name.startswith("config."):
            raise flags.IllegalFlagValueError(f"flag --{name}={value}: expected a number")


def _usage_error(error: Exception, arguments: Sequence[str]) -> str | None:
    """Returns what is wrong with a command line or its config file; None for an error of the program."""
    if message := _raised_by_config(error, arguments):
        return message
    if isinstance(error, (flags.Error, _ConfigFileError)):
        return _plain(str(error))
    if isinstance(error, OSError):
        return f"--config: {str(error.__cause__ or error).splitlines()[-1].strip()}"
    overrides = [argument for argument in arguments if argument.startswith("--config.")]
    if overrides and str(error).startswith("Could not parse"):
        return f"an override names no config field; expected --config.any.field=value (given: {' '.join(overrides)})"
    if overrides and isinstance(error, (AttributeError, IndexError, KeyError, TypeError)):
        if isinstance(error, IndexError) or re.search(r"indices must be integers|issubclass\(\)", str(error)):
            return (
                "an override leads into a list, whose entries cannot be overridden: give the whole list, or change the "
                f"config file (given: {' '.join(overrides)})"
            )
        reason = str(error.args[0] if error.args else error)
        reason = " ".join(reason.replace("\\n", " ").replace("\\'", "'").split()).strip('" ')
        if reason.startswith("'") and reason.endswith("'"):  # a quoted text within the error
            reason = reason[1:-1]
        return f"an override names an unknown config field: {reason} (given: {' '.join(overrides)})"
    return None


# How Python and absl say that a value has the wrong type, and how a person does.
_TYPES = (
    (r"invalid literal for int\(\) with base \d+: .*", "expected a whole number"),
    (r"could not convert string to float: .*", "expected a number"),
    (
        r"flag (--config\.[^=]*)=(.*): Failed to parse .* as a ConfigDict.*",
        r"flag \1=\2: this is a section; override one of its fields, as \1.FIELD=VALUE",
    ),
    (r"\('Non-boolean argument to boolean flag', .*\)", "expected true or false"),
)


def _plain(message: str) -> str:
    for pattern, words in _TYPES:
        message = re.sub(pattern, words, message)
    return message


def _raised_by_config(error: BaseException, arguments: Sequence[str]) -> str | None:
    """Returns what the code of the config file raised, and in which line; None if the error is another one."""
    paths = [text for argument in arguments for text in argument.removeprefix("--config=").split(":", 1)[:1]]
    seen: BaseException | None = error
    while seen is not None:
        for path in paths:
            if path.endswith(".py") and (message := raised_in(seen, path)):
                return f"--config: {message}"
        if str(seen).startswith("Error whilst parsing config file") and seen.__context__ is not None:
            first = seen.__context__  # of the call of get_config itself
            if not any(raised_in(first, path) for path in paths):
                return f"--config: get_config cannot be called: {first}"
        seen = seen.__cause__ or seen.__context__
    return None


class _ConfigFileError(ValueError):
    """A config file that cannot be used."""


def _with_config_file(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments with `~` expanded in `--config`.

    Raises:
      _ConfigFileError: there is no such file, or it is not a config file.
    """
    changed = list(arguments)
    for number, argument in enumerate(arguments):
        if re.fullmatch("--?config", argument) and number + 1 < len(arguments):
            changed[number + 1] = _config_file(arguments[number + 1])
        elif match := re.match("--?config=", argument):
            changed[number] = match[0] + _config_file(argument[match.end() :])
    return changed


def _config_file(given: str) -> str:
    try:
        path = local_path(given)
        file = Path(path.partition(":")[0])  # the rest is an argument of get_config
        source = ast.parse(file.read_text(encoding="utf-8"))
    except OSError as error:
        others = [found.name for found in file.parent.glob("*.py") if found.name != file.name]
        near = difflib.get_close_matches(file.name, others, n=1)
        hint = f"; did you mean {file.parent / near[0]}?" if near else ""
        raise _ConfigFileError(f"--config: {file} cannot be read ({error.strerror or error}){hint}") from error
    except SyntaxError as error:
        raise _ConfigFileError(f"--config: {file}:{error.lineno or 1} is not Python ({error.msg})") from error
    except ValueError as error:
        raise _ConfigFileError(f"--config: {given!r} is not a Python file ({error})") from error
    if not any(_defines(node, "get_config") for node in ast.walk(source)):
        raise _ConfigFileError(f"--config: {file} has no get_config(); expected a file such as those in configs/")
    return path


def _defines(node: ast.AST, name: str) -> bool:
    """Whether a part of a file may give a value to a name."""
    if isinstance(node, ast.alias):
        return (node.asname or node.name) in (name, "*")
    return getattr(node, "name", getattr(node, "id", None)) == name


def _set_entries(flag_values: flags.FlagValues) -> None:
    """Writes the overrides of entries of dictionaries into the config."""
    for name in flag_values:
        flag = flag_values[name]
        if isinstance(flag.parser, _EntryParser) and flag.present:
            *fields, key = name.split(".")[1:]
            node: Any = flag_values["config"].value
            for field in fields:
                node = node[field]
            with node.unlocked():
                node[key] = flag.value


def choose_command(
    command: str, commands: Mapping[str, Any], arguments: Sequence[str], about: str | None
) -> tuple[str, Any]:
    """Returns the name of the subcommand in the first argument, and the subcommand.

    Raises:
      SystemExit: as in `parse_flags`.
    """
    usage = f"usage: python -m uno_jax.{command} {'|'.join(commands)}"
    name = arguments[0] if arguments else ""
    if name in _HELP:
        lines = [_listed(" ".join([name, *found.positional]), found.about) for name, found in commands.items()]
        _print_help("\n".join([f"{usage} ..", "", (about or "").strip(), "", *lines]))
    if name not in commands:
        near = difflib.get_close_matches(name, commands, n=1)
        known = f"did you mean {near[0]}?" if near else f"expected {', '.join(commands)}"
        fail_usage(usage, f"unknown command {name}: {known}" if name else f"missing command: {known}")
    return name, commands[name]


def _print_help(text: str) -> NoReturn:
    with exit_with_message():
        print(text)
    sys.exit(0)


def fail_usage(usage: str, message: str) -> NoReturn:
    """Prints the usage and an error message, and exits with status 2."""
    print(f"{usage} [--flag=value ..]; --help describes the flags\n{message}", file=sys.stderr)
    sys.exit(2)


def two_numbers(text: str) -> tuple[float, float]:
    """Parses two numbers such as `0.4,1`."""
    try:
        low, high = (float(number) for number in text.split(","))
    except ValueError:
        raise ValueError(f"{text!r}: expected two numbers such as 0.4,1") from None
    return low, high


_PARSERS: dict[Any, flags.ArgumentParser[Any]] = {
    str: flags.ArgumentParser(),
    Path: PathParser(),
    tuple[float, float]: ValueParser(two_numbers),
}


def _described(flag_values: flags.FlagValues) -> str:
    """Describes all flags, by section in the order of their definition."""
    lines = []
    for section, defined in flag_values.flags_by_module_dict().items():
        lines += ["", f"{section}:", *(_listed(*_head_and_note(flag)) for flag in defined)]
    return "\n".join(lines)


def _head_and_note(flag: flags.Flag[Any]) -> tuple[str, str]:
    note, default = str(flag.help), flag.default
    if isinstance(default, (tuple, list)):
        default = ",".join(map(str, default))
    if flag.boolean:
        return f"--[no]{flag.name}", note
    head = f"--{flag.name}={flag.parser.flag_type().split()[-1].upper()}"
    return head, note if default in (None, "") else f"{note} (default: {default})"


def _listed(head: str, note: str) -> str:
    """Formats `head` in a left column and `note` in a right one, wrapped to the width of the terminal."""
    width, indent = min(max(shutil.get_terminal_size().columns, 2 * _COLUMN), 110), " " * _COLUMN
    note = " ".join(note.split())
    lines = textwrap.wrap(note, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    if len(head) + 4 > _COLUMN:
        return "\n".join([f"  {head}", *lines])
    return "\n".join([f"  {head:{_COLUMN - 2}}{lines[0].strip()}", *lines[1:]])
