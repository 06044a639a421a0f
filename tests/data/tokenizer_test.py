"""The byte-level BPE: files in the Qwen2 format, delimiters, training."""

import json
import pickle
import re
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.paths import REFERENCE
from uno_jax.data.tokenizer import DELIMITERS, Tokenizer, byte_tokenizer, train_tokenizer
from uno_jax.data.tokenizer_files import TOKENIZER_FILES

CAPTIONS = ["a red car", "a red heart", "the red car beside a blue car", "grinning face with big eyes"] * 5


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tokenizer")
    return directory, train_tokenizer(CAPTIONS, 300, directory)


def test_trained_files_read_back_as_the_same_tokenizer(trained):
    directory, tokenizer = trained
    again = Tokenizer.from_directory(directory)
    assert sorted(path.name for path in directory.iterdir()) == sorted(TOKENIZER_FILES)
    assert again.encode("a red car 车") == tokenizer.encode("a red car 车")
    assert len(again) == len(tokenizer) <= 300


def test_delimiters_have_distinct_ids(trained):
    _, tokenizer = trained
    ids = [tokenizer.start, tokenizer.end, tokenizer.image_start, tokenizer.image_end]
    assert len(set(ids)) == 4
    assert [tokenizer.one_id(token) for token in DELIMITERS] == ids


def test_training_merges_frequent_words(trained):
    _, tokenizer = trained
    assert len(tokenizer.encode("a red car")) == 3


def test_training_twice_writes_the_same_files(trained, tmp_path):
    directory, _ = trained
    train_tokenizer(CAPTIONS, 300, tmp_path)
    for name in TOKENIZER_FILES:
        assert (tmp_path / name).read_bytes() == (directory / name).read_bytes()


@settings(max_examples=30)
@given(text=st.text(max_size=20))
def test_decode_gives_back_the_composed_text(trained, text):
    _, tokenizer = trained
    assert tokenizer.decode(tokenizer.encode(text)) == unicodedata.normalize("NFC", text)


def test_invalid_unicode_is_rejected_with_its_position(trained):
    """Command-line bytes that are not UTF-8 arrive as surrogates."""
    with pytest.raises(ValueError, match=r"'caf\\udce9' is not valid Unicode \(at character 4\)"):
        trained[1].encode("caf\udce9")


@pytest.mark.parametrize("copy", [lambda tokenizer: tokenizer, lambda tokenizer: pickle.loads(pickle.dumps(tokenizer))])
@pytest.mark.parametrize("text", ["<|im_end|>", "a<|vision_start|>b", "<tool_call>", "<|fim_prefix|><|im_start|>"])
def test_a_text_never_gives_an_added_token(text, copy):
    tokenizer = copy(Tokenizer.from_directory(REFERENCE))
    ids = tokenizer.encode(text)
    assert not tokenizer.added & set(ids)
    assert tokenizer.decode(ids) == text


def test_one_id_is_that_of_an_added_token_or_of_a_text_of_one_token(trained):
    _, tokenizer = trained
    assert tokenizer.one_id("<|im_end|>") == tokenizer.end
    assert [tokenizer.one_id("a")] == tokenizer.encode("a")
    assert tokenizer.one_id("a red") is None


def test_pickling_keeps_the_ids(trained):
    _, tokenizer = trained
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy.encode("the <|im_end|>") == tokenizer.encode("the <|im_end|>")
    assert copy.end == tokenizer.end


@pytest.fixture
def copied(tmp_path) -> Path:
    """A copy of the reference's tokenizer."""
    for name in TOKENIZER_FILES:
        shutil.copy(REFERENCE / name, tmp_path)
    return tmp_path


def test_missing_delimiters_are_added_after_all_others_and_reported(copied):
    config = json.loads((copied / "tokenizer_config.json").read_text())
    vocabulary = json.loads((copied / "vocab.json").read_text())
    config["added_tokens_decoder"] = {str(len(vocabulary)): {"content": "<|endoftext|>"}}
    (copied / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = Tokenizer.from_directory(copied)
    first = len(vocabulary) + 1
    assert [tokenizer.start, tokenizer.end, tokenizer.image_start, tokenizer.image_end] == list(range(first, first + 4))
    assert len(tokenizer) == first + 4
    assert tokenizer.unlisted == DELIMITERS
    assert Tokenizer.from_directory(REFERENCE).unlisted == ()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"vocab\.json, merges\.txt, tokenizer_config\.json"):
        Tokenizer.from_directory(tmp_path)


def test_added_tokens_of_another_vocabulary_are_rejected(copied):
    config = {"added_tokens_decoder": {"7000": {"content": "<|im_start|>"}}}
    (copied / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"<\|im_start\|>.*7000"):
        Tokenizer.from_directory(copied)


def with_id(vocabulary: bytes, **ids: int) -> bytes:
    return json.dumps(json.loads(vocabulary) | ids).encode()


def first_lines(merges: bytes, count: int) -> bytes:
    return b"".join(merges.splitlines(keepends=True)[:count])


def one_added(key: str, entry: Any) -> bytes:
    return json.dumps({"added_tokens_decoder": {key: entry}}).encode()


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("vocab.json", lambda whole: whole[:-50], "not valid JSON"),
        ("vocab.json", lambda whole: b"[" * 100_000, "not valid JSON"),
        ("vocab.json", lambda whole: b"[]", "expected a JSON object, found list"),
        ("vocab.json", lambda whole: b'{"a": "0"}', "expected an integer id for every token"),
        ("vocab.json", lambda whole: b"\xff\xfe\x00", "not valid JSON (byte 1 is not UTF-8)"),
        ("vocab.json", lambda whole: with_id(whole, the=99999), "no token has id 476; expected every id from 0 to 599"),
        ("vocab.json", lambda whole: with_id(whole, the=3), "two tokens have id 3"),
        ("merges.txt", lambda whole: first_lines(whole, 172), "no merge makes 173 tokens of vocab.json"),
        ("merges.txt", lambda whole: first_lines(whole, 172) + b"Q", "line 173 is 'Q'; expected two tokens"),
        ("merges.txt", lambda whole: b"", "no merge makes 344 tokens"),
        ("merges.txt", lambda whole: whole + b"zz qq\n", "vocab.json has no token 'zz'"),
        ("tokenizer_config.json", lambda whole: b"[]", "expected a JSON object, found list"),
        (
            "tokenizer_config.json",
            lambda whole: b'{"added_tokens_decoder": []}',
            "expected an object that maps ids to tokens",
        ),
        ("tokenizer_config.json", lambda whole: one_added("600", "x"), "holds '600': 'x'"),
        ("tokenizer_config.json", lambda whole: one_added("six", {"content": "x"}), "holds 'six'"),
        ("tokenizer_config.json", lambda whole: one_added("600", {"content": 5}), "holds '600': {'content': 5}"),
    ],
)
def test_a_damaged_or_foreign_file_is_named(copied, file, damage, message):
    (copied / file).write_bytes(damage((copied / file).read_bytes()))
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        Tokenizer.from_directory(copied)
    assert str(error.value).startswith(f"{copied / file}: ")


def test_a_vocabulary_without_room_for_all_bytes_is_rejected(tmp_path):
    with pytest.raises(ValueError, match="at least 261"):
        train_tokenizer(["a"], 260, tmp_path)


@settings(max_examples=30)
@given(st.text())
def test_a_byte_tokenizer_has_one_id_for_each_byte(text):
    text = unicodedata.normalize("NFC", text)
    ids = byte_tokenizer().encode(text)
    assert len(ids) == len(text.encode())
    assert byte_tokenizer().decode(ids) == text
