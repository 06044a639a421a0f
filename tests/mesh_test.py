"""The mesh, and where leaves lie on it. Eight devices are a process of their own."""

from __future__ import annotations

import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.eight_device_process import run_with_eight_devices
from uno_jax.config import ConfigError
from uno_jax.parallel.mesh import MeshConfig, check_rows, make_mesh, put_rows, tree_shardings


def test_one_device_is_a_mesh_of_one():
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    assert dict(mesh.shape) == {"data": 1, "fsdp": 1}
    np.testing.assert_array_equal(put_rows(np.arange(6).reshape(3, 2), mesh), np.arange(6).reshape(3, 2))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (MeshConfig(data=2, fsdp=1), r"config\.mesh\.data \(2\) \* config\.mesh\.fsdp \(1\) does not equal .* 1"),
        (MeshConfig(data=2, fsdp=-1), r"config\.mesh\.data \(2\) does not divide the number of devices, 1"),
        (MeshConfig(data=-1, fsdp=-1), "both -1"),
        (MeshConfig(data=0), r"config\.mesh\.data is 0"),
    ],
)
def test_axes_that_do_not_make_up_the_devices_are_refused(config, expected):
    with pytest.raises(ConfigError, match=expected):
        make_mesh(config, jax.devices()[:1])


def in_eight_devices(program: str) -> str:
    """Runs a program with eight CPU devices and returns what it prints."""
    return run_with_eight_devices("-c", textwrap.dedent(program))


def test_large_leaves_are_cut_along_their_longest_axis_and_never_along_the_layers():
    program = """
        import jax, jax.numpy as jnp
        from uno_jax.parallel.mesh import MeshConfig, make_mesh, tree_shardings
        mesh = make_mesh(MeshConfig(data=2, fsdp=4))
        leaves = {
            "kernel": (512, 1024), "odd": (1023, 512), "nothing": (1023, 513), "bias": (1024,),
            "layers": {"kernel": (512, 64, 32), "norm": (1024, 65)},
        }
        tree = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s, jnp.float32), leaves, is_leaf=lambda x: type(x) is tuple)
        for path, sharding in jax.tree_util.tree_leaves_with_path(tree_shardings(tree, mesh)):
            print(jax.tree_util.keystr(path), tuple(sharding.spec))
    """
    assert in_eight_devices(program).splitlines() == [
        "['bias'] ()",
        "['kernel'] (None, 'fsdp')",
        "['layers']['kernel'] (None, 'fsdp')",
        "['layers']['norm'] ()",
        "['nothing'] ()",
        "['odd'] (None, 'fsdp')",
    ]


def test_rows_go_over_all_devices():
    program = """
        import numpy as np
        from uno_jax.parallel.mesh import MeshConfig, make_mesh, put_rows
        mesh = make_mesh(MeshConfig(data=2, fsdp=4))
        batch = put_rows({"ids": np.arange(32).reshape(16, 2)}, mesh)
        print([shard.data.shape for shard in batch["ids"].addressable_shards])
        print(np.asarray(batch["ids"])[-1])
    """
    assert in_eight_devices(program).splitlines() == [str([(2, 2)] * 8), "[30 31]"]


def test_rows_that_the_mesh_does_not_divide_are_refused():
    program = """
        from uno_jax.parallel.mesh import MeshConfig, check_rows, make_mesh
        mesh = make_mesh(MeshConfig())
        try:
            check_rows(12, mesh, field="config.data.rows")
        except ValueError as error:
            print(error)
    """
    assert in_eight_devices(program).startswith("config.data.rows is 12, which the 8 devices of the mesh do not divide")


def test_shardings_of_one_device_cut_nothing():
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    assert tree_shardings({"kernel": jnp.zeros((512, 512))}, mesh)["kernel"].is_fully_replicated
    check_rows(3, mesh, field="config.data.rows")
