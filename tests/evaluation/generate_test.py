"""`evaluate generate`: folders that official scorers read, made on the small model."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.evaluate_command import QUICK_FLAGS, fail, succeed
from tests.helpers.hosts import Hosts
from tests.helpers.published import (
    DPG,
    GENEVAL,
    encoded_picture,
    write_dpg,
    write_gedit,
    write_geneval,
    write_geneval2,
    write_imgedit,
    write_kris,
    write_rise,
    write_unigen,
    write_wise,
)
from tests.helpers.small_loaded import QUICK, save_small_checkpoint, small_generator
from uno_jax.evaluation.benchmark import seed_of
from uno_jax.inference.picture_settings import PictureSettings

pytestmark = pytest.mark.usefixtures("quick_compiles")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return save_small_checkpoint(tmp_path_factory.mktemp("evaluate") / "checkpoint")


def generate(checkpoint: Path, name: str, data: Path, out: Path, *more: str) -> str:
    return succeed(
        "generate",
        f"--benchmark={name}",
        f"--data={data}",
        f"--checkpoint={checkpoint}",
        f"--out={out}",
        *QUICK_FLAGS,
        *more,
    )


def files_of(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def assert_same_picture(one: Path, two: Path) -> None:
    """Compares pictures of another batch, which may differ by rounding."""
    first, second = (np.asarray(Image.open(file)).astype(int) for file in (one, two))
    assert np.abs(first - second).max() <= 1


@pytest.fixture(scope="module")
def geneval(checkpoint, tmp_path_factory) -> tuple[Path, str]:
    """The folder of GenEval with two pictures per prompt, and what was printed."""
    folder = tmp_path_factory.mktemp("geneval")
    write_geneval(folder / "prompts")
    printed = generate(checkpoint, "geneval", folder, folder / "out", "--samples=2", "--batch=3")
    return folder / "out", printed


def test_geneval_has_a_folder_per_prompt_with_its_record_and_samples(geneval):
    out, _ = geneval
    assert files_of(out / "images") == [
        f"{number:05d}/{file}"
        for number in range(3)
        for file in ("metadata.jsonl", "samples/00000.png", "samples/00001.png")
    ]
    for number, record in enumerate(GENEVAL):
        assert json.loads((out / f"images/{number:05d}/metadata.jsonl").read_text()) == record


def test_the_cost_is_printed(geneval):
    _, printed = geneval
    assert "geneval: 6 pictures (3 items, 2 each), 6 to make, 0 present" in printed
    assert "the prompt file has 3 items, but 553 were published" in printed
    assert re.search(r"the first batch of 3 took [\d.]+ s, with compilation; \d+ s left at this pace", printed)
    assert "6 of 6:" in printed
    assert "s a picture, 0 s left" in printed


def test_a_picture_is_that_of_its_seed(geneval):
    out, _ = geneval
    settings = PictureSettings(**QUICK, image_scale=1.0, interval=(0.0, 1.0))
    [drawing] = small_generator().generate_images(["number"], settings, seeds=[seed_of("geneval", "00001", 1)])
    picture = np.asarray(Image.open(out / "images/00001/samples/00001.png")).astype(int)
    assert np.abs(picture - np.asarray(drawing.image)).max() <= 1


def test_a_seed_depends_on_benchmark_item_and_sample():
    assert seed_of("geneval", "00001", 1) == seed_of("geneval", "00001", 1)
    seeds = {seed_of(*each) for each in [("a", "1", 0), ("b", "1", 0), ("a", "2", 0), ("a", "1", 1)]}
    assert len(seeds) == 4


def test_the_record_says_what_the_pictures_depend_on(geneval, checkpoint):
    out, _ = geneval
    record = json.loads((out / "record.json").read_text())
    assert record["benchmark"] == "geneval"
    assert record["preset"] == "bagel"
    assert record["name"] == "checkpoint"
    assert len(record["checkpoint"]["sha256"]) == 64
    assert record["checkpoint"]["ema"] is False
    assert record["dtype"] == "float32"
    expected = {"text_scale": 4.0, "image_scale": 1.0, "interval": [0.0, 1.0], "timesteps": 3, "think": False}
    assert {name: record["settings"][name] for name in expected} == expected
    assert record["data"]["items_published"] == 553
    assert (record["items_made"], record["items_expected"]) == (3, 3)
    assert record["versions"]["jax"]
    assert record["pictures"][3] == {
        "item": "00001",
        "sample": 1,
        "seed": seed_of("geneval", "00001", 1),
        "file": "images/00001/samples/00001.png",
    }
    assert str(checkpoint.parent) not in json.dumps(record)


def test_it_continues_where_it_stopped(geneval, checkpoint, tmp_path):
    out, _ = geneval
    data = write_geneval(tmp_path)
    generate(checkpoint, "geneval", data, tmp_path / "out", "--samples=2", "--items=1", "--batch=3")
    (tmp_path / "out/images/00000/samples/00001.png").unlink()
    printed = generate(checkpoint, "geneval", data, tmp_path / "out", "--samples=2", "--batch=3")
    assert "5 to make, 1 present" in printed
    for name in files_of(out / "images"):
        if name.endswith(".png"):
            assert_same_picture(out / "images" / name, tmp_path / "out/images" / name)


def test_other_settings_do_not_mix_with_existing_pictures(geneval, checkpoint):
    out, _ = geneval
    message = fail(
        "generate",
        "--benchmark=geneval",
        f"--data={out.parent}",
        f"--checkpoint={checkpoint}",
        f"--out={out}",
        *QUICK_FLAGS,
        "--text_scale=3",
    )
    assert "has pictures with settings.text_scale 4.0, not 3.0; give another --out" in message


def test_fewer_pictures_of_a_prompt_are_refused_because_scorers_read_all(geneval, checkpoint):
    out, _ = geneval
    flags = ("--benchmark=geneval", f"--data={out.parent}", f"--checkpoint={checkpoint}", f"--out={out}")
    message = fail("generate", *flags, *QUICK_FLAGS, "--samples=1")
    assert "has 2 pictures of each prompt, not 1; give another --out" in message


def test_processes_share_the_items(checkpoint, tmp_path):
    data = write_geneval(tmp_path)
    first = generate(checkpoint, "geneval", data, tmp_path / "out", "--samples=1", "--part=0/2")
    assert "2 generated, 0 kept, 1 missing (of other parts)" in first
    second = generate(checkpoint, "geneval", data, tmp_path / "out", "--samples=1", "--part=1/2")
    assert "1 generated, 0 kept\n" in second
    assert json.loads((tmp_path / "out/record.json").read_text())["pictures_made"] == 3


def on_two_hosts(checkpoint: Path, data: Path, out: Path, *more: str) -> Hosts:
    command = ["-m", "uno_jax.evaluate", "generate", "--benchmark=geneval", f"--data={data}", f"--out={out}"]
    more = (f"--checkpoint={checkpoint}", "--batch=1", *QUICK_FLAGS, *more)
    return Hosts([*command, *more], hosts=2, devices=1, settings={"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"})


def test_hosts_share_what_is_missing_and_one_writes_the_record(geneval, checkpoint, tmp_path):
    """A picture of two existing ones is missing, so that one host would have nothing to do if they shared all items."""
    alone, _ = geneval
    out = tmp_path / "out"
    data = write_geneval(tmp_path)
    generate(checkpoint, "geneval", data, out, "--samples=2", "--items=1", "--batch=1")
    ended = on_two_hosts(checkpoint, data, out, "--samples=2").wait()
    assert [host.status for host in ended] == [0, 0], "\n".join(host.printed for host in ended)
    for number, host in enumerate(ended):
        assert f"6 pictures (3 items, 2 each), 4 to make, 2 here (host {number} of 2), 2 present" in host.printed
    assert f"{out}: 4 generated, 2 kept" in ended[0].printed
    assert files_of(out) == files_of(alone)
    record = json.loads((out / "record.json").read_text())
    assert (record["items_made"], record["pictures_made"], record["samples"]) == (3, 6, 2)
    assert record["pictures"] == json.loads((alone / "record.json").read_text())["pictures"]
    for name in files_of(out / "images"):
        if name.endswith(".png"):
            assert_same_picture(out / "images" / name, alone / "images" / name)


@pytest.mark.slow
def test_pictures_of_the_others_stay_when_a_host_dies_and_the_same_command_makes_the_rest(checkpoint, tmp_path):
    out, data, more = tmp_path / "out", write_geneval(tmp_path), ("--samples=40", "--host_timeout=5")
    running = on_two_hosts(checkpoint, data, out, *more)
    while not all(list((out / f"images/0000{host}/samples").glob("0*.png")) for host in range(2)):
        assert running.processes[1].poll() is None, running.wait()
        time.sleep(0.01)
    running.processes[1].kill()
    first, _ = running.wait()
    assert first.status == 1
    assert "host 1 of 2: no answer for 5 s" in first.printed
    made = {file: file.stat().st_mtime_ns for file in out.rglob("0*.png") if not file.name.startswith(".")}
    assert 2 <= len(made) < 120
    again = on_two_hosts(checkpoint, data, out, *more).wait()
    assert [host.status for host in again] == [0, 0], "\n".join(host.printed for host in again)
    assert f"{120 - len(made)} generated, {len(made)} kept" in again[0].printed
    assert {file: file.stat().st_mtime_ns for file in made} == made
    assert json.loads((out / "record.json").read_text())["pictures_made"] == 120
    assert json.loads((out / "images/00001/metadata.jsonl").read_text()) == GENEVAL[1]


def test_dpg_has_a_grid_of_four_samples_per_prompt_and_nothing_else(checkpoint, tmp_path):
    generate(checkpoint, "dpg", write_dpg(tmp_path / "data"), tmp_path / "out", "--batch=3", "--nothink")
    assert files_of(tmp_path / "out/images") == sorted(f"{name}.png" for name in DPG)
    grid = np.asarray(Image.open(tmp_path / "out/images/1234.png"))
    for number, (row, column) in enumerate([(0, 0), (0, 16), (16, 0), (16, 16)]):
        sample = np.asarray(Image.open(tmp_path / f"out/samples/1234_{number}.png"))
        assert np.array_equal(grid[row : row + 16, column : column + 16], sample)
    record = json.loads((tmp_path / "out/record.json").read_text())
    assert record["prefix"] == "Generate an image: "
    assert record["settings"]["text_scale"] == 3.0


def test_geneval2_has_a_picture_for_each_prompt_of_its_object(checkpoint, tmp_path):
    generate(checkpoint, "geneval2", write_geneval2(tmp_path / "data"), tmp_path / "out")
    paths = json.loads((tmp_path / "out/image_paths.json").read_text())
    assert list(paths) == ["thing", "two numbers"]
    for path in paths.values():
        with Image.open(path) as picture:
            assert (picture.format, picture.mode) == ("PNG", "RGB")


def test_unigen_has_four_pictures_per_index_by_kind_and_model(checkpoint, tmp_path):
    data = write_unigen(tmp_path / "data")
    generate(checkpoint, "unigen_en", data, tmp_path / "out", "--name=mine", "--batch=8")
    assert files_of(tmp_path / "out/images") == sorted(
        f"en/mine/{index}_{sample}.png" for index in (0, 509) for sample in range(4)
    )


def test_wise_has_a_picture_per_prompt_id(checkpoint, tmp_path):
    generate(checkpoint, "wise", write_wise(tmp_path / "data"), tmp_path / "out", "--batch=3")
    ids = [1, 400, 401, 568, 701, 801, 901]
    assert files_of(tmp_path / "out/images") == sorted(f"{number}.png" for number in ids)


def test_gedit_has_an_edit_and_its_source_by_kind_and_language(checkpoint, tmp_path):
    data = write_gedit(tmp_path / "data")
    generate(checkpoint, "gedit_en", data, tmp_path / "out", "--name=mine", "--size=16x16")
    folder = tmp_path / "out/images/mine/fullset"
    assert files_of(folder) == [
        "color_alter/en/0a1b.png",
        "color_alter/en/0a1b_SRCIMG.png",
        "subject-add/en/2c3d.png",
        "subject-add/en/2c3d_SRCIMG.png",
    ]
    assert (folder / "color_alter/en/0a1b_SRCIMG.png").read_bytes() == encoded_picture((10, 200, 30))
    with Image.open(tmp_path / "out/sources/color_alter/0a1b.png") as source:
        assert source.size == (24, 16)


def test_imgedit_has_an_edit_per_key(checkpoint, tmp_path):
    data = write_imgedit(tmp_path / "data")
    generate(checkpoint, "imgedit", data, tmp_path / "out", "--size=16x16")
    assert files_of(tmp_path / "out/images") == ["412.png", "7.png"]
    assert files_of(tmp_path / "out/sources") == ["412.jpg", "7.jpg"]


def test_kris_has_an_edit_by_category_at_the_size_of_its_first_picture(checkpoint, tmp_path):
    data = write_kris(tmp_path / "data")
    Image.new("RGB", (16, 24)).save(data / "multi-element_composition/7_2.png")
    generate(checkpoint, "kris", data, tmp_path / "out", "--name=mine")
    assert files_of(tmp_path / "out/images/mine") == [
        "multi-element_composition/7.png",
        "physics/1.png",
        "physics/2.png",
    ]
    assert "multi-element_composition/7_1.png" in files_of(tmp_path / "out/sources")
    with Image.open(tmp_path / "out/images/mine/multi-element_composition/7.png") as picture:
        assert picture.width > picture.height


def test_rise_has_an_edit_by_category(checkpoint, tmp_path):
    generate(checkpoint, "rise", write_rise(tmp_path / "data"), tmp_path / "out", "--name=mine", "--size=16x16")
    assert files_of(tmp_path / "out/images/mine/images") == [
        "logical_reasoning/logical_reasoning_9.png",
        "temporal_reasoning/temporal_reasoning_1.png",
    ]
