"""Published files, read as published: items, categories, and where the official scorer looks for pictures."""

from __future__ import annotations

import json

import pytest

from tests.helpers.published import (
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
from uno_jax.evaluation.benchmark import BenchmarkError, seed_of
from uno_jax.evaluation.generate import check_samples
from uno_jax.evaluation.registry import BENCHMARKS


def read(name: str, path) -> dict[str, tuple[str, str]]:
    """Item -> category, and path of its last picture."""
    benchmark = BENCHMARKS[name]
    items = benchmark.read(path).items
    last = benchmark.samples - 1
    return {item.id: (item.category, benchmark.picture(item, last, "mine")) for item in items}


@pytest.mark.parametrize(
    ("name", "write", "expected"),
    [
        ("geneval", write_geneval, {"00001": ("counting", "images/00001/samples/00003.png")}),
        ("dpg", write_dpg, {"partiprompts9": ("partiprompts", "samples/partiprompts9_3.png")}),
        ("wise", write_wise, {"568": ("spatio-temporal_reasoning / any", "images/568.png")}),
        ("gedit_cn", write_gedit, {"color_alter/0a1b": ("color_alter", "images/mine/fullset/color_alter/cn/0a1b.png")}),
        ("imgedit", write_imgedit, {"412": ("remove", "images/412.png")}),
        ("kris", write_kris, {"physics/1": ("physics", "images/mine/physics/1.png")}),
        (
            "rise",
            write_rise,
            {
                "logical_reasoning_9": (
                    "logical_reasoning",
                    "images/mine/images/logical_reasoning/logical_reasoning_9.png",
                )
            },
        ),
        ("unigen_en", write_unigen, {"0": ("Style", "images/en/mine/0_3.png")}),
        ("geneval2", write_geneval2, {"00001": ("10 atoms", "images/00001.png")}),
    ],
)
def test_a_picture_goes_where_the_scorer_looks_for_it(tmp_path, name, write, expected):
    path = write(tmp_path / "data")
    assert expected.items() <= read(name, path).items()


def test_categories_of_unigen_that_are_not_json_do_not_hide_a_prompt(tmp_path):
    assert read("unigen_en", write_unigen(tmp_path))["509"][0] == "unreadable category"


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("geneval", "evaluation_metadata_long.jsonl"),
        ("geneval_long", "evaluation_metadata.jsonl"),
        ("wise", "natural_science_verified.json"),
        ("wise_verified", "natural_science.json"),
        ("unigen_en", "test_prompts_en_long.csv"),
    ],
)
def test_the_file_of_another_variant_is_refused(tmp_path, name, file):
    (tmp_path / file).write_text("{}")
    with pytest.raises(BenchmarkError, match="belongs to"):
        BENCHMARKS[name].read(tmp_path / file)


def test_both_protocols_of_wise_may_lie_in_one_folder(tmp_path):
    write_wise(tmp_path)
    write_wise(tmp_path, "_verified")
    files = [file.name for file in BENCHMARKS["wise_verified"].read(tmp_path).files]
    assert all("_verified" in name for name in files)
    assert len(read("wise", tmp_path)) == 7


def test_an_item_that_occurs_twice_is_refused(tmp_path):
    for name in ("cultural_common_sense", "natural_science"):
        record = {"Prompt": "x", "Category": "a", "Subcategory": "b", "prompt_id": 1}
        (tmp_path / f"{name}.json").write_text(json.dumps([record]))
    with pytest.raises(BenchmarkError, match="item '1' is also at"):
        BENCHMARKS["wise"].read(tmp_path)


def test_imgedit_has_the_pictures_to_edit_as_they_are(tmp_path):
    data = write_imgedit(tmp_path / "data")
    benchmark = BENCHMARKS["imgedit"]
    items = benchmark.read(data).items
    benchmark.unpack(data, tmp_path / "out", items, "mine")
    source = tmp_path / "out" / items[0].source
    assert source.name == "412.jpg"
    assert source.read_bytes() == encoded_picture((200, 40, 40), "JPEG")


def test_geneval2_has_an_object_from_prompts_to_pictures(tmp_path):
    data = write_geneval2(tmp_path)
    benchmark = BENCHMARKS["geneval2"]
    benchmark.unpack(data, tmp_path, benchmark.read(data).items, "mine")
    paths = json.loads((tmp_path / "image_paths.json").read_text())
    assert paths["two numbers"] == str(tmp_path / "images/00001.png")


def test_a_preset_may_have_more_pictures_of_a_prompt():
    geneval = BENCHMARKS["geneval"]
    assert check_samples(geneval, geneval.presets["reca"], None) == 12
    assert check_samples(geneval, geneval.presets["bagel"], None) == 4
    assert check_samples(geneval, geneval.presets["reca"], 2) == 2


def test_seeds_of_all_pictures_of_a_benchmark_differ():
    seeds = {seed_of("geneval", f"{item:05d}", sample) for item in range(553) for sample in range(4)}
    assert len(seeds) == 553 * 4


def test_an_edit_of_kris_may_have_several_pictures(tmp_path):
    path, out = write_kris(tmp_path / "data"), tmp_path / "out"
    items = BENCHMARKS["kris"].read(path).items
    BENCHMARKS["kris"].unpack(path, out, items, "mine")
    [item] = [item for item in items if item.more]
    assert (item.source, item.more) == (
        "sources/multi-element_composition/7_0.png",
        ("sources/multi-element_composition/7_1.png",),
    )
    assert all((out / file).is_file() for file in (item.source, *item.more))


def test_a_missing_picture_of_an_edit_is_named(tmp_path):
    path = write_rise(tmp_path / "data")
    (path / "temporal_reasoning_images/temporal_reasoning_1.png").unlink()
    items = BENCHMARKS["rise"].read(path).items
    with pytest.raises(BenchmarkError, match="temporal_reasoning_1.png; download the whole folder data"):
        BENCHMARKS["rise"].unpack(path, tmp_path / "out", items, "mine")
