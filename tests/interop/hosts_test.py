"""Several hosts import, restore and save checkpoints together. Each reads and writes the shards of its devices."""

from __future__ import annotations

import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file

from tests.helpers.hosts import Hosts
from tests.helpers.one_device_state import assert_restored, write_state
from tests.helpers.small_public import write_public
from uno_jax.interop.load import load_model


def import_on_two_hosts(directory):
    arguments = ["-m", "uno_jax.convert", "import", str(directory / "public"), str(directory / "imported")]
    return Hosts([*arguments, "--mesh.fsdp=4"], hosts=2, devices=2).wait()


def test_one_device_reads_an_import_of_two_hosts(tmp_path):
    write_public(tmp_path / "public", decoder={"intermediate_size": 4096})
    ended = import_on_two_hosts(tmp_path)
    assert [host.status for host in ended] == [0, 0], ended
    assert ["imported" in host.printed for host in ended] == [True, False]
    imported, public = load_model(tmp_path / "imported"), load_model(tmp_path / "public")
    for part in ("params", "autoencoder_params"):
        actual, expected = (flatten_dict(getattr(model, part), sep="/") for model in (imported, public))
        assert actual.keys() == expected.keys()
        for name, leaf in expected.items():
            np.testing.assert_array_equal(actual[name], leaf, err_msg=name)
    assert imported.config == public.config


def test_a_train_state_is_restored_on_two_hosts_and_back_on_one(tmp_path):
    state, data_state = write_state(tmp_path / "state")
    ended = Hosts(["-m", "tests.helpers.hosts_checkpoints", str(tmp_path)], hosts=2, devices=2).wait()
    assert [host.status for host in ended] == [0, 0], ended
    assert_restored(tmp_path / "resumed", state, data_state)


@pytest.mark.slow
def test_hosts_fail_together_and_leave_nothing_behind(tmp_path):
    tensors = load_file(write_public(tmp_path / "public") / "ema.safetensors")
    tensors["vae2llm.weight"][3, 1] = np.nan
    save_file(tensors, tmp_path / "public" / "ema.safetensors")
    for host in import_on_two_hosts(tmp_path):
        assert host.status == 1
        assert "tensor vae2llm.weight contains a non-finite value (nan)" in host.printed
    assert [path.name for path in tmp_path.iterdir()] == ["public"]
