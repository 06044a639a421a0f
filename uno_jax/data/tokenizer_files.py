"""Strict reader of a byte-level BPE in the Qwen2 format: a truncated or foreign file would give wrong ids."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from uno_jax.process.errors import UserError
from uno_jax.process.json_reader import LARGEST_FILE, read_json_object

TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer_config.json")

_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


class TokenizerContent(NamedTuple):
    """Contents of the files in a tokenizer directory."""

    vocabulary: dict[str, int]
    """Tokens of the BPE: token -> id, from 0 without gaps."""
    merges: list[tuple[str, str]]
    """Pairs of tokens, highest priority first."""
    added: list[tuple[int, dict[str, Any]]]
    """Id and entry of each added token, sorted by id."""


def read_tokenizer_files(directory: Path) -> TokenizerContent:
    """Reads `vocab.json`, `merges.txt` and `tokenizer_config.json` of one tokenizer.

    Raises:
      FileNotFoundError: one of the files is missing.
      UserError: a file is damaged, or the files belong to different tokenizers. The message names the file.
    """
    missing = [name for name in TOKENIZER_FILES if not (directory / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"tokenizer directory {directory} lacks {', '.join(missing)}. Give a directory with "
            f"{', '.join(TOKENIZER_FILES)} (prepare_data writes one to <dataset>/tokenizer)"
        )
    vocab_file, merges_file, config_file = (directory / name for name in TOKENIZER_FILES)
    vocabulary = _read_vocabulary(vocab_file)
    merges = _read_merges(merges_file, vocabulary)
    added = _read_added(config_file)
    # Every token that is not a single byte comes from a merge.
    made = {first + second for first, second in merges} | {entry["content"] for _, entry in added}
    strange = [token for token in vocabulary if len(token) > 1 and token not in made]
    if strange:
        raise UserError(
            f"{merges_file}: no merge makes {len(strange)} tokens of {vocab_file.name}, such as {strange[0]!r}. The "
            "file is truncated, or the two belong to different tokenizers"
        )
    return TokenizerContent(vocabulary, merges, added)


def _read_vocabulary(file: Path) -> dict[str, int]:
    vocabulary = read_json_object(file)
    if not all(type(id_) is int for id_ in vocabulary.values()):
        raise UserError(f"{file}: expected an integer id for every token")
    for expected, id_ in enumerate(sorted(vocabulary.values())):
        if id_ != expected:
            what = "no token has" if id_ > expected else "two tokens have"
            raise UserError(
                f"{file}: {what} id {min(id_, expected)}; expected every id from 0 to {len(vocabulary) - 1}"
            )
    return vocabulary


def _read_merges(file: Path, vocabulary: Mapping[str, int]) -> list[tuple[str, str]]:
    merges = []
    lines = _read_text(file).removesuffix("\n").split("\n")
    for number, line in enumerate(lines, 1):
        line = line.removesuffix("\r")
        if line.startswith("#version") or lines == [""]:
            continue
        pair = line.split(" ")
        if len(pair) != 2:
            raise UserError(f"{file}: line {number} is {line!r}; expected two tokens with a space between them")
        unknown = [token for token in (*pair, "".join(pair)) if token not in vocabulary]
        if unknown:
            raise UserError(
                f"{file}: line {number} is {line!r}, but vocab.json has no token {unknown[0]!r}. One of the files is "
                "truncated, or they belong to different tokenizers"
            )
        merges.append((pair[0], pair[1]))
    return merges


def _read_added(file: Path) -> list[tuple[int, dict[str, Any]]]:
    entries = read_json_object(file).get("added_tokens_decoder", {})
    if not isinstance(entries, dict):
        raise UserError(f"{file}: added_tokens_decoder is {entries!r}; expected an object that maps ids to tokens")
    for id_, entry in entries.items():
        if not id_.isdecimal() or not _is_token(entry):
            raise UserError(
                f"{file}: added_tokens_decoder holds {id_!r}: {entry!r}; expected an id and an object with a string "
                f"content and, optionally, true or false for {', '.join(_FLAGS)}"
            )
    return sorted(((int(id_), entry) for id_, entry in entries.items()), key=lambda item: item[0])


def _is_token(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("content"), str)
        and all(isinstance(entry.get(flag, False), bool) for flag in _FLAGS)
    )


def _read_text(file: Path) -> str:
    if file.stat().st_size > LARGEST_FILE:
        raise UserError(f"{file}: more than {LARGEST_FILE:,} bytes; expected the merges of a tokenizer")
    try:
        return file.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 text ({error}). Download or copy the file again") from error
