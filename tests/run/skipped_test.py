"""The list of skipped samples, and its warnings."""

import io
import json

import rich.console

from uno_jax.data.samples import Skipped
from uno_jax.run.skipped import SkippedFile


def skip(number: int) -> Skipped:
    message = f"record 'r{number}' is long: increase data.caption_tokens"
    return Skipped(f"r{number}", "caption_tokens", message, (("caption", 300 + number),))


def test_each_record_is_listed_once_also_by_a_resumed_run(tmp_path):
    file, console = tmp_path / "run" / "skipped.jsonl", rich.console.Console(file=io.StringIO())
    SkippedFile(file, console).add(4, [skip(1), skip(2), skip(1)])
    with file.open("a") as cut:
        cut.write('{"id": "r')
    resumed = SkippedFile(file, console)
    resumed.add(4, [skip(2)])
    resumed.add(4, [skip(3)])
    listed = [json.loads(line)["id"] for line in file.read_text().splitlines() if line.endswith("}")]
    assert listed == ["r1", "r2", "r3"]


def test_warnings_give_the_share_and_the_field_to_enlarge(tmp_path):
    console = rich.console.Console(file=io.StringIO())
    skipped = SkippedFile(tmp_path / "skipped.jsonl", console)
    for number in range(12):
        skipped.add(3, [skip(number)])
    first, tenth = console.file.getvalue().splitlines()
    assert first.startswith(
        "warning: 1 of 4 samples (25.0%) were skipped (caption_tokens 1). To keep the longest ones, increase "
        "data.caption_tokens to 300 (1). The last one: record 'r0'"
    )
    assert tenth.startswith("warning: 10 of 40 samples (25.0%) were skipped (caption_tokens 10). ")
    assert "increase data.caption_tokens to 309 (10). The last one: record 'r9'" in tenth
    assert tenth.endswith(f"increase data.caption_tokens. All are listed in {tmp_path / 'skipped.jsonl'}")


def test_the_first_share_above_one_percent_is_a_warning_of_its_own(tmp_path):
    console = rich.console.Console(file=io.StringIO(), width=400)
    skipped = SkippedFile(tmp_path / "skipped.jsonl", console)
    for samples, few in ((1300, range(10)), (0, range(10, 14)), (0, range(14, 20))):
        skipped.add(samples, [skip(number) for number in few])
    below, above = console.file.getvalue().splitlines()
    assert below.startswith("warning: 10 of 1,310 samples (0.8%)")
    assert above.startswith("warning: 14 of 1,314 samples (1.1%)")


def test_samples_with_another_caption_are_listed_and_warned_of_above_one_percent(tmp_path):
    console = rich.console.Console(file=io.StringIO(), width=400)
    skipped, kept = SkippedFile(tmp_path / "skipped.jsonl", console), skip(1)._replace(outcome="other_caption")
    skipped.add(1000, [], [kept, kept])
    skipped.add(10, [], [kept] * 10)
    [line] = (tmp_path / "skipped.jsonl").read_text().splitlines()
    assert (json.loads(line)["id"], json.loads(line)["outcome"]) == ("r1", "other_caption")
    [warning] = console.file.getvalue().splitlines()
    assert warning.startswith(
        "warning: 12 of 1,010 samples have a caption that is too long: 12 with another caption, "
        "0 without supervision. To keep the longest ones, increase data.caption_tokens to 301 (12). "
    )
