"""The command `uno_jax.sample`: its output files, and which of them it skips."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from tests.helpers.commands import error_of, output_of
from tests.helpers.eight_device_process import run_with_eight_devices
from tests.helpers.hosts import Hosts
from tests.helpers.made_up_plans import latents_of
from tests.helpers.small_loaded import QUICK, save_small_checkpoint, small_generator
from uno_jax import sample
from uno_jax.inference.picture_files import read_settings, write_picture, write_png
from uno_jax.inference.picture_settings import PictureSettings
from uno_jax.sampling.text import TextConfig

pytestmark = pytest.mark.usefixtures("quick_compiles")

QUICK_FLAGS = [f"--{name}={value}" for name, value in QUICK.items()]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return save_small_checkpoint(tmp_path_factory.mktemp("sample") / "checkpoint")


def command(checkpoint: Path, out: Path, *arguments: str) -> list[str]:
    return [f"--checkpoint={checkpoint}", f"--out={out}", "--batch=1", *QUICK_FLAGS, *arguments]


def succeed(checkpoint: Path, out: Path, *arguments: str) -> str:
    """Returns the output of the command."""
    return output_of(sample.main, command(checkpoint, out, *arguments))


def fail(checkpoint: Path, out: Path, *arguments: str) -> str:
    """Returns the error message of the command."""
    message = error_of(sample.main, command(checkpoint, out, *arguments))
    assert not out.exists()
    return message


def written(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(out.iterdir())}


def test_a_prompt_gives_a_picture_with_its_settings_as_metadata(checkpoint, tmp_path):
    printed = succeed(checkpoint, tmp_path / "out", "--prompt=thing", "--seed=3")
    assert sorted(written(tmp_path / "out")) == ["00000-thing-seed3.png", "sheet.png"]
    assert "1 generated, 0 skipped" in printed
    settings = read_settings(tmp_path / "out" / "00000-thing-seed3.png")
    assert settings["checkpoint"].startswith(f"{checkpoint.name} (")
    assert str(checkpoint.parent) not in json.dumps(settings)
    assert settings["dtype"] == "float32"
    assert settings["context"] == ["thing"]
    expected = {"seed": 3, "size": "16x16", "timesteps": 3, "time_shift": 1.0, "text_scale": 4.0, "interval": [0.4, 1]}
    assert {name: settings[name] for name in expected} == expected
    [drawing] = small_generator().generate_images(["thing"], PictureSettings(**QUICK), seeds=[3])
    picture = np.asarray(Image.open(tmp_path / "out" / "00000-thing-seed3.png")).astype(int)
    assert np.abs(picture - np.asarray(drawing.image)).max() <= 1


def test_pictures_of_int8_weights_are_others_and_say_so(checkpoint, tmp_path):
    succeed(checkpoint, tmp_path / "out", "--prompt=thing")
    printed = succeed(checkpoint, tmp_path / "out", "--prompt=thing", "--weights=int8")
    assert "1 regenerated (settings changed)" in printed
    settings = read_settings(tmp_path / "out" / "00000-thing-seed0.png")
    assert settings["dtype"] == "float32, int8 weights"


def test_pictures_without_metadata_are_recognised_by_their_names(checkpoint, tmp_path):
    options = ["--prompt=thing", "--metadata=none", "--text_scale=1"]
    assert "1 generated, 0 skipped" in succeed(checkpoint, tmp_path / "out", *options)
    assert Image.open(tmp_path / "out" / "00000-thing-seed0.png").info == {}
    assert "0 generated, 1 skipped" in succeed(checkpoint, tmp_path / "out", *options, "--seed=0")


def test_invalid_metadata_is_ignored(tmp_path):
    for text in ("", "{", "[" * 100_000, "[1]"):
        chunks = PngImagePlugin.PngInfo()
        chunks.add_itxt("uno_jax", text)
        write_png(tmp_path / "picture.png", Image.new("RGB", (2, 2)), chunks)
        assert read_settings(tmp_path / "picture.png") is None


def test_existing_pictures_with_the_same_settings_are_skipped(checkpoint, tmp_path):
    (tmp_path / "prompts.txt").write_text("thing\nnumber\nyes\n")
    arguments = [f"--prompts={tmp_path / 'prompts.txt'}"]
    succeed(checkpoint, tmp_path / "out", *arguments)
    first = written(tmp_path / "out")
    (tmp_path / "out" / "00001-number-seed0.png").unlink()
    (tmp_path / "out" / "00002-yes-seed0.png").write_bytes(first["00002-yes-seed0.png"][:50])
    marked = tmp_path / "out" / "00000-thing-seed0.png"
    write_picture(marked, Image.new("RGB", (16, 16)), read_settings(marked))
    existing = marked.read_bytes()
    assert "2 generated, 1 skipped" in succeed(checkpoint, tmp_path / "out", *arguments)
    assert marked.read_bytes() == existing
    assert "0 generated, 3 regenerated (settings changed), 0 skipped" in succeed(
        checkpoint, tmp_path / "out", *arguments, "--text_scale=3"
    )
    assert sorted(written(tmp_path / "out")) == sorted(first)


def test_processes_share_the_pictures(checkpoint, tmp_path):
    arguments = ["--prompt=thing", "--prompt=number", "--count=2", "--sheet=0"]
    for part in ("0/3", "1/3", "2/3"):
        succeed(checkpoint, tmp_path / "parts", *arguments, f"--part={part}")
        if part == "1/3":
            names = {"00000-thing-seed0", "00000-thing-seed1", "00001-number-seed1"}
            assert {Path(name).stem for name in written(tmp_path / "parts")} == names
    assert "0 generated, 4 skipped" in succeed(checkpoint, tmp_path / "parts", *arguments)


def test_hosts_of_a_cluster_share_the_pictures(checkpoint, tmp_path):
    out = tmp_path / "out"
    settings = ["--prompt=thing", "--count=3", "--text_scale=1", "--batch=1", *QUICK_FLAGS]
    command = ["-m", "uno_jax.sample", f"--checkpoint={checkpoint}", f"--out={out}", *settings]
    ended = Hosts(command, hosts=2, devices=1, settings={"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}).wait(120)
    assert [host.status for host in ended] == [0, 0], "\n".join(host.printed for host in ended)
    assert f"{out}: 2 generated, 0 skipped" in ended[0].printed
    assert f"{out}: 1 generated, 0 skipped" in ended[1].printed
    pictures = [f"00000-thing-seed{seed}.png" for seed in range(3)]
    assert sorted(written(out)) == [*pictures, "sheet-0-of-2.png", "sheet-1-of-2.png"]


def test_jsonl_lines_with_pictures_are_edits(checkpoint, tmp_path):
    Image.fromarray(latents_of(1, 2)).save(tmp_path / "source.png")
    line = {"id": "edit", "prompt": "thing", "images": ["source.png"], "negative": "number"}
    (tmp_path / "edits.jsonl").write_text(json.dumps(line))
    succeed(checkpoint, tmp_path / "out", f"--prompts={tmp_path / 'edits.jsonl'}")
    settings = read_settings(tmp_path / "out" / "edit-seed0.png")
    assert (settings["size"], settings["negative"]) == ("16x8", "number")
    assert settings["context"][0]["image"] == "source.png"
    assert Image.open(tmp_path / "out" / "sheet.png").width > 128


def test_the_sheet_shows_a_source_as_the_model_reads_it(checkpoint, tmp_path):
    """Transparent pixels are white."""
    Image.new("RGBA", (16, 16), (0, 0, 0, 0)).save(tmp_path / "source.png")
    succeed(checkpoint, tmp_path / "out", "--prompt=thing", f"--image={tmp_path / 'source.png'}")
    sheet = np.asarray(Image.open(tmp_path / "out" / "sheet.png"))
    black = (sheet == 0).all(axis=-1)
    assert 0 < black.sum() < 64 * 64  # texts only; a black picture would add 128 x 128


def test_options_of_thoughts_apply_and_are_in_the_metadata(checkpoint, tmp_path):
    options = ["--think", "--drawing_prompt=number", "--think_max_length=5", "--think_temperature=2", "--text_scale=1"]
    succeed(checkpoint, tmp_path / "out", "--prompt=thing", "--seed=3", *options)
    file = tmp_path / "out" / "00000-thing-seed3.png"
    text = TextConfig(max_length=5, temperature=2.0)
    [thought] = small_generator().answer([("number", "thing")], [""], text, seeds=[3])
    assert Image.open(file).info["thought"].strip() == thought.text
    assert read_settings(file)["thoughts"] == {"max_length": 5, "temperature": 2.0, "top_p": 1.0}


def test_invalid_prompts_are_named_before_the_checkpoint_is_opened(tmp_path):
    (tmp_path / "prompts.jsonl").write_text("{")
    nothing = tmp_path / "nothing"
    assert "prompts.jsonl:1: not valid JSON" in fail(
        nothing, tmp_path / "out", f"--prompts={tmp_path / 'prompts.jsonl'}"
    )
    assert "expected either --prompt or --prompts" in fail(nothing, tmp_path / "out")
    assert "text_scale is inf" in fail(nothing, tmp_path / "out", "--prompt=a", "--text_scale=inf")
    assert "timesteps is 1" in fail(nothing, tmp_path / "out", "--prompt=a", "--timesteps=1")
    assert "top_p is 2" in fail(nothing, tmp_path / "out", "--prompt=a", "--think_top_p=2")
    assert "nothing: no checkpoint found" in fail(nothing, tmp_path / "out", "--prompt=a")


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("--rescale=text-channel", ["text-channel", "global", "text_channel"]),
        ("--interval=a,b", ["'a,b': expected two numbers such as 0.4,1"]),
        ("--interval=0.4", ["'0.4': expected two numbers such as 0.4,1"]),
        ("--part=4/4", ["'4/4': expected I/N with I from 0 to N - 1"]),
        ("--sheet=-1", ["not an integer in the range [0, 1000]"]),
        ("--batch=0", ["not a positive integer"]),
        ("--promt=a", ["Unknown command line flag 'promt'. Did you mean: prompt"]),
    ],
)
def test_an_invalid_option_is_named_with_the_expected_value(option, expected, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit:
        succeed(tmp_path / "nothing", tmp_path / "out", "--prompt=a", option)
    assert exit.value.code == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert all(part in message for part in [option.split("=")[0].strip("-"), *expected])


def test_a_damaged_picture_is_named_before_any_generation(checkpoint, tmp_path):
    (tmp_path / "damaged.png").write_bytes(b"none")
    message = fail(checkpoint, tmp_path / "out", "--prompt=a", f"--image={tmp_path / 'damaged.png'}")
    assert "--prompt 0: picture: " in message
    assert "damaged.png: not a picture" in message


def test_metadata_may_contain_any_unicode(tmp_path):
    file = tmp_path / "picture.png"
    write_picture(file, Image.new("RGB", (2, 2)), {"context": ["ein rotes Herz 心"]}, "erst das Herz ❤")
    assert read_settings(file) == {"context": ["ein rotes Herz 心"]}
    assert Image.open(file).info["thought"] == "erst das Herz ❤"
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


def test_metadata_may_contain_a_file_name_that_is_not_utf8(tmp_path):
    settings = {"context": [{"image": os.fsdecode(b"caf\xe9.png")}]}
    write_picture(tmp_path / "picture.png", Image.new("RGB", (2, 2)), settings)
    assert read_settings(tmp_path / "picture.png") == settings


@pytest.mark.slow
def test_eight_devices_generate_the_pictures_of_one(checkpoint, tmp_path):
    succeed(checkpoint, tmp_path / "one", "--prompt=thing", "--prompt=number", "--sheet=0")
    mesh = ["--mesh.data=2", "--mesh.fsdp=2", "--mesh.tensor=2"]
    arguments = [f"--checkpoint={checkpoint}", f"--out={tmp_path / 'eight'}", *QUICK_FLAGS, *mesh, "--sheet=0"]
    run_with_eight_devices("-m", "uno_jax.sample", *arguments, "--prompt=thing", "--prompt=number")
    assert sorted(written(tmp_path / "eight")) == sorted(written(tmp_path / "one"))
    for name in written(tmp_path / "one"):
        one, eight = (np.asarray(Image.open(tmp_path / out / name)).astype(int) for out in ("one", "eight"))
        assert np.abs(one - eight).max() <= 1
