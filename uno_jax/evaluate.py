"""Public benchmarks, from a checkpoint to a table: `python -m uno_jax.evaluate`.

See docs/evaluation.md.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
from absl import flags
from rich.console import Console

from uno_jax.config import to_json
from uno_jax.evaluation.benchmark import IMAGES, Benchmark, BenchmarkError
from uno_jax.evaluation.gallery import write_gallery
from uno_jax.evaluation.generate import Finished, Job, check_samples, generate
from uno_jax.evaluation.judge.endpoint import KEY, Endpoint
from uno_jax.evaluation.judge.run import CACHE, FOLDER, Judged, judge_pictures
from uno_jax.evaluation.judge.texts import own_texts, read_texts
from uno_jax.evaluation.record import read_record
from uno_jax.evaluation.registry import BENCHMARKS
from uno_jax.evaluation.runs import read_runs
from uno_jax.evaluation.score import score_results
from uno_jax.evaluation.scorers.program import SCORERS
from uno_jax.evaluation.scorers.run import Settings, score_pictures
from uno_jax.evaluation.table import write_tables
from uno_jax.evaluation.understanding.compare import MARKDOWN, Model, check_unchanged, write_comparison
from uno_jax.evaluation.understanding.exam import Exam, Questions
from uno_jax.evaluation.understanding.parameters import fingerprints
from uno_jax.evaluation.understanding.registry import EXAMS
from uno_jax.evaluation.understanding.sitting import Sitting, sit
from uno_jax.evaluation.words import kept_words
from uno_jax.inference.generate import BATCH
from uno_jax.inference.options import changed_settings, define_changes, define_model, define_part, load_from_flags
from uno_jax.interop.identity import about_checkpoint, folder_name
from uno_jax.parallel.flags import define_hosts, joined_hosts
from uno_jax.process.errors import exit_with_message
from uno_jax.process.files import check_folder
from uno_jax.process.flags import (
    choose_command,
    define_fields,
    define_path,
    define_paths,
    field_values,
    parse_flags,
    section_of,
)
from uno_jax.process.signals import exit_on_signals
from uno_jax.process.start_up import set_up_jax


class Command(NamedTuple):
    """A subcommand."""

    run: Callable[[flags.FlagValues, Console], None]
    define: Callable[[flags.FlagValues], None]
    about: str
    required: tuple[str, ...]
    positional: tuple[str, ...] = ()


def main(arguments: Sequence[str], console: Console | None = None) -> None:
    """Runs a subcommand, and reports an error in one message."""
    name, command = choose_command("evaluate", _COMMANDS, arguments, __doc__)
    options = flags.FlagValues()
    command.define(options)
    parse_flags(options, arguments[1:], command=f"evaluate {name}", about=command.about, required=command.required)
    with exit_on_signals(), exit_with_message():
        command.run(options, console or Console(soft_wrap=True))


def _define_generate(options: flags.FlagValues) -> None:
    place = section_of(options, "benchmark")
    flags.DEFINE_enum("benchmark", None, list(BENCHMARKS), "the benchmark", **place)
    define_path(options, "data", None, "its prompt file as published, or the folder of it", "benchmark")
    note = "settings of the pictures: bagel as BAGEL published, ours as `sample`; default: the first of the benchmark"
    flags.DEFINE_string("preset", None, note, **place)
    flags.DEFINE_integer("samples", None, "pictures per prompt; default: as published", 1, 10_000, **place)
    flags.DEFINE_integer("items", None, "only the first N prompts; default: all", 1, **place)
    define_model(options)
    note = "name of the model in reports; default: the last folder of the checkpoint's path"
    flags.DEFINE_string("name", None, note, **section_of(options, "model"))
    define_path(options, "out", None, "folder of the pictures; existing ones are kept", "output")
    flags.DEFINE_integer("batch", BATCH, "pictures per batch", lower_bound=1, **section_of(options, "output"))
    define_part(options, "output")
    define_hosts(options)
    define_changes(options, "changes of the preset")


def _generate(options: flags.FlagValues, console: Console) -> None:
    set_up_jax()
    benchmark, out = BENCHMARKS[options.benchmark], Path(options.out)
    preset_name = options.preset or next(iter(benchmark.presets))
    if preset_name not in benchmark.presets:
        known = ", ".join(benchmark.presets)
        raise BenchmarkError(f"--preset is {preset_name!r}: {benchmark.name} has {known}")
    preset = benchmark.presets[preset_name]
    settings = changed_settings(options, preset.settings)
    changes = {name: value for name, value in to_json(settings).items() if to_json(preset.settings)[name] != value}
    preset = dataclasses.replace(preset, settings=settings)
    samples = check_samples(benchmark, preset, options.samples)
    name = _model_name(options.name or folder_name(options.checkpoint))
    data = benchmark.read(Path(options.data))
    data = data._replace(items=data.items[: options.items])
    check_folder(out)
    with joined_hosts(options) if options.part is None else contextlib.nullcontext():
        checkpoint = {**about_checkpoint(options.checkpoint), "ema": options.ema}
        generator = load_from_flags(options, preset.thoughts)
        job = Job(benchmark, data, preset_name, preset, changes, name, checkpoint, out, samples, options.batch)
        job = job if options.part is None else job._replace(part=options.part)
        finished = generate(job, generator, Path(options.data), console)
        if jax.process_index() == 0:
            _say_finished(finished, _scorer(benchmark, out, name), out, console)


def _say_finished(finished: Finished, scorer: str, out: Path, console: Console) -> None:
    elsewhere = f", {finished.missing:,} missing (of other parts)" if finished.missing else ""
    lines = [f"{out}: {finished.generated:,} generated, {finished.kept:,} kept{elsewhere}"]
    if not finished.missing:
        lines.append(f"score them with: {scorer}")
    for line in lines:
        console.print(line, markup=False, highlight=False)


def _model_name(name: str) -> str:
    if not re.fullmatch(r"[\w-][\w.-]*", name):
        raise BenchmarkError(
            f"--name is {name!r}: expected letters, digits, '-', '_' and '.', because it names a folder"
        )
    return name


def _scorer(benchmark: Benchmark, out: Path, name: str) -> str:
    return benchmark.scorer.format(images=out / IMAGES, name=name)


def _define_score(options: flags.FlagValues) -> None:
    define_path(options, "out", None, "folder that `evaluate generate` has written; receives score.json", "scores")
    define_paths(options, "results", "file that the official scorer has written, or a folder of such files", "scores")
    note = "judge or detector with its version and date, for reports; default: as --judge_url states it"
    flags.DEFINE_string("judge", None, note, **section_of(options, "scores"))
    place = section_of(options, "a judge that is asked now, in place of --results")
    note = f"base URL of an endpoint in OpenAI's format, such as http://localhost:8000/v1; its key is in {KEY}"
    flags.DEFINE_string("judge_url", None, note, **place)
    flags.DEFINE_string("judge_model", None, "name of the model at this endpoint", **place)
    note = "JSON file of texts for the judge by name, such as ImgEdit's prompts.json; default: own, if there are any"
    define_path(options, "judge_prompts", None, note, place["module_name"])
    define_path(options, "data", None, "prompt file of the benchmark as for `generate`", place["module_name"])
    flags.DEFINE_integer("judge_jobs", 8, "questions at a time", 1, 1000, **place)
    define_fields(options, Endpoint("", "", Path()), _ENDPOINT, place["module_name"], "judge_")
    place = section_of(options, "a scorer from PyPI, in place of --results")
    known = "; ".join(f"{name}: {each.title} ({each.package}, {each.tried})" for name, each in SCORERS.items())
    flags.DEFINE_enum("scorer", None, list(SCORERS), f"the scorer: {known}", **place)
    note = "the Python of an environment that has it, such as scorers/bin/python"
    define_path(options, "python", sys.executable, note, place["module_name"])
    note = "folder of pictures to compare with, for a scorer that compares sets"
    define_path(options, "reference", None, note, place["module_name"])
    note = ", ".join(f"{scorer.weights} ({name})" for name, scorer in SCORERS.items())
    define_path(options, "weights", None, f"{note}; default: what the scorer loads", place["module_name"])
    note = "pixels that all pictures are resized and cropped to before sets are compared; 0: as they are"
    flags.DEFINE_integer("side", 0, note, 0, 10_000, **place)


def _score(options: flags.FlagValues, console: Console) -> None:
    out, files = Path(options.out), [Path(path) for path in options.results]
    if sum(map(bool, (files, options.judge_url, options.scorer))) != 1:
        raise BenchmarkError("give --results of the official scorer, a --judge_url to ask, or a --scorer")
    if files:
        content = score_results(out, files, options.judge)
    elif options.scorer:
        reference = None if options.reference is None else Path(options.reference)
        settings = Settings(options.scorer, Path(options.python), reference, options.weights, options.side)
        content = score_pictures(out, settings, console)
    else:
        judged, words = _judged(options, out, console)
        content = score_results(out, judged.files, options.judge or judged.judge, judged.about, words)
    lines = [f"{name}: {value:.4f}" for name, value in content["averages"].items()]
    lines += [f"  {name}: {value:.4f}" for name, value in content["categories"].items()]
    failed = f", {content['failed']:,} failed" if content["failed"] else ""
    lines.append(f"{content['items_scored']:,} of {content['items_expected']:,} items scored{failed}")
    for line in lines:
        console.print(line, markup=False, highlight=False)


def _judged(options: flags.FlagValues, out: Path, console: Console) -> tuple[Judged, dict[str, str]]:
    """Asks the judge of the flags about the pictures of a folder. Also returns its words by item."""
    missing = [name for name in ("judge_model", "data") if options[name].value is None]
    if missing:
        raise BenchmarkError(f"--judge_url also needs --{', --'.join(missing)}")
    record = read_record(out)
    name = record.head["benchmark"]
    benchmark = BENCHMARKS.get(name)
    if benchmark is None or benchmark.judging is None:
        known = ", ".join(each.name for each in BENCHMARKS.values() if each.judging is not None)
        raise BenchmarkError(f"{out}: pictures of {name} are not judged here, only those of {known}; use its scorer")
    judging, prompts = benchmark.judging, options.judge_prompts
    if prompts is None and not judging.texts:
        raise BenchmarkError(f"--judge_url also needs --judge_prompts: there are no texts for {name} here")
    items = {item.id: item for item in benchmark.read(Path(options.data)).items}
    unknown = [item.id for item in record.items if item.id not in items or items[item.id].prompt != item.prompt]
    if unknown:
        raise BenchmarkError(f"{options.data}: item {unknown[0]} is not as in {out}; give the data it was made from")
    texts = own_texts(judging.texts) if prompts is None else read_texts(Path(prompts))
    settings = field_values(options, _ENDPOINT, "judge_")
    endpoint = Endpoint(options.judge_url, options.judge_model, out / FOLDER / CACHE, **settings)
    data, jobs = Path(options.data), options.judge_jobs
    judging, words = kept_words(judging)
    return judge_pictures(data, out, record, items, judging, texts, endpoint, jobs, console), words


_ENDPOINT = {
    "temperature": "temperature of its answers",
    "max_tokens": "maximum tokens of an answer",
    "retries": "repetitions of a request after a lost connection or status 408, 409, 429 or 5xx, with growing waits",
    "timeout": "maximum seconds of a request",
}


def _define_report(options: flags.FlagValues) -> None:
    define_paths(options, "run", "folder that `evaluate generate` has written, once per folder", "report")
    define_path(options, "out", None, "folder of table.md, table.csv, table.json, table.tex and gallery.html", "report")
    note = "prompts per benchmark in gallery.html, evenly spaced; 0: no gallery"
    flags.DEFINE_integer("gallery", 60, note, 0, 10_000, **section_of(options, "report"))


def _report(options: flags.FlagValues, console: Console) -> None:
    out = Path(options.out)
    check_folder(out)
    runs = read_runs([Path(path) for path in options.run])
    out.mkdir(parents=True, exist_ok=True)
    write_tables(out, runs)
    if options.gallery:
        write_gallery(out / "gallery.html", runs, options.gallery)
    console.print((out / "table.md").read_text(), markup=False, highlight=False)


def _define_understanding(options: flags.FlagValues) -> None:
    for exam in EXAMS.values():
        define_path(options, exam.name, None, f"{exam.about}: {exam.data}", "exams")
    note = "only the first N questions of each exam; default: all"
    flags.DEFINE_integer("items", None, note, 1, **section_of(options, "exams"))
    define_model(options)
    note = "a checkpoint to compare with, such as the one that post-training started from; never its EMA"
    define_path(options, "before", None, note, "model")
    note = "fail unless everything that answers depend on, and every answer, is as before"
    flags.DEFINE_boolean("unchanged", False, note, **section_of(options, "model"))
    define_path(options, "out", None, "folder of the answers; existing ones are kept", "output")
    note = "questions per batch; answers depend on it by rounding"
    flags.DEFINE_integer("batch", BATCH, note, lower_bound=1, **section_of(options, "output"))


def _understanding(options: flags.FlagValues, console: Console) -> None:
    set_up_jax()
    out, given = Path(options.out), {name: path for name in EXAMS if (path := options[name].value)}
    if not given:
        raise BenchmarkError(f"no exam: give the data of at least one, as --{' or --'.join(EXAMS)}")
    if options.unchanged and options.before is None:
        raise BenchmarkError("--unchanged compares with --before, which is missing")
    questions = {name: EXAMS[name].read(Path(path)) for name, path in given.items()}
    exams = [(EXAMS[name], each._replace(items=each.items[: options.items])) for name, each in questions.items()]
    check_folder(out)
    before = None if options.before is None else _sat(options, exams, console, options.before)
    after = _sat(options, exams, console, None)
    write_comparison(out, after, before)
    console.print((out / MARKDOWN).read_text(), markup=False, highlight=False)
    if before is not None:
        check_unchanged(before, after, required=options.unchanged)


def _sat(
    options: flags.FlagValues, exams: Sequence[tuple[Exam, Questions]], console: Console, other: str | None
) -> Model:
    """Lets a model sit all exams: `other`, or that of the flags. It is in memory only while it does."""
    path, folder = (options.checkpoint, "after") if other is None else (other, "before")
    checkpoint = {**about_checkpoint(path), "ema": options.ema and other is None}
    reader = load_from_flags(options, other=other).reader
    console.print(f"{folder}: {reader.model.name}", markup=False, highlight=False)
    sat = {
        exam.name: sit(
            Sitting(exam, questions, reader, checkpoint, Path(options.out) / folder / exam.name, options.batch), console
        )
        for exam, questions in exams
    }
    return Model(folder_name(path), checkpoint, fingerprints(reader.model), sat)


_COMMANDS = {
    "generate": Command(
        _generate,
        _define_generate,
        "Generates the pictures of a benchmark, in the folders that its official scorer reads.",
        ("benchmark", "data", "checkpoint", "out"),
    ),
    "score": Command(
        _score,
        _define_score,
        "Computes averages from what the official scorer has written, or from what a judge or a scorer says now.",
        ("out",),
    ),
    "report": Command(
        _report,
        _define_report,
        "Writes one table over checkpoints and benchmarks, and a page that shows pictures side by side.",
        ("run", "out"),
    ),
    "understanding": Command(
        _understanding,
        _define_understanding,
        "Asks questions about pictures, to one checkpoint or to those before and after post-training.",
        ("checkpoint", "out"),
    ),
}


if __name__ == "__main__":
    main(sys.argv[1:])
