"""Datasets of TensorFlow Datasets by name, prepared as ArrayRecord files. See `docs/data.md`.

TensorFlow itself is not needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import read_only_builder

from uno_jax.data.records import KeepEncoded, check_features
from uno_jax.data.sources.columns import TABLE_OPTIONS, choose_columns, fields_of, table_columns
from uno_jax.data.sources.locations import SourceFile, location, read_json, state_of
from uno_jax.data.sources.rows import LICENSE, Row, open_rows
from uno_jax.data.sources.source import DataSource, DataSourceError, Opened, Option, Reporter, Values, values_of
from uno_jax.process.errors import reason_of


def open_tfds(values: Values, reporter: Reporter) -> Opened:
    """Opens the dataset `values["tfds"]`. Its splits stay; a single one is split by a hash of the ids."""
    builder = _builder(values)
    columns = choose_columns(list(builder.info.features), values, f"the dataset {values['tfds']}")
    names = [name for name, split in builder.info.splits.items() if split.num_examples]
    reads = {name: [partial(_rows, builder, name, columns)] for name in names}
    if len(reads) > 1 and "train" not in reads:
        raise DataSourceError(f"--tfds: {values['tfds']} has the splits {', '.join(names)}, but no train.")
    rows = reads if len(reads) > 1 else next(iter(reads.values()))
    return open_rows(
        rows,
        values,
        description=f"Records of the TFDS dataset {values['tfds']}.",
        license=builder.info.redistribution_info.license or LICENSE,
        total=sum(builder.info.splits[name].num_examples for name in names),
    )


def _builder(values: Values) -> Any:
    """Returns the builder of a dataset that is there as ArrayRecord files."""
    name = values["tfds"]
    folder = location("tfds_data_dir", values["tfds_data_dir"])
    if not re.fullmatch(r"[\w-]+(/[\w.-]+)?(:[\w.*]+)?", name):
        raise DataSourceError(f"--tfds: {name!r} is no name of a dataset. Give NAME, NAME/CONFIG or NAME/CONFIG:1.0.0.")
    for pattern in ("*/features.json", "*/*/features.json"):
        for file in (folder / re.split("[/:]", name)[0]).glob(pattern):
            check_features(read_json(file, "Prepare the dataset again"), str(file))
    prepare = (
        f'python -c "import tensorflow_datasets as tfds; tfds.builder({name!r}, data_dir={str(folder)!r}, '
        "file_format='array_record').download_and_prepare()\""
    )
    try:  # from its files: the code of a dataset may import anything, and is not needed
        builder = read_only_builder.builder_from_files(name, data_dir=str(folder))
        format_ = builder.info.file_format
    except tfds.core.DatasetNotFoundError as error:
        raise DataSourceError(f"--tfds: {name} is not in {folder}. Prepare it: {prepare}") from error
    except Exception as error:  # TFDS raises errors of any kind for damaged files
        raise DataSourceError(f"--tfds: {name!r} in {folder} cannot be opened ({reason_of(error)}).") from error
    if format_ is not tfds.core.FileFormat.ARRAY_RECORD:
        found = f"is there as {format_.value} files" if format_ else "has no known format"
        raise DataSourceError(f"--tfds: {name} {found}; only ArrayRecord files are read. Prepare it: {prepare}")
    return builder


def _rows(builder: Any, split: str, columns: Mapping[str, str]) -> Iterator[Row]:
    features = builder.info.features
    wanted = table_columns(columns)
    file = f"{builder.info.name}/{split}"
    source = builder.as_data_source(split=split, decoders=_decoders(features))
    for index in range(len(source)):
        try:
            example = source[index]
        except Exception as error:  # of the file format, of the encoding of an example, or of its texts
            problem = ("(record)", f"cannot be read ({reason_of(error)})", "Prepare the dataset again", "damaged")
            yield Row(file, index + 1, {}, (problem,))
            continue
        plain = {name: _plain(features[name], value) for name, value in example.items() if name in wanted}
        yield Row(file, index + 1, fields_of(plain, columns))


def _decoders(features: Any) -> dict[str, Any]:
    """Returns decoders that keep the pictures of some features encoded."""
    decoders: dict[str, Any] = {}
    for name, feature in features.items():
        inner = feature.feature if isinstance(feature, tfds.features.Sequence) else feature
        if isinstance(inner, tfds.features.Image):
            decoders[name] = KeepEncoded()
        elif isinstance(inner, tfds.features.FeaturesDict) and (below := _decoders(inner)):
            decoders[name] = below
    return decoders


def _plain(feature: Any, value: Any) -> Any:
    """Returns the value of a feature in types of Python: classes by their names, texts as text."""
    if isinstance(feature, tfds.features.Sequence):
        if isinstance(feature.feature, tfds.features.FeaturesDict):  # TFDS gives one dictionary of lists
            columns = {name: _plain_list(feature.feature[name], items) for name, items in value.items()}
            return [dict(zip(columns, items, strict=True)) for items in zip(*columns.values(), strict=True)]
        return _plain_list(feature.feature, value)
    if isinstance(feature, tfds.features.FeaturesDict):
        return {name: _plain(feature[name], item) for name, item in value.items()}
    if isinstance(feature, tfds.features.ClassLabel):
        return feature.int2str(int(value)) if feature.names else str(value)
    if isinstance(feature, tfds.features.Text):
        return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
    return value.item() if isinstance(value, np.generic) else value


def _plain_list(feature: Any, values: Any) -> list[Any]:
    return [_plain(feature, item) for item in values]


def _identity(values: Values) -> dict[str, object]:
    builder = _builder(values)
    choose_columns(list(builder.info.features), values, f"the dataset {values['tfds']}")
    folder = location("tfds_data_dir", str(builder.data_path))
    files = [SourceFile(path.name, path) for path in sorted(folder.iterdir()) if path.is_file()]
    return {"tfds": builder.info.full_name, "files": state_of(files)} | values_of(TABLE_OPTIONS, values)


TFDS = DataSource(
    name="tfds",
    summary="a dataset of TensorFlow Datasets, by name",
    options=(
        Option("tfds", str, None, "name of the dataset, such as coco_captions or name/config:1.0.0", required=True),
        Option("tfds_data_dir", str, "~/tensorflow_datasets", "folder of prepared TFDS datasets; a path or gs://"),
        *TABLE_OPTIONS,
    ),
    identity=_identity,
    open=open_tfds,
)
