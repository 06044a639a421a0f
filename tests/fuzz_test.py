"""Random damage to everything that comes from others: documented errors only, and bounded memory.

The default suite tries a few inputs. `UNO_FUZZ_INPUTS=100000 pytest tests/fuzz_test.py` tries 100,000.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from safetensors.numpy import save

from tests.helpers.damage import files_of
from tests.helpers.fuzz import MIB, damaged, inputs, within
from tests.helpers.made_up_records import (
    LAYOUT,
    make_record,
    make_records,
    mixture_of,
    picture,
    small_config,
    small_tokenizer,
)
from tests.helpers.made_up_sources import read_all
from tests.helpers.paths import REFERENCE
from tests.helpers.small_loaded import save_small_checkpoint
from tests.helpers.small_public import DECODER_JSON, TOP_JSON, VISION_JSON, write_json
from uno_jax.batch import REGIONS, TASKS
from uno_jax.config import ConfigError, from_config_dict, to_json
from uno_jax.data.decoding import PictureError, decode_rgb
from uno_jax.data.held_out import fill_rows
from uno_jax.data.methods import METHODS
from uno_jax.data.record import Record
from uno_jax.data.records import open_records, write_records
from uno_jax.data.rows import make_batch, pack_row
from uno_jax.data.samples import Skipped, read_sample
from uno_jax.data.sources.jsonl import JSONL
from uno_jax.data.sources.pictures import PictureLimits, stored_picture
from uno_jax.data.tokenizer import DELIMITERS, Tokenizer
from uno_jax.data.tokenizer_files import TOKENIZER_FILES
from uno_jax.inference.picture_settings import PictureSettings
from uno_jax.inference.prompt_files import PromptError, read_prompts
from uno_jax.interop.sizes import model_config_from_directory
from uno_jax.interop.source import find_source
from uno_jax.interop.summary import read_parts
from uno_jax.interop.tensor_files import STORED_DTYPES, TensorFiles
from uno_jax.process.errors import CheckpointError, UserError
from uno_jax.process.json_reader import JsonError, half_pair, parse_json
from uno_jax.run.config import RunConfig, check_config

# Pictures

_MAX_PIXELS = 10**6


def _encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 13, 3), np.uint8))


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif.update({0x0112: 6, 0x010F: "Maker", 0x0110: "Model", 0x011A: 72.0, 0x0132: "2020:01:01 00:00:00"})
    exif.get_ifd(0x8769)[0x9000] = b"0232"
    return exif


def _pictures() -> list[bytes]:
    noise, exif = _noise(), _exif()
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("comment", "text" * 50, zip=True)
    chunks.add_itxt("XML:com.adobe.xmp", 'tiff:Orientation="3"')
    palette, frames = noise.quantize(8), {"save_all": True, "append_images": [noise.rotate(90)]}
    return [
        _encoded(noise, "PNG", exif=exif, pnginfo=chunks, icc_profile=b"profile" * 9),
        _encoded(palette, "PNG", transparency=3),
        _encoded(noise.convert("LA"), "PNG"),
        _encoded(noise, "PNG", **frames),
        _encoded(noise, "JPEG", exif=exif, comment=b"comment"),
        _encoded(noise, "JPEG", progressive=True),
        _encoded(noise.convert("CMYK"), "JPEG"),
        _encoded(noise, "MPO", **frames),
        _encoded(palette, "GIF", transparency=1, **frames),
        _encoded(noise, "WEBP", exif=exif),
        _encoded(noise.convert("RGBA"), "WEBP", lossless=True, **frames),
        _encoded(noise, "AVIF", exif=exif),
        _encoded(noise, "BMP"),
        _encoded(palette, "BMP"),
        _encoded(noise, "PPM"),
        _encoded(noise, "JPEG2000"),
        *(_encoded(noise, "TIFF", compression=kind, exif=exif) for kind in (None, "tiff_lzw", "jpeg", "tiff_deflate")),
        _encoded(noise.convert("1"), "TIFF", compression="group4"),
    ]


_PHOTOS = st.builds(
    lambda exif, kind: _encoded(_noise(), kind, exif=exif),
    damaged([_exif().tobytes()]),
    st.sampled_from(["PNG", "JPEG", "WEBP"]),
)


@inputs(0.35)
@given(data=st.one_of(damaged(_pictures()), _PHOTOS))
def test_pictures(data):
    with within(256):
        for read in (
            lambda: decode_rgb(data, "x", _MAX_PIXELS),
            lambda: stored_picture(data, PictureLimits(_MAX_PIXELS)),
        ):
            with contextlib.suppress(PictureError):
                found = read()
                pixels = found if isinstance(found, np.ndarray) else decode_rgb(found, "x", _MAX_PIXELS)
                assert pixels.dtype == np.uint8
                assert pixels.ndim == 3
                assert pixels.shape[2] == 3


# Records


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("fuzz") / "toy"
    records = make_records(6)
    write_records(directory, "toy", {"train": lambda: records}, description="Toys.", license_text="None.")
    return directory


def _records_file(directory: Path) -> Path:
    return directory / "toy-train.array_record-00000"


@inputs(0.05)
@given(data=st.data())
def test_files_of_records(dataset, data):
    copy = dataset.with_name("damaged")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(dataset, copy)
    file = copy / data.draw(st.sampled_from([_records_file(copy).name, "features.json", "dataset_info.json"]))
    file.write_bytes(data.draw(damaged([file.read_bytes()])))
    with within(256), contextlib.suppress(UserError):
        records = open_records(copy, "train")
        records.check()
        assert all(isinstance(record, Record) for record in records)


@pytest.fixture(scope="module")
def examples(dataset) -> list[bytes]:
    """The encoded records of the dataset."""
    source = ArrayRecordDataSource(str(_records_file(dataset)))
    return [source[index] for index in range(len(source))]


@inputs(0.1)
@given(data=st.data())
def test_encoded_records(dataset, examples, data):
    """Of a file whose checksums are right."""
    copy = dataset.with_name("encoded")
    if not copy.exists():
        shutil.copytree(dataset, copy)
    writer = ArrayRecordWriter(str(_records_file(copy)), "group_size:1")
    for _ in range(6):
        writer.write(data.draw(damaged(examples)))
    writer.close()
    records = open_records(copy, "train")
    for index in range(len(records)):
        with within(256), contextlib.suppress(UserError):
            assert isinstance(records[index], Record)


# Texts

_TEXTS = st.lists(
    st.one_of(st.text(), st.text(st.characters(categories=["Cs", "Cc", "Mn", "Zs", "Lo"])), st.sampled_from(DELIMITERS))
).map("".join)


@inputs(0.1)
@given(text=_TEXTS)
@example(text="a" * 100_000)
@example(text=" " * 100_000)
@example(text="<|im_end|>" * 10_000)
def test_texts(text):
    for tokenizer in (small_tokenizer(), _reference_tokenizer()):
        with within(256), contextlib.suppress(UserError):
            ids = tokenizer.encode(text)
            assert not tokenizer.added & set(ids)
            assert all(0 <= id_ < len(tokenizer) for id_ in ids)
            tokenizer.decode(ids)


@functools.cache
def _reference_tokenizer() -> Tokenizer:
    return Tokenizer.from_directory(REFERENCE)


@inputs(0.05)
@given(data=st.data())
def test_tokenizer_files(tmp_path_factory, data):
    directory = tmp_path_factory.getbasetemp() / "tokenizer"
    directory.mkdir(exist_ok=True)
    for name in TOKENIZER_FILES:
        shutil.copy(REFERENCE / name, directory)
    file = directory / data.draw(st.sampled_from(TOKENIZER_FILES))
    file.write_bytes(data.draw(damaged([file.read_bytes()])))
    with within(256), contextlib.suppress(UserError):
        Tokenizer.from_directory(directory).encode("a red heart")


# Packing

_SIDES = st.integers(1, 40)


@st.composite
def _records(draw: st.DrawFn) -> Record:
    text = st.text(max_size=40)
    pictures = st.builds(picture, st.integers(0, 9), _SIDES, _SIDES)
    return make_record(
        draw(st.integers(0, 99)),
        draw(st.sampled_from(TASKS[:3])),
        image=draw(st.one_of(pictures, st.binary(max_size=9))),
        prompt=draw(text),
        captions=tuple(draw(st.lists(text, max_size=3))),
        sources=tuple(draw(st.lists(pictures, max_size=3))),
        answer=draw(text),
    )


@inputs(0.1)
@given(records=st.lists(_records(), max_size=6), method=st.sampled_from(list(METHODS)), room=st.integers(1, 4))
def test_packing(records, method, room):
    config = small_config(method=method, text_tokens=48 * room, latent_tokens=16 * room, vit_tokens=16 * room)
    inputs_ = config.inputs(small_tokenizer())
    part = mixture_of(records, config).parts[0]
    read = [read_sample(part, number, LAYOUT, inputs_, number) for number in range(len(records))]
    samples = [{region: sample[region] for region in REGIONS} for sample in read if not isinstance(sample, Skipped)]
    rows = [pack_row(row, config.capacities, LAYOUT) for row in fill_rows(samples, config)]
    if rows:
        assert make_batch(rows).text_ids.shape == (len(rows), config.text_tokens)


# JSON

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=9,
)


@st.composite
def _changed(draw: st.DrawFn, whole: dict) -> dict:
    """Draws a copy of a JSON object with some fields replaced, removed or added, at any depth."""
    changed = json.loads(json.dumps(whole))
    for _ in range(draw(st.integers(1, 3))):
        node = changed
        while (inner := [key for key, value in node.items() if isinstance(value, dict)]) and draw(st.booleans()):
            node = node[draw(st.sampled_from(inner))]
        key = draw(st.sampled_from(list(node)) if node and draw(st.booleans()) else st.text(max_size=9))
        if draw(st.booleans()):
            node.pop(key, None)
        else:
            numbers = st.sampled_from([0, -1, 1, 2**31, 2**63, 10**9, 10**400, 1e308, float("nan"), 0.5])
            node[key] = draw(st.one_of(_JSON, numbers))
    return changed


@inputs(0.05)
@given(data=st.one_of(st.binary(), _JSON.map(lambda value: json.dumps(value).encode()), damaged([b'{"a": [1, "x"]}'])))
def test_json(data):
    with within(64), contextlib.suppress(JsonError):
        half_pair(parse_json(data))


@inputs(0.05)
@given(values=_changed(to_json(RunConfig())))
def test_configs_of_runs(values):
    with within(64), contextlib.suppress(ConfigError):
        check_config(from_config_dict(values, RunConfig))


@inputs(0.03)
@given(top=_changed(TOP_JSON), decoder=_changed(DECODER_JSON), vision=_changed(VISION_JSON))
def test_sizes_of_public_models(tmp_path_factory, top, decoder, vision):
    directory = tmp_path_factory.getbasetemp() / "sizes"
    directory.mkdir(exist_ok=True)
    write_json(directory, top=top, decoder=decoder, vision=vision)
    with within(64), contextlib.suppress(CheckpointError):
        model_config_from_directory(directory)


@inputs(0.03)
@given(line=_changed({**to_json(PictureSettings()), "prompt": "x", "images": ["a.png"], "id": "y"}))
def test_prompt_files(tmp_path_factory, line):
    file = tmp_path_factory.getbasetemp() / "prompts.jsonl"
    file.write_text(json.dumps(line))
    with within(64), contextlib.suppress(PromptError):
        read_prompts(file, PictureSettings())


@inputs(0.04)
@given(data=st.data())
def test_lines_of_records(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    (folder / "a.png").write_bytes(picture())
    lines = [
        {"id": "a", "image": "a.png", "prompt": "x", "captions": ["y"]},
        {"id": "b", "task": "editing", "image": "a.png", "sources": ["b.png"], "prompt": "x"},
        {"id": "c", "task": "understanding", "image": "a.png", "prompt": "", "answer": "z"},
    ]
    encoded = [json.dumps(data.draw(_changed(line))).encode() for line in lines]
    (folder / "records.jsonl").write_bytes(b"\n".join([*encoded, data.draw(damaged(encoded))]))
    with within(64):
        records, rejections = read_all(JSONL, jsonl=folder / "records.jsonl", images=folder)
    assert len(records) <= 4
    assert all(str(rejection) for rejection in rejections)


# Checkpoints


def _safetensors() -> bytes:
    tensors = {f"layer.{i}.weight": np.full((3, i + 1), i, np.float32) for i in range(4)}
    return save(tensors | {"scalar": np.ones((), np.float16)}, {"format": "pt"})


def _with_header(header: object) -> bytes:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + bytes(8)


@inputs(0.05)
@given(
    data=st.one_of(
        damaged([_safetensors()]),
        _JSON.map(_with_header),
        _changed({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).map(_with_header),
    )
)
@example(data=struct.pack("<Q", 2**63) + b"{}")
@example(data=struct.pack("<Q", 2**40) + b"{}")
@example(data=_with_header({"a": {"dtype": "F32", "shape": [2**62, 0], "data_offsets": [0, 0]}}))
@example(data=_with_header(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{}}'))
@example(data=_with_header(b"[" * 100_000))
def test_tensor_files(tmp_path_factory, data):
    file = tmp_path_factory.getbasetemp() / "ema.safetensors"
    file.write_bytes(data)
    with within(64), contextlib.suppress(CheckpointError):
        files = TensorFiles.find(file.parent, file.name)
        for name, stored in files.tensors.items():
            if stored.dtype in STORED_DTYPES:
                assert files.read(name).nbytes <= MIB


@functools.cache
def _checkpoint(folder: Path) -> tuple[Path, dict[str, bytes]]:
    """Returns a checkpoint of a small model in a folder, and the contents of its files."""
    directory = save_small_checkpoint(folder / "checkpoint")
    return directory, {str(file.relative_to(directory)): file.read_bytes() for file in files_of(directory)}


@inputs(0.005)  # each takes half a second
@given(data=st.data())
def test_files_of_checkpoints(tmp_path_factory, data):
    directory, files = _checkpoint(tmp_path_factory.getbasetemp())
    name = data.draw(st.sampled_from(sorted(files)))
    (directory / name).write_bytes(data.draw(damaged([files[name]])))
    try:
        with within(256), contextlib.suppress(CheckpointError):
            source = find_source(directory)
            source.model(), source.tokenizer(), source.settings()
            read_parts(source.contents(ema=False))
    finally:
        (directory / name).write_bytes(files[name])
