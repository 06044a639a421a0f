"""An Orbax checkpoint and a directory in the public layout have the same interface."""

from __future__ import annotations

import io
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

from tests.helpers.small_checkpoint import write_checkpoint
from tests.helpers.small_public import write_public
from uno_jax import convert
from uno_jax.interop.source import OrbaxCheckpoint, PublicDirectory, Source, find_source
from uno_jax.parallel.mesh import MeshConfig, make_mesh, replicated
from uno_jax.process.errors import CheckpointError


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    """A run, the smallest public directory, and its import."""
    directory = tmp_path_factory.mktemp("sources")
    write_checkpoint(directory / "run", ema=False)
    write_public(directory / "public")
    arguments = ["import", str(directory / "public"), str(directory / "imported")]
    convert.main(arguments, Console(file=io.StringIO()))
    return directory


def read(source: Source, **options):
    mesh = make_mesh(MeshConfig(), jax.local_devices()[:1])
    return source.parameters(mesh, replicated(mesh), lambda path: None, **options)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("run", OrbaxCheckpoint),
        ("run/checkpoints/3", OrbaxCheckpoint),
        ("imported", OrbaxCheckpoint),
        ("public", PublicDirectory),
    ],
)
def test_the_kind_of_a_source_is_detected_by_its_files(directory, path, kind):
    assert type(find_source(directory / path)) is kind


@pytest.mark.parametrize("index", ["ema.safetensors.index.json", "model.safetensors.index.json"])
def test_a_directory_of_shards_is_detected_by_its_index(tmp_path, index):
    (tmp_path / index).write_text("{}")
    assert type(find_source(tmp_path)) is PublicDirectory


def test_an_import_gives_the_same_results_as_its_source(directory):
    public, imported = (find_source(directory / name) for name in ("public", "imported"))
    assert imported.model() == public.model()
    assert imported.settings() == public.settings()
    assert imported.tokenizer().encode("a red heart") == public.tokenizer().encode("a red heart")
    assert imported.provenance() == public.provenance()
    assert imported.contents().leaves == public.contents().leaves
    jax.tree.map(np.testing.assert_array_equal, read(imported), read(public))


@pytest.mark.parametrize("name", ["public", "imported"])
def test_ignored_parameters_are_not_read(directory, name):
    source = find_source(directory / name)
    everything, some = read(source), read(source, ignored=("vision", "latent_in"))
    assert set(everything.params) - set(some.params) == {"vision", "latent_in"}
    jax.tree.map(np.testing.assert_array_equal, some.params, {name: everything.params[name] for name in some.params})


@pytest.mark.parametrize(
    ("name", "message"),
    [("run", "the checkpoint has no EMA weights"), ("public", "one set of parameters and no separate EMA weights")],
)
@pytest.mark.parametrize("ask", [read, lambda source, ema: source.contents(ema=ema)], ids=["parameters", "contents"])
def test_missing_ema_weights_are_an_error(directory, name, message, ask):
    with pytest.raises(CheckpointError, match=message):
        ask(find_source(directory / name), ema=True)
