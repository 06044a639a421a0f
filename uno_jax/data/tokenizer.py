"""Byte-level BPE in the Qwen2 format. The same code reads the public tokenizer's files and ours.

A tokenizer directory holds `vocab.json` and `merges.txt` (the byte-level BPE) and `tokenizer_config.json` (the added
tokens and their ids). Encoding applies Unicode NFC, the Qwen2 split pattern, and byte-level BPE. Texts come from
anywhere, so a text that spells an added token, such as `<|im_end|>`, is encoded like any other text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from uno_jax.data.tokenizer_files import read_tokenizer_files
from uno_jax.process.errors import UserError

# Delimiters of texts and images. If a public directory lacks one, it is added after all other tokens.
TEXT_START, TEXT_END = "<|im_start|>", "<|im_end|>"
IMAGE_START, IMAGE_END = "<|vision_start|>", "<|vision_end|>"
DELIMITERS = (TEXT_START, TEXT_END, IMAGE_START, IMAGE_END)
_PAD = "<|endoftext|>"

LARGEST_VOCABULARY = 2**20
"""Maximum number of ids of a trained tokenizer. Memory is allocated for all of them before training."""

# Qwen2: contractions, words with at most one leading non-letter, single digits, punctuation runs, newlines, blanks.
_SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class Tokenizer:
    """Converts text to token ids and back. Picklable."""

    def __init__(self, backend: tokenizers.Tokenizer, unlisted: tuple[str, ...] = ()):
        self._backend = backend
        self._backend.encode_special_tokens = True  # as text
        self.unlisted = unlisted
        """Delimiters missing from the files, added after all other tokens."""
        self.added = frozenset(backend.get_added_tokens_decoder())
        """Ids of the added tokens."""
        ids = backend.get_vocab(with_added_tokens=True)
        self.start, self.end, self.image_start, self.image_end = (ids[token] for token in DELIMITERS)

    @classmethod
    def from_directory(cls, directory: str | Path) -> Tokenizer:
        """Reads `vocab.json`, `merges.txt` and `tokenizer_config.json`, and adds missing delimiters.

        Raises:
          FileNotFoundError: one of the files is missing.
          UserError: a file is damaged, the files belong to different tokenizers, or the ids in `tokenizer_config.json`
            do not follow the vocabulary without gaps. The message names the file.
        """
        directory = Path(directory)
        vocabulary, merges, added = read_tokenizer_files(directory)
        backend = _byte_level_backend(models.BPE(vocabulary, merges))
        for id_, entry in added:
            backend.add_special_tokens([_added_token(entry["content"])])
            actual = backend.token_to_id(entry["content"])
            if actual != id_:
                raise UserError(
                    f"{directory / 'tokenizer_config.json'}: added token {entry['content']!r} is listed with id {id_} "
                    f"but its position after the vocabulary gives {actual}: ids are missing, or vocab.json and "
                    "tokenizer_config.json belong to different tokenizers"
                )
        unlisted = tuple(token for token in DELIMITERS if backend.token_to_id(token) is None)
        backend.add_special_tokens([_added_token(token) for token in unlisted])
        return cls(backend, unlisted)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._backend.encode_special_tokens = True  # not part of the backend's state

    def encode(self, text: str) -> list[int]:
        """Returns the ids of the text, without delimiters around it. None of them is the id of an added token.

        Raises:
          UserError: the text contains a surrogate. Python produces one for command-line bytes that are not UTF-8, and
            for half a pair of escapes in JSON.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"{text!r} is not valid Unicode (at character {error.start + 1}). Write or save it as UTF-8"
            ) from error
        return self._backend.encode(text, add_special_tokens=False).ids

    def one_id(self, text: str) -> int | None:
        """Returns the id of an added token, or of a text that is exactly one token; None if it is neither."""
        id_: int | None = self._backend.token_to_id(text)
        if id_ in self.added:
            return id_
        ids = self.encode(text)
        return ids[0] if len(ids) == 1 else None

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of the ids, delimiters included. Skips ids outside the vocabulary."""
        return self._backend.decode([int(id_) for id_ in ids], skip_special_tokens=False)

    @property
    def added_texts(self) -> list[str]:
        """Texts of the added tokens, by id."""
        return [token.content for _, token in sorted(self._backend.get_added_tokens_decoder().items())]

    @property
    def summary(self) -> str:
        """Number of ids, and the delimiters that got the next free ids because the files do not list them."""
        ids = ", ".join(f"{token} {self._backend.token_to_id(token)}" for token in self.unlisted)
        return f"{len(self):,} ids" + (f" (not listed in its files, and added after all others: {ids})" if ids else "")

    def __len__(self) -> int:
        """Number of ids, added tokens included: the minimum vocabulary size of the model."""
        return self._backend.get_vocab_size(with_added_tokens=True)


def train_tokenizer(texts: Iterable[str], vocab_size: int, directory: str | Path) -> Tokenizer:
    """Trains a byte-level BPE with at most `vocab_size` ids (delimiters included) and writes it in the Qwen2 format.

    The same texts in the same order give the same files. Texts with few distinct pairs give fewer ids.

    Raises:
      UserError: `vocab_size` is too small for the 256 bytes and the added tokens.
    """
    check_vocab_size(vocab_size)
    added = (_PAD, *DELIMITERS)
    backend = _byte_level_backend(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(added),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer=trainer)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    backend.model.save(str(directory))
    first = backend.get_vocab_size()
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {str(first + i): {"content": token, **flags} for i, token in enumerate(added)},
        "additional_special_tokens": list(DELIMITERS),
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": TEXT_END,
        "errors": "replace",
        "pad_token": _PAD,
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    return Tokenizer.from_directory(directory)


def check_vocab_size(vocab_size: int) -> None:
    """Raises UserError if a trained tokenizer cannot have so few or so many ids."""
    minimum = 256 + 1 + len(DELIMITERS)
    if vocab_size < minimum:
        raise UserError(
            f"vocab_size is {vocab_size}, expected at least {minimum}, for the 256 bytes and the added tokens"
        )
    if vocab_size > LARGEST_VOCABULARY:
        raise UserError(f"vocab_size is {vocab_size}, expected at most {LARGEST_VOCABULARY}")


def byte_tokenizer() -> Tokenizer:
    """Returns an untrained tokenizer: ids 0 to 255 are bytes, followed by the delimiters."""
    vocabulary = {byte: id_ for id_, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = _byte_level_backend(models.BPE(vocabulary, []))
    backend.add_special_tokens([_added_token(token) for token in DELIMITERS])
    return Tokenizer(backend)


def _added_token(content: str) -> tokenizers.AddedToken:
    """Returns a token that no text gives. The flags in the files only say how texts would give it."""
    return tokenizers.AddedToken(content, normalized=False, special=True)


def _byte_level_backend(model: models.BPE) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(_SPLIT_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    return backend
