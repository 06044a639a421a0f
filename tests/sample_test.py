"""The command `uno_jax.sample`: what it writes, and what it does not write again."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from rich.console import Console

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


def succeed(checkpoint: Path, out: Path, *arguments: str) -> str:
    """What the command prints."""
    console = Console(file=io.StringIO(), width=200)
    sample.main([f"--checkpoint={checkpoint}", f"--out={out}", "--batch=1", *QUICK_FLAGS, *arguments], console)
    return console.file.getvalue()


def fail(checkpoint: Path, out: Path, *arguments: str) -> str:
    """What the command says is wrong, in place of a traceback."""
    with pytest.raises(SystemExit) as exit:
        succeed(checkpoint, out, *arguments)
    assert isinstance(exit.value.code, str)
    assert not out.exists()
    return exit.value.code


def written(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(out.iterdir())}


def test_a_prompt_gives_a_picture_that_says_how_it_was_made(checkpoint, tmp_path):
    printed = succeed(checkpoint, tmp_path / "out", "--prompt=thing", "--seed=3")
    assert sorted(written(tmp_path / "out")) == ["00000-thing-seed3.png", "sheet.png"]
    assert "1 drawn, 0 were there" in printed
    settings = read_settings(tmp_path / "out" / "00000-thing-seed3.png")
    assert settings["checkpoint"] == str(checkpoint)
    assert settings["dtype"] == "float32"
    assert settings["context"] == ["thing"]
    expected = {"seed": 3, "size": "16x16", "timesteps": 3, "time_shift": 1.0, "text_scale": 4.0, "interval": [0.4, 1]}
    assert {name: settings[name] for name in expected} == expected
    [drawing] = small_generator().generate_images(["thing"], PictureSettings(**QUICK), seeds=[3])
    picture = np.asarray(Image.open(tmp_path / "out" / "00000-thing-seed3.png")).astype(int)
    assert np.abs(picture - np.asarray(drawing.image)).max() <= 1


def test_settings_that_are_no_json_are_none(tmp_path):
    for text in ("", "{", "[" * 100_000):
        chunks = PngImagePlugin.PngInfo()
        chunks.add_itxt("uno_jax", text)
        write_png(tmp_path / "picture.png", Image.new("RGB", (2, 2)), chunks)
        assert read_settings(tmp_path / "picture.png") is None


def test_what_is_there_with_the_same_settings_is_not_made_again(checkpoint, tmp_path):
    (tmp_path / "prompts.txt").write_text("thing\nnumber\nyes\n")
    arguments = [f"--prompts={tmp_path / 'prompts.txt'}"]
    succeed(checkpoint, tmp_path / "out", *arguments)
    first = written(tmp_path / "out")
    (tmp_path / "out" / "00001-number-seed0.png").unlink()
    (tmp_path / "out" / "00002-yes-seed0.png").write_bytes(first["00002-yes-seed0.png"][:50])
    marked = tmp_path / "out" / "00000-thing-seed0.png"
    write_picture(marked, Image.new("RGB", (16, 16)), read_settings(marked))
    there = marked.read_bytes()
    assert "2 drawn, 1 were there" in succeed(checkpoint, tmp_path / "out", *arguments)
    assert marked.read_bytes() == there
    assert "3 drawn (3 of them anew, for their settings differ), 0 were there" in succeed(
        checkpoint, tmp_path / "out", *arguments, "--text_scale=3"
    )
    assert sorted(written(tmp_path / "out")) == sorted(first)


def test_processes_share_the_pictures_out(checkpoint, tmp_path):
    arguments = ["--prompt=thing", "--prompt=number", "--count=2", "--sheet=0"]
    for part in ("0/3", "1/3", "2/3"):
        succeed(checkpoint, tmp_path / "parts", *arguments, f"--part={part}")
        if part == "1/3":
            names = {"00000-thing-seed0", "00000-thing-seed1", "00001-number-seed1"}
            assert {Path(name).stem for name in written(tmp_path / "parts")} == names
    assert "0 drawn, 4 were there" in succeed(checkpoint, tmp_path / "parts", *arguments)


def test_hosts_of_one_cluster_share_the_pictures_out(checkpoint, tmp_path):
    out = tmp_path / "out"
    settings = ["--prompt=thing", "--count=3", "--text_scale=1", "--batch=1", *QUICK_FLAGS]
    command = ["-m", "uno_jax.sample", f"--checkpoint={checkpoint}", f"--out={out}", *settings]
    ended = Hosts(command, hosts=2, devices=1, settings={"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}).wait(120)
    assert [host.status for host in ended] == [0, 0], "\n".join(host.printed for host in ended)
    assert f"{out}: 2 drawn, 0 were there" in ended[0].printed
    assert f"{out}: 1 drawn, 0 were there" in ended[1].printed
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


def test_a_source_is_on_the_sheet_as_the_model_reads_it(checkpoint, tmp_path):
    """Transparency on white."""
    Image.new("RGBA", (16, 16), (0, 0, 0, 0)).save(tmp_path / "source.png")
    succeed(checkpoint, tmp_path / "out", "--prompt=thing", f"--image={tmp_path / 'source.png'}")
    sheet = np.asarray(Image.open(tmp_path / "out" / "sheet.png"))
    black = (sheet == 0).all(axis=-1)
    assert 0 < black.sum() < 64 * 64  # the texts alone; a picture takes 128 x 128


def test_thoughts_are_written_as_options_say_and_the_picture_says_so(checkpoint, tmp_path):
    options = ["--think", "--drawing_prompt=number", "--think_max_length=5", "--think_temperature=2", "--text_scale=1"]
    succeed(checkpoint, tmp_path / "out", "--prompt=thing", "--seed=3", *options)
    file = tmp_path / "out" / "00000-thing-seed3.png"
    text = TextConfig(max_length=5, temperature=2.0)
    [thought] = small_generator().answer([("number", "thing")], [""], text, seeds=[3])
    assert Image.open(file).info["thought"].strip() == thought.text
    assert read_settings(file)["thoughts"] == {"max_length": 5, "temperature": 2.0, "top_p": 1.0}


def test_wrong_prompts_are_named_before_the_checkpoint_is_looked_at(tmp_path):
    (tmp_path / "prompts.jsonl").write_text("{")
    nothing = tmp_path / "nothing"
    assert "prompts.jsonl:1: not valid JSON" in fail(
        nothing, tmp_path / "out", f"--prompts={tmp_path / 'prompts.jsonl'}"
    )
    assert "give --prompt or --prompts" in fail(nothing, tmp_path / "out")
    assert "text_scale is nan" in fail(nothing, tmp_path / "out", "--prompt=a", "--text_scale=nan")
    assert "timesteps is 1" in fail(nothing, tmp_path / "out", "--prompt=a", "--timesteps=1")
    assert "top_p is 2" in fail(nothing, tmp_path / "out", "--prompt=a", "--think_top_p=2")
    assert "nothing: no checkpoint is there" in fail(nothing, tmp_path / "out", "--prompt=a")


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("--rescale=text-channel", ["text-channel", "global", "text_channel"]),
        ("--interval=a,b", ["'a,b': expected two numbers such as 0.4,1"]),
        ("--interval=0.4", ["'0.4': expected two numbers such as 0.4,1"]),
        ("--part=4/4", ["'4/4': expected I/N with I from 0 to N - 1"]),
        ("--sheet=-1", ["not a non-negative integer"]),
        ("--batch=0", ["not a positive integer"]),
        ("--promt=a", ["Unknown command line flag 'promt'. Did you mean: prompt"]),
    ],
)
def test_an_option_that_cannot_be_read_is_refused_with_what_is_expected(option, expected, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit:
        succeed(tmp_path / "nothing", tmp_path / "out", "--prompt=a", option)
    assert exit.value.code == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert all(part in message for part in [option.split("=")[0].strip("-"), *expected])


def test_a_damaged_picture_is_named_before_anything_is_drawn(checkpoint, tmp_path):
    (tmp_path / "damaged.png").write_bytes(b"none")
    message = fail(checkpoint, tmp_path / "out", "--prompt=a", f"--image={tmp_path / 'damaged.png'}")
    assert "--prompt 0: picture: " in message
    assert "damaged.png: the 4 bytes cannot be decoded" in message


def test_a_picture_remembers_its_settings_and_thought_in_any_script(tmp_path):
    file = tmp_path / "picture.png"
    write_picture(file, Image.new("RGB", (2, 2)), {"context": ["ein rotes Herz 心"]}, "erst das Herz ❤")
    assert read_settings(file) == {"context": ["ein rotes Herz 心"]}
    assert Image.open(file).info["thought"] == "erst das Herz ❤"
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


def test_a_picture_remembers_the_name_of_a_file_that_is_no_utf_8(tmp_path):
    settings = {"context": [{"image": os.fsdecode(b"caf\xe9.png")}]}
    write_picture(tmp_path / "picture.png", Image.new("RGB", (2, 2)), settings)
    assert read_settings(tmp_path / "picture.png") == settings


@pytest.mark.slow
def test_a_mesh_of_eight_devices_draws_the_picture_of_one(checkpoint, tmp_path):
    succeed(checkpoint, tmp_path / "one", "--prompt=thing", "--prompt=number", "--sheet=0")
    mesh = ["--mesh.data=2", "--mesh.fsdp=2", "--mesh.tensor=2"]
    arguments = [f"--checkpoint={checkpoint}", f"--out={tmp_path / 'eight'}", *QUICK_FLAGS, *mesh, "--sheet=0"]
    run_with_eight_devices("-m", "uno_jax.sample", *arguments, "--prompt=thing", "--prompt=number")
    assert sorted(written(tmp_path / "eight")) == sorted(written(tmp_path / "one"))
    for name in written(tmp_path / "one"):
        one, eight = (np.asarray(Image.open(tmp_path / out / name)).astype(int) for out in ("one", "eight"))
        assert np.abs(one - eight).max() <= 1
