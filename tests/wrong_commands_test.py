"""What a hasty user types: every wrong command ends in one sentence, with exit status 1 or 2 and no traceback."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.paths import REFERENCE
from tests.helpers.tiny_run import write_config, write_dataset

TRAIN = "train --config=config.py --workdir=run"
SAMPLE = f"sample --checkpoint={REFERENCE} --out=out"
EVALUATE = f"evaluate generate --checkpoint={REFERENCE} --out=out"
UNDERSTANDING = f"evaluate understanding --checkpoint={REFERENCE} --out=out"
STUDY = "study.__main__ --workdir=study --config=configs/study/scenes.py --list"
LOOK = f"look_inside --checkpoint={REFERENCE} --data=data --out=out"
JSONL = "prepare_data --dataset=jsonl --images=nothing --out=new"
CONVERT = f"convert import {REFERENCE}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a dataset and a config file, and with everything that is given in place of something else."""
    folder = tmp_path_factory.mktemp("wrong")
    write_dataset(folder / "data")
    write_config(folder / "config.py", folder / "data", {})
    (folder / "raises.py").write_text("raise RuntimeError('no accelerator')\ndef get_config():\n    pass\n")
    (folder / "folder.py").mkdir()
    (folder / "nothing").mkdir()
    (folder / "precious").mkdir()
    (folder / "precious" / "photo.png").write_bytes(b"photo")
    (folder / "blank.txt").write_text("\n  \n")
    (folder / "empty.txt").write_text("")
    (folder / "number.jsonl").write_text('{"prompt": 3}\n')
    (folder / "evaluation_metadata_long.jsonl").write_text('{"prompt": 3}\n')
    (folder / "empty.jsonl").write_text('{"prompt": " "}\n')
    Image.new("RGB", (8, 8)).save(folder / "picture.png")
    return folder


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (f"{TRAIN} --config.optimizer.learning_rate=nan", "config.optimizer.learning_rate is nan: give at least 0"),
        (f"{TRAIN} --config.steps=many", "flag --config.steps=many: expected a whole number"),
        (f"{TRAIN} --config.tensorboard=maybe", "flag --config.tensorboard=maybe: expected true or false"),
        (
            f"{TRAIN} --config.steps=99999999999",
            "config.steps is 99999999999: give a number from 1 to below",
        ),
        (f"{TRAIN} --config.seed={10**30}", "give a number from 0 to below 4294967296"),
        (f"{TRAIN} --config.stepz=3", 'unknown config field: \'stepz\' Did you mean "steps" instead of "stepz"?'),
        (f"{TRAIN} --config.data.method=unoo", "data.method is 'unoo', expected one of uno, uno_caption"),
        (f"{TRAIN} --config.data.text_tokens=1", "data.text_tokens is 1, but one text_to_image sample"),
        (f"{TRAIN} --config.mesh.fsdp=3", "config.mesh.fsdp (3) does not equal the number of devices, 1"),
        (f"{TRAIN} --config.model.decoder.hidden_size=0", "config.model.decoder.hidden_size is 0: give at least 4"),
        (f"{TRAIN} --config.model.decoder.num_heads=0", "config.model.decoder.num_heads is 0: give at least 1"),
        (f"{TRAIN} --config.model.vision.patch_size=0", "config.model.vision.patch_size is 0: give at least 1"),
        (
            f"{TRAIN} --config.data.directory=picture.png",
            "config.data.directory: 'picture.png': there is no such",
        ),
        (f"{TRAIN} --config.data.directory=", "config.data.directory: no dataset is given"),
        (f"{TRAIN} --config.data.directory=nothing", "config.data.directory: nothing: split 'train'"),
        (f"{TRAIN} --config.init_from=nothing", "config.init_from: nothing: no checkpoint found"),
        (f"{TRAIN} --config.random_frozen=False", "config.init_from is '', so these parameters would be random"),
        (f"{TRAIN} --config.random_frozen=False --workdir=runs/new/one", "config.init_from is '', so these parameters"),
        (f"{TRAIN} --flagfile=missing", "--flagfile: Unable to open flagfile: [Errno 2] No such file or directory"),
        (f"{SAMPLE} --prompt=x --flagfile=picture.png", "--flagfile: 'utf-8' codec can't decode byte 0x89"),
        ("prepare_data --out=new --flagfile=nothing", "--flagfile: Unable to open flagfile: [Errno 21] Is a directory"),
        (f"{TRAIN} --config.model=big", "flag --config.model=big: this is a section; override one of its fields, as"),
        (f"{TRAIN} --config.=3", "an override names no config field; expected --config.any.field=value"),
        (f"{TRAIN} --config.data[=3", "an override names no config field; expected --config.any.field=value"),
        (f"{TRAIN} --config.model={{'decoder':1}}", "config.model.decoder is 1 (int): expected the fields of Decoder"),
        (
            f"{TRAIN} --config.mesh.data=-2",
            "config.mesh.data is -2: expected a positive number, or -1 for the remaining",
        ),
        (f"{TRAIN} --config.data.workers=100000", "not a multiple of data.workers = 100000"),
        (f"{TRAIN} --config.data.tokenizer=picture.png", "tokenizer directory picture.png lacks vocab.json"),
        (f"{TRAIN} --config.data.directory=data,data", "Several datasets are given as config.data.mixture"),
        (
            f"{TRAIN} --config.model.decoder.vocab_size=100",
            "the tokenizer has 292 ids, but the vocabulary of the model",
        ),
        (f"{TRAIN} --resume_step=5", "has checkpoints of no step. Omit --resume_step to start a new run"),
        (f"{TRAIN} --workdir=data", "the workdir is data, which is a dataset. Give a folder of the run's own"),
        (f"{TRAIN} extra", "unexpected argument: extra"),
        (f"{TRAIN} --coordinator=localhost:1", "missing --processes (JAX_NUM_PROCESSES), --process (JAX_PROCESS_ID)"),
        ("train --config=config.py:x --workdir=run", "get_config cannot be called: get_config() takes 0 positional"),
        (f"{TRAIN} --workdir=picture.png", "picture.png: cannot be written (File exists)"),
        (f"{TRAIN} --workdir=/proc/run", "/proc/run: cannot be written"),
        ("train --config=folder.py --workdir=run", "--config: folder.py cannot be read (Is a directory)"),
        ("train --config=raises.py --workdir=run", "--config: raises.py:1 raised RuntimeError: no accelerator"),
        (f"{SAMPLE} --prompt=x --seed=abc", "flag --seed=abc: expected a whole number"),
        (f"{SAMPLE} --prompt=x --seed=-1", "seed is -1: expected 0 to 2147483647"),
        (f"{SAMPLE} --prompt=x --timesteps=1000000000", "timesteps is 1000000000: expected 2 to 10000"),
        (f"{SAMPLE} --prompt=x --size=8x8 --aspect=1:1", "size is 8x8 and aspect is 1:1: give one of them, not both"),
        (f"{SAMPLE} --prompt=x --promt=y", "Unknown command line flag 'promt'. Did you mean: prompt, prompts ?"),
        (f"{SAMPLE} --prompt=x --text_scale=nan", "flag --text_scale=nan: expected a number"),
        (f"{SAMPLE} --prompt=x --out=/proc/out", "/proc cannot be written (No such file or directory)"),
        (f"{SAMPLE} --prompt=", "--prompt is empty; describe the picture, or the change"),
        (f"{SAMPLE} --prompts=blank.txt", "blank.txt: no prompts; write one per line"),
        (f"{SAMPLE} --prompts=nothing", "nothing: cannot be read (Is a directory)"),
        (f"{SAMPLE} --prompts=number.jsonl", "number.jsonl:1: prompt is 3: expected a text"),
        ("sample --checkpoint=picture.png --prompt=x --out=out", "picture.png: no checkpoint found"),
        (f"chat --checkpoint={REFERENCE} --out=picture.png", "picture.png is a file, not a folder"),
        (f"chat --checkpoint={REFERENCE} --temperature=nan", "flag --temperature=nan: expected a number"),
        ("chat --checkpoint=nothing", "nothing: no checkpoint found"),
        ("serve --checkpoint=nothing --port=0", "nothing: no checkpoint found"),
        ("serve --checkpoint=nothing --queue=0", "queue is 0 and batch is 4: expected at least 1"),
        ("serve --checkpoint=nothing --timeout=nan", "flag --timeout=nan: expected a number"),
        ("serve --checkpoint=nothing --host=203.0.113.1", "cannot listen on 203.0.113.1:8000"),
        (f"serve --checkpoint=nothing --host={'a' * 64}", "(encoding with 'idna' codec failed"),
        ("demo --checkpoint=nothing --port=99999", "99999 is not an integer in the range [1, 65535]"),
        ("demo --checkpoint=nothing --host=203.0.113.1", "cannot listen on 203.0.113.1:7860"),
        (f"{SAMPLE} --prompt=x --image=blank.txt", "blank.txt: not a picture, or damaged at its start"),
        (f"{SAMPLE} --prompt=x --image=http://a/b.png", "'http://a/b.png' is a URL: expected a path of this machine"),
        (f"{SAMPLE} --prompt=\udcff", "is not valid Unicode (at character 1)"),
        (f"{SAMPLE} --prompt=x --prompts=blank.txt", "expected either --prompt or --prompts"),
        (f"{SAMPLE} --prompt=x --part=3/2", "flag --part=3/2: '3/2': expected I/N with I from 0 to N - 1"),
        (f"{SAMPLE} --prompt=x --seed=2147483647 --count=2", "seed is 2147483648: expected 0 to 2147483647"),
        (f"{SAMPLE} --prompt=x --ema", "holds one set of parameters and no separate EMA weights; omit the EMA option"),
        (f"{SAMPLE} --prompt=x --interval=1,0", "interval is (1.0, 0.0): expected times 0 <= low <= high <= 1"),
        (f"{CONVERT} picture.png/new", "picture.png is a file, not a folder"),
        (f"convert export {REFERENCE} /proc/new", "/proc cannot be written"),
        (f"{CONVERT} {REFERENCE} --overwrite", "replacing it would destroy the source"),
        ("demo --checkpoint=nothing --host=", "cannot listen on :7860"),
        (f"{CONVERT} picture.png --overwrite", "picture.png is not a checkpoint, and --overwrite replaces only those"),
        (f"{CONVERT} precious --overwrite", "precious is not a checkpoint, and --overwrite replaces only those"),
        (f"convert export {REFERENCE} new --shard_size=0", "flag --shard_size=0: '0': expected at least one byte"),
        ("convert imprt a b", "unknown command imprt: did you mean import?"),
        ("convert inspect nothing", "nothing: no checkpoint found"),
        (
            "prepare_data --dataset=imagenet --out=new",
            "value should be one of <openmoji|scenes|jsonl|csv|conversations|",
        ),
        ("prepare_data --dataset=openmoji --out=/proc/new", "/proc cannot be written (No such file or directory)"),
        ("prepare_data --dataset=jsonl --out=new --test_fraction=nan", "flag --test_fraction=nan: expected a number"),
        ("prepare_data --dataset=jsonl --out=new", "--dataset=jsonl requires --jsonl"),
        ("prepare_data --dataset=parquet --parquet=s3://b/a --out=new", "--parquet: nothing here reads 's3://b/a'"),
        ("prepare_data --dataset=parquet --parquet=nothing --out=new", "no file in nothing ends with .parquet"),
        ("prepare_data --dataset=parquet --parquet=picture.png --out=new", "picture.png: not a Parquet file"),
        ("prepare_data --dataset=webdataset --webdataset=picture.png --out=new", "no sample of a tar file can be read"),
        ("prepare_data --dataset=hugging_face --hugging_face=precious --out=new", "no dataset_dict.json"),
        ("prepare_data --dataset=tfds --tfds=../x --out=new", "'../x' is no name of a dataset"),
        ("prepare_data --dataset=prepared --prepared=precious --out=new", "precious is no dataset of prepare_data"),
        ("prepare_data --dataset=csv --csv=ftp://b/a.csv --images=. --out=new", "nothing here reads 'ftp://b/a.csv'"),
        ("prepare_data valdiate --config=config.py", "unknown command valdiate: did you mean validate?"),
        (
            "prepare_data --dataset=scenes --scenes=10000000000 --out=new",
            "is not an integer in the range [1, 10000000]",
        ),
        (f"{JSONL} --jsonl=empty.txt", "the source holds no records"),
        (f"{JSONL} --jsonl=/dev/null", "--jsonl: /dev/null is a pipe or a device, which can be read only once"),
        (f"{JSONL} --jsonl=number.jsonl --max_aspect=0.5", "--max_aspect is 0.5, and no picture's longer side is"),
        (f"{JSONL} --jsonl=number.jsonl --vocab_size=1000000000000", "vocab_size is 1000000000000, expected at most"),
        (f"{JSONL}/\udcff --jsonl=number.jsonl", "is not UTF-8 text: rename it, or choose a locale for UTF-8"),
        (
            "prepare_data encode --config=config.py --out=new",
            "encode needs a model: give --checkpoint, or --config.init",
        ),
        ("prepare_data encode --config=config.py --checkpoint=nothing --out=new", "nothing: no checkpoint found"),
        ("prepare_data encode --out=new", "missing --config"),
        (
            "prepare_data recaption --data=nothing --checkpoint=nothing --out=new",
            "nothing: split 'train' of a prepared",
        ),
        ("prepare_data recaption --data=data --checkpoint=nothing --out=new", "nothing: no checkpoint found"),
        ("prepare_data recaption --data=data --checkpoint=nothing --out=new --prompt=", "--prompt is empty: give a"),
        (
            f"{TRAIN} --config.data.encoded=nothing",
            "nothing: annex.json is missing. Give a folder that `prepare_data enc",
        ),
        (
            f"{TRAIN} --config.data.features=nothing",
            "nothing: annex.json is missing. Give a folder that `prepare_data encode --fea",
        ),
        ("aot --config=config.py --topology=v5e", "--topology is 'v5e': expected KIND:AxB"),
        ("aot --config=config.py --topology=v5e:2x2 --fraction=nan", "flag --fraction=nan: expected a number"),
        ("evaluate", "missing command: expected generate, score, report, understanding"),
        ("evaluate genrate", "unknown command genrate: did you mean generate?"),
        ("evaluate generate --benchmark=geneval --data=number.jsonl", "missing --checkpoint and --out"),
        (f"{EVALUATE} --benchmark=imagenet --data=nothing", "value should be one of <geneval|geneval_long|geneval2|"),
        (f"{EVALUATE} --benchmark=geneval --data=nothing", "nothing: there is no evaluation_metadata.jsonl"),
        (f"{EVALUATE} --benchmark=geneval --data=missing", "missing: there is no such file; expected evaluation_"),
        (f"{EVALUATE} --benchmark=geneval --data=number.jsonl", "number.jsonl:1: prompt is 3: expected str"),
        (f"{EVALUATE} --benchmark=geneval --data=picture.png", "picture.png: not UTF-8 text"),
        (
            f"{EVALUATE} --benchmark=geneval --data=evaluation_metadata_long.jsonl",
            "evaluation_metadata_long.jsonl belongs to another benchmark",
        ),
        (f"{EVALUATE} --benchmark=dpg --data=nothing", "nothing: there are no .txt files"),
        (f"{EVALUATE} --benchmark=dpg --data=nothing --samples=2", "--samples is 2, but the scorer of dpg reads 4"),
        (f"{EVALUATE} --benchmark=dpg --data=nothing --preset=bagel", "--preset is 'bagel': dpg has reca, ours"),
        (f"{EVALUATE} --benchmark=geneval --data=nothing --name=a/b", "--name is 'a/b': expected letters"),
        (
            f"{EVALUATE} --benchmark=geneval --data=nothing --size=8x8 --aspect=1:1",
            "size is 8x8 and aspect is 1:1: give",
        ),
        (f"{EVALUATE} --benchmark=wise --data=blank.txt", "blank.txt: not valid JSON"),
        (f"{EVALUATE} --benchmark=gedit_en --data=picture.png", "picture.png: cannot be read as Parquet"),
        ("evaluate score --out=nothing --results=blank.txt", "nothing: there is no record.json"),
        ("evaluate score --out=nothing", "give --results of the official scorer, a --judge_url to ask, or a --scorer"),
        ("evaluate score --out=nothing --judge_url=x", "--judge_url also needs --judge_model, --data"),
        (f"{EVALUATE} --benchmark=kris --data=nothing", "nothing: there is no physics/annotation.json or other"),
        (f"{EVALUATE} --benchmark=rise --data=number.jsonl", "number.jsonl: expected a JSON list of objects"),
        ("evaluate report --run=nothing --out=new", "nothing: there is no record.json"),
        (f"{UNDERSTANDING}", "no exam: give the data of at least one, as --held_out_answers or --held_out_expected"),
        (f"{UNDERSTANDING} --pope=nothing", "nothing: there is no llava_pope_test.jsonl"),
        (f"{UNDERSTANDING} --mme=nothing", "no questions; expected existence.txt"),
        (f"{UNDERSTANDING} --mmmu=picture.png", "picture.png: cannot be read as Parquet"),
        (f"{UNDERSTANDING} --textvqa=number.jsonl", "number.jsonl:1: question_id is missing: expected int or str"),
        (f"{UNDERSTANDING} --held_out_answers=nothing", "nothing: split 'test' of a prepared dataset is missing"),
        (f"{UNDERSTANDING} --held_out_answers=data", "split 'test' has no record of understanding"),
        (f"{UNDERSTANDING} --held_out_captions=data --unchanged", "--unchanged compares with --before"),
        (f"{STUDY} --config.difference=nan", "config.difference is nan: give a number between 0 and 1"),
        (f"{STUDY} --config.sampling.batch=0", "config.sampling.batch is 0: give at least 1"),
        (f"{STUDY} --config.sampling.timesteps=0", "config.sampling.timesteps is 0: give at least 2"),
        (f"{STUDY} --config.arms.uno.steps=3", "an override leads into a list, whose entries cannot be overridden"),
        (f"{STUDY} --config.arms[1].steps=3", "an override leads into a list, whose entries cannot be overridden"),
        (f"{STUDY} --config.arms[99].steps=3", "an override leads into a list, whose entries cannot be overridden"),
        (f"{STUDY} --stages=", "--stages names no stage; expected some of data, base"),
        (f"{STUDY} --stages=tunee", "there is no stage tunee; expected data, base"),
        ("study.__main__ --workdir=study --config=config.py", "and "),
        ("look_inside --checkpoint=nothing --data=data --out=out", "nothing: no checkpoint found"),
        (f"{LOOK} --layers=99", "--layers names 99, but "),
        (f"{LOOK} --times=nan", "flag --times=nan: 'nan': expected numbers from 0 to 1"),
        (f"{LOOK} --out=/proc/out", "/proc cannot be written (No such file or directory)"),
        (f"{LOOK} --data=picture.png", "picture.png"),
    ],
)
def test_a_wrong_command_ends_in_one_sentence(folder, monkeypatch, capsys, command, message):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "1000")
    before = sorted(folder.rglob("*"))
    name, *arguments = command.replace("configs/", f"{Path(__file__).parents[1]}/configs/").split(" ")
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"uno_jax.{name}").main(arguments)
    printed = capsys.readouterr().err
    said = ended.value.code if isinstance(ended.value.code, str) else printed
    assert isinstance(ended.value.code, str) or ended.value.code in (1, 2)
    assert message in said
    assert "Traceback" not in said + printed
    assert len(said.splitlines()) <= 22  # a usage line, or several fields of one config
    assert sorted(folder.rglob("*")) == before
    assert [path.read_bytes() for path in (folder / "precious").iterdir()] == [b"photo"]
