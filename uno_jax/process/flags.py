"""Command-line flags. A command defines its own flags when it runs, so that importing its module defines none.

They are absl flags, like the config overrides `--config.any.field=value`. The syntax is `--name=value` or
`--name value`, and `--name` or `--noname` for booleans, before or after the positional arguments. The flags of a
command are in a `flags.FlagValues`, and are read as attributes or by `flag_values["with.dots"].value`.
"""

from __future__ import annotations

import difflib
import shutil
import sys
import textwrap
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, NoReturn, TypeVar

from absl import flags
from ml_collections import config_flags

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


def section_of(flag_values: flags.FlagValues, title: str) -> dict[str, Any]:
    """Keyword arguments of `flags.DEFINE_*` that list a flag under `title` in `--help`."""
    return {"flag_values": flag_values, "module_name": title}  # absl groups flags by module


def define_config(flag_values: flags.FlagValues, arguments: Sequence[str]) -> None:
    """Defines `--config`, and a flag for each of the `arguments` that overrides a config field."""
    note = "config file: a Python file with get_config(). --config.any.field=value overrides a field"
    config_flags.DEFINE_config_file("config", None, note, flag_values, sys_argv=["", *arguments])
    flag_values.flags_by_module_dict()["config"] = flag_values.flags_by_module_dict().pop(__name__)


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
      kind: bool, int, float, str, a Literal, `float | None`, or a pair of floats.
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
    usage = " ".join([f"usage: python -m uno_jax.{command}", *positional, *(f"--{name}=.." for name in required)])
    if _HELP & set(arguments):
        print(f"{usage} [--flag=value ..]\n\n{(about or '').strip()}\n{_described(flag_values)}")
        sys.exit(0)
    # grain and absl's logging read absl's global flags, which must be marked as parsed.
    flags.FLAGS.mark_as_parsed()
    try:
        _, *given = flag_values(["", *arguments])
        config = flag_values["config"].value if "config" in flag_values else None
        getattr(config, "keys", None)  # raises the error of a config file that could not be read
    except flags.Error as error:
        fail_usage(usage, str(error))
    except OSError as error:
        fail_usage(usage, f"--config: {str(error.__cause__ or error).splitlines()[-1].strip()}")
    except (AttributeError, KeyError, TypeError) as error:
        overrides = [argument for argument in arguments if argument.startswith("--config.")]
        if not overrides:
            raise  # an error in the code of the config file
        reason = str(error.args[0] if error.args else error).replace("\n", " ").strip("'\" ")
        fail_usage(usage, f"an override names an unknown config field: {reason} (given: {' '.join(overrides)})")
    missing = [f"--{name}" for name in required if flag_values[name].value is None]
    if missing:
        fail_usage(usage, f"missing {' and '.join(missing)}")
    if given and not positional:
        fail_usage(usage, f"unexpected argument: {' '.join(given)}")
    if len(given) != len(positional):
        fail_usage(usage, f"expected {' '.join(positional)}, got {' '.join(given) or 'no argument'}")
    return given


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
        print("\n".join([f"{usage} ..", "", (about or "").strip(), "", *lines]))
        sys.exit(0)
    if name not in commands:
        near = difflib.get_close_matches(name, commands, n=1)
        known = f"did you mean {near[0]}?" if near else f"expected {', '.join(commands)}"
        fail_usage(usage, f"unknown command {name}: {known}" if name else f"missing command: {known}")
    return name, commands[name]


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
    width, indent = min(shutil.get_terminal_size().columns, 110), " " * _COLUMN
    note = " ".join(note.split())
    lines = textwrap.wrap(note, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    if len(head) + 4 > _COLUMN:
        return "\n".join([f"  {head}", *lines])
    return "\n".join([f"  {head:{_COLUMN - 2}}{lines[0].strip()}", *lines[1:]])
