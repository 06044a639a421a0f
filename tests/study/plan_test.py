"""The units of a study follow from its config."""

from __future__ import annotations

import dataclasses
import json

from tests.helpers.made_up_study import CONFIG, make_up
from uno_jax.study.config import BEFORE, Arm, BasePlan, StudyConfig
from uno_jax.study.plan import STAGES, Chosen, Study, units
from uno_jax.study.unit import Unit, specification


def named(config: StudyConfig, folder) -> dict[str, Unit]:
    return {unit.name: unit for unit in units(Study(config, folder))}


def test_units_come_in_the_order_of_the_stages_and_after_those_that_they_need(tmp_path):
    listed = units(Study(CONFIG, tmp_path))
    assert [STAGES.index(unit.stage) for unit in listed] == sorted(STAGES.index(unit.stage) for unit in listed)
    seen: set[str] = set()
    for unit in listed:
        assert set(unit.inputs) <= set(unit.needs) <= seen
        seen.add(unit.name)


def test_every_arm_is_run_from_every_base_with_its_number_of_seeds(tmp_path):
    runs = [name for name, unit in named(CONFIG, tmp_path).items() if unit.stage == "runs"]
    pairs = {arm: {name.split("/")[2] for name in runs if f"/{arm}/" in name} for arm in ("sft", "uno", "reca")}
    assert pairs["sft"] == pairs["uno"] == {"b0s0", "b0s1", "b1s0", "b1s1"}
    assert pairs["reca"] == {"b0s0", "b1s0"}


def test_an_arm_may_have_more_steps_than_the_others(tmp_path):
    config = dataclasses.replace(CONFIG, arms=(*CONFIG.arms, Arm("longer", "scenes_sft", steps=2 * CONFIG.steps)))
    found = named(config, tmp_path)
    assert [found[f"runs/{arm}/b0s0"].amount for arm in ("sft", "longer")] == [CONFIG.steps, 2 * CONFIG.steps]
    curve = {name.split("/scores/")[1] for name in found if name.startswith("runs/longer/b0s0/scores/step")}
    assert {name.split("/")[0] for name in curve} == {"step000050", "step000100", "step000150", "step000200"}


def test_arms_of_a_pair_draw_the_same_and_other_pairs_and_tuning_draw_otherwise(tmp_path):
    study = make_up(tmp_path)

    def seeds(name: str) -> tuple[int, int]:
        fields = named(CONFIG, tmp_path)[name].determined_by(study.done)
        return fields["seed"], fields["data.seed"]

    same, other, tuned = seeds("runs/sft/b0s1"), seeds("runs/sft/b1s1"), seeds("tune/sft/g00")
    assert seeds("runs/uno/b0s1") == same
    assert len({same, other, tuned}) == 3


def test_a_final_run_has_the_changes_that_tuning_chose(tmp_path):
    study = make_up(tmp_path)
    right = {key: study.done.result(unit)["right"] for key, unit in study.grid_scores("uno").items()}
    point, scale = max(right, key=right.__getitem__)
    assert study.chosen("uno") == Chosen(study.arm("uno").grid[point], scale)


def set_right(study: Study, arm: str, rights: dict[tuple[int, float], int]) -> None:
    for key, right in rights.items():
        file = study.folder / study.grid_scores(arm)[key] / "result.json"
        file.write_text(json.dumps({"result": {"right": right, "lines": 30}, "seconds": 1}))


def test_of_equal_points_the_first_is_chosen(tmp_path):
    study = make_up(tmp_path)
    set_right(study, "sft", {(0, 1.0): 7, (0, 2.0): 9, (1, 1.0): 9, (1, 2.0): 3})
    assert study.chosen("sft") == Chosen(study.arm("sft").grid[0], 2.0)


def test_an_arm_without_a_grid_is_run_as_it_is_configured(tmp_path):
    assert make_up(tmp_path).chosen("reca") == Chosen((), 1.0)


def test_a_run_follows_the_choice_and_not_how_it_was_made(tmp_path):
    study = make_up(tmp_path)
    unit = named(CONFIG, tmp_path)["runs/sft/b0s0"]
    set_right(study, "sft", {(0, 1.0): 9, (0, 2.0): 1, (1, 1.0): 1, (1, 2.0): 1})
    first = specification(unit, study.done)
    set_right(study, "sft", {(0, 1.0): 1, (0, 2.0): 9, (1, 1.0): 1, (1, 2.0): 1})  # another scale, the same changes
    assert specification(unit, study.done) == first
    set_right(study, "sft", {(0, 1.0): 1, (0, 2.0): 1, (1, 1.0): 9, (1, 2.0): 1})
    assert specification(unit, study.done) != first


def test_without_grids_nothing_is_tuned(tmp_path):
    plain = dataclasses.replace(CONFIG, arms=tuple(dataclasses.replace(arm, grid=()) for arm in CONFIG.arms))
    assert not [unit for unit in units(Study(plain, tmp_path)) if unit.stage == "tune"]


def test_a_new_arm_changes_no_unit_of_the_others(tmp_path):
    more = dataclasses.replace(CONFIG, arms=(*CONFIG.arms, Arm("mine", "openmoji_uno")))
    study = make_up(tmp_path)
    before, after = named(CONFIG, tmp_path), named(more, tmp_path)
    assert before.keys() < after.keys()
    assert all(
        specification(before[n], study.done) == specification(after[n], study.done) for n in before if n != "data"
    )


def test_a_given_checkpoint_is_the_only_base(tmp_path):
    given = dataclasses.replace(CONFIG, base=BasePlan(checkpoint="runs/somewhere", count=2))
    names = [name for name, unit in named(given, tmp_path).items() if unit.stage == "base"]
    assert names == ["base/b0/given"]
    assert {name.split("/")[2] for name in named(given, tmp_path) if name.startswith("runs/sft/")} >= {"b0s0", "b0s1"}


def test_the_guidance_scale_of_the_bases_is_tuned_with_the_arms(tmp_path):
    study = make_up(tmp_path)
    assert study.tuned() == [BEFORE, "sft", "uno"]
    assert study.chosen(BEFORE).scale in CONFIG.tuning.scales
