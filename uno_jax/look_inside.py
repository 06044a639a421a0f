"""Looks inside checkpoints, side by side: what the generation expert computes of noised pictures.

    python -m uno_jax.look_inside --checkpoint=BEFORE --checkpoint=AFTER --data=DIR --out=DIR

See docs/look_inside.md.
"""

from __future__ import annotations

import sys
import typing
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from absl import flags
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from uno_jax.config import Dtype, json_file
from uno_jax.data.record import Record
from uno_jax.inference.picture_files import write_png
from uno_jax.inside.look import PARTS, Findings, Settings, look, step_count
from uno_jax.inside.questions import FEWEST, Question, questions_of
from uno_jax.inside.records import choose_records, evenly_spaced
from uno_jax.inside.report import report
from uno_jax.inside.sheets import aligned_maps, caption_sheet, layer_sheet, time_sheet
from uno_jax.inside.subject import Checkpoint, find_checkpoints, load_subject
from uno_jax.objectives.config import ObjectiveConfig
from uno_jax.objectives.losses import fixed_weights
from uno_jax.parallel.flags import define_mesh, mesh_config
from uno_jax.process.errors import UserError, exit_with_message
from uno_jax.process.files import atomic_file, check_folder
from uno_jax.process.flags import ValueParser, define_path, define_paths, parse_flags, section_of
from uno_jax.process.start_up import set_up_jax
from uno_jax.run.pictures import TASKS_WITH_TARGET

LAYERS = 7  # at most, without --layers
TIMES = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
REPORT = "look_inside.json"


def main(arguments: Sequence[str], console: Console | None = None) -> None:
    """Runs the command, and reports an error in one message."""
    options = flags.FlagValues()
    _define(options)
    parse_flags(options, arguments, command="look_inside", about=__doc__, required=("checkpoint", "data", "out"))
    console = console or Console(soft_wrap=True)
    set_up_jax()
    with exit_with_message():
        check_folder(Path(options.out))
        _look_inside(options, console)


def _define(options: flags.FlagValues) -> None:
    place = section_of(options, "checkpoints")
    note = "a run's workdir, one of its checkpoints, or a directory in the public layout; repeat it to compare"
    define_paths(options, "checkpoint", note, "checkpoints")
    flags.DEFINE_boolean("ema", False, "use the EMA of the trained parameters", **place)
    note = "dtype of the parameters and the computation; default: as stored and configured"
    flags.DEFINE_enum("dtype", None, typing.get_args(Dtype), note, **place)
    place = section_of(options, "pictures")
    define_path(options, "data", None, "directory of a prepared dataset", "pictures")
    flags.DEFINE_string("split", "test", "split of the dataset", **place)
    flags.DEFINE_enum("task", "text_to_image", TASKS_WITH_TARGET, "task of the records", **place)
    flags.DEFINE_integer("records", 256, "maximum number of records, evenly spaced", lower_bound=1, **place)
    note = "whether the noised pictures see their prompt and source pictures"
    flags.DEFINE_enum("context", "hidden", ["hidden", "visible"], note, **place)
    place = section_of(options, "what to look at")
    note = f"parts, separated by commas: {', '.join(PARTS)}; default: all"
    flags.DEFINE(ValueParser(_parts), "only", PARTS, note, **place)
    note = "states, such as 0,2,4: 0 is the input of the first layer, N the output of the N-th; default: at most seven"
    flags.DEFINE(ValueParser(_layers), "layers", None, note, **place)
    flags.DEFINE(ValueParser(_times), "times", TIMES, "times from 0 (clean) to 1 (noise)", **place)
    flags.DEFINE_integer("tokens", 64, "maximum tokens per picture for pca and probes", lower_bound=1, **place)
    flags.DEFINE_integer("caption_tokens", 48, "maximum length of a caption in tokens", lower_bound=2, **place)
    place = section_of(options, "output")
    define_path(options, "out", None, "folder of the sheets and of " + REPORT, "output")
    flags.DEFINE_integer("pictures", 6, "pictures on each sheet", lower_bound=1, **place)
    flags.DEFINE_integer("batch", 16, "pictures per forward pass", lower_bound=1, **place)
    define_mesh(options, "this host's devices")


def _parts(text: str) -> tuple[str, ...]:
    parts = tuple(dict.fromkeys(text.split(",")))
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise ValueError(f"{', '.join(map(repr, unknown))}: expected some of {', '.join(PARTS)}, separated by commas")
    return parts


def _layers(text: str) -> tuple[int, ...]:
    if not all(part.isdecimal() for part in text.split(",")):
        raise ValueError(f"{text!r}: expected whole numbers such as 0,2,4")
    return tuple(sorted({int(part) for part in text.split(",")}))


def _times(text: str) -> tuple[float, ...]:
    try:
        times = tuple(sorted({float(part) for part in text.split(",")}))
    except ValueError:
        times = (-1.0,)
    if not all(0 <= time <= 1 for time in times):
        raise ValueError(f"{text!r}: expected numbers from 0 to 1 such as 0.25,0.5,0.9")
    return times


def _look_inside(options: flags.FlagValues, console: Console) -> None:
    checkpoints = find_checkpoints(options.checkpoint)
    settings = _settings(options, checkpoints)
    records = choose_records(options.data, options.split, options.task, options.records)
    questions = _questions(records) if "probes" in settings.parts else []
    # All checkpoints are measured on the same losses: those of the last, which is the one that was trained on them.
    objective = checkpoints[-1].objective
    findings = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=step_count(settings) * len(checkpoints))
        for checkpoint in checkpoints:

            def on_step(what: str, name: str = checkpoint.name) -> None:
                progress.update(task, description=f"{name}: {what}", advance=1)

            subject = load_subject(checkpoint, ema=options.ema, dtype=options.dtype, mesh=mesh_config(options))
            findings.append(look(subject, records, questions, objective, settings, on_step))
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    content = report(_given(options), checkpoints, findings, records, questions, objective, settings)
    with atomic_file(out / REPORT) as temporary:
        temporary.write_bytes(json_file(content))
    names = [checkpoint.name for checkpoint in checkpoints]
    sheets = dict(_sheets(names, findings, records, settings)) | _charts(
        names, findings, questions, objective, settings
    )
    for name, sheet in sheets.items():
        (out / name).parent.mkdir(exist_ok=True)
        write_png(out / name, sheet)
    charts = "" if find_spec("matplotlib") else "; charts need matplotlib: pip install '.[study]'"
    console.print(f"{out}: {REPORT}, {len(sheets)} sheets{charts}", markup=False, highlight=False)


def _settings(options: flags.FlagValues, checkpoints: Sequence[Checkpoint]) -> Settings:
    """Returns what to look at.

    Raises:
      UserError: a checkpoint has fewer layers than `--layers` names.
    """
    layers = options.layers or tuple(evenly_spaced(min(each.states for each in checkpoints), LAYERS))
    for checkpoint in checkpoints:
        unknown = [str(layer) for layer in layers if layer >= checkpoint.states]
        if unknown:
            raise UserError(
                f"--layers names {', '.join(unknown)}, but {checkpoint.name} has the states 0 (the input of its first "
                f"layer) to {checkpoint.states - 1} (the output of its last layer)"
            )
    return Settings(
        parts=options.only,
        layers=layers,
        times=options.times,
        context=options.context == "visible",
        pictures=options.pictures,
        tokens=options.tokens,
        batch=options.batch,
        caption_tokens=options.caption_tokens,
    )


def _questions(records: Sequence[Record]) -> list[Question]:
    """Returns what to probe for.

    Raises:
      UserError: the records do not differ enough.
    """
    questions = questions_of(records)
    if not questions:
        others = ",".join(part for part in PARTS if part != "probes")
        raise UserError(
            f"nothing can be probed for: what is stated of the {len(records)} records holds for fewer than {FEWEST} "
            f"of them, or for all but fewer than {FEWEST}; give more --records, or omit probes by --only={others}"
        )
    return questions


def _given(options: flags.FlagValues) -> dict[str, Any]:
    """Returns the options of the command by name."""
    return {name: options[name].value for name in sorted(options)}


def _sheets(
    names: Sequence[str], findings: Sequence[Findings], records: Sequence[Record], settings: Settings
) -> Iterator[tuple[str, Image.Image]]:
    """Renders the sheets of pictures, by file name."""
    if "pca" in settings.parts:
        maps = aligned_maps(findings, settings)
        for time in settings.times:
            yield f"pca/layers_t{time:g}.png", layer_sheet(names, findings, maps, settings, time)
        for layer in settings.layers:
            yield f"pca/times_layer{layer}.png", time_sheet(names, findings, maps, settings, layer)
    if "captions" in settings.parts:
        prompts = [records[number].prompt for number in evenly_spaced(len(records), settings.pictures)]
        yield "captions.png", caption_sheet(names, findings, prompts, settings)


def _charts(
    names: Sequence[str],
    findings: Sequence[Findings],
    questions: Sequence[Question],
    objective: ObjectiveConfig,
    settings: Settings,
) -> dict[str, Image.Image]:
    """Draws the charts by file name; none without matplotlib."""
    try:
        from uno_jax.inside.charts import gradient_chart, probe_chart
    except ImportError:
        return {}
    charts = {
        f"probes_{question.name}.png": probe_chart(names, findings, question, number, settings)
        for number, question in enumerate(questions)
    }
    gradients = [found.gradients for found in findings if found.gradients is not None]
    if gradients:
        charts["gradients.png"] = gradient_chart(names, gradients, fixed_weights(objective))
    return charts


if __name__ == "__main__":
    main(sys.argv[1:])
