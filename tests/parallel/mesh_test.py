"""The mesh, and the rows of a batch on it. Tests on eight devices run in a separate process."""

from __future__ import annotations

import textwrap

import jax
import numpy as np
import pytest

from tests.helpers.eight_device_process import run_with_eight_devices
from uno_jax.config import ConfigError
from uno_jax.parallel.mesh import DcnConfig, MeshConfig, check_rows, make_mesh, put_rows, row_share


def test_one_device_is_a_mesh_of_one():
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    assert dict(mesh.shape) == {"data": 1, "fsdp": 1, "tensor": 1, "sequence": 1}
    np.testing.assert_array_equal(put_rows(np.arange(6).reshape(3, 2), mesh), np.arange(6).reshape(3, 2))
    assert row_share(mesh) == (0, 1, (0,))
    check_rows(3, mesh, field="config.data.rows")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (MeshConfig(data=2, fsdp=1), r"config\.mesh\.data \(2\) does not equal the number of devices, 1"),
        (MeshConfig(tensor=2), r"config\.mesh\.tensor \(2\) does not divide the number of devices, 1"),
        (MeshConfig(data=-1, fsdp=-1), r"config\.mesh\.data and config\.mesh\.fsdp are -1"),
        (MeshConfig(sequence=0), r"config\.mesh\.sequence is 0"),
        (MeshConfig(dcn=DcnConfig(data=2)), r"config\.mesh\.dcn asks for 2 slices"),
        (MeshConfig(dcn=DcnConfig(data=0)), r"config\.mesh\.dcn\.data is 0"),
    ],
)
def test_axes_whose_product_is_not_the_number_of_devices_raise_an_error(config, expected):
    with pytest.raises(ConfigError, match=expected):
        make_mesh(config, jax.devices()[:1])


@pytest.fixture(scope="module")
def on_eight_devices() -> dict[str, str]:
    """Values of several expressions, evaluated in one process with eight devices."""
    program = """
        import numpy as np
        from uno_jax.parallel.mesh import DcnConfig, MeshConfig, check_rows, make_mesh, put_rows

        def ids(config):
            return [device.id for device in make_mesh(config).devices.flat]

        def parts(config, rows):
            batch = put_rows({"ids": np.arange(2 * rows).reshape(rows, 2)}, make_mesh(config))
            assert np.array_equal(np.asarray(batch["ids"])[-1], [2 * rows - 2, 2 * rows - 1])
            return sorted({shard.data.shape for shard in batch["ids"].addressable_shards})

        def refused(config, rows):
            try:
                check_rows(rows, make_mesh(config), field="config.data.rows")
            except ValueError as error:
                return str(error)

        print("shape", dict(make_mesh(MeshConfig(tensor=2, sequence=2)).shape))
        print("rows over data and fsdp", parts(MeshConfig(data=2, fsdp=4), 16))
        print("rows replicated over tensor and sequence", parts(MeshConfig(fsdp=2, tensor=2, sequence=2), 16))
        print("refused", refused(MeshConfig(data=2, fsdp=2, tensor=2), 6))
        print("allowed", refused(MeshConfig(data=1, fsdp=2, tensor=4), 6))
        print("slices of rows", ids(MeshConfig(fsdp=4, dcn=DcnConfig(data=2))))
        print("slices of parameters", ids(MeshConfig(data=2, fsdp=2, dcn=DcnConfig(data=1, fsdp=2))))
        print("shape of slices", dict(make_mesh(MeshConfig(data=2, dcn=DcnConfig(data=2))).shape))
    """
    lines = run_with_eight_devices("-c", textwrap.dedent(program)).splitlines()
    names = ("shape of slices", "slices of rows", "slices of parameters", "rows over data and fsdp")
    names += ("rows replicated over tensor and sequence", "refused", "allowed", "shape")
    return {next(name for name in names if line.startswith(name)): line for line in lines}


def said(lines: dict[str, str], name: str) -> str:
    return lines[name].removeprefix(name + " ")


def test_minus_one_takes_the_remaining_devices(on_eight_devices):
    assert said(on_eight_devices, "shape") == str({"data": 1, "fsdp": 2, "tensor": 2, "sequence": 2})


def test_rows_are_sharded_over_data_and_fsdp_only(on_eight_devices):
    assert said(on_eight_devices, "rows over data and fsdp") == "[(2, 2)]"
    assert said(on_eight_devices, "rows replicated over tensor and sequence") == "[(8, 2)]"


def test_rows_that_data_and_fsdp_do_not_divide_raise_an_error(on_eight_devices):
    assert said(on_eight_devices, "refused").startswith(
        "config.data.rows is 6, but the mesh shards rows into 4 parts, data (2)"
    )
    assert said(on_eight_devices, "allowed") == "None"


def test_slices_are_the_outer_dimension_of_their_axis(on_eight_devices):
    """Devices 0 to 3 form one slice, 4 to 7 the other."""
    assert said(on_eight_devices, "shape of slices") == str({"data": 4, "fsdp": 2, "tensor": 1, "sequence": 1})
    assert said(on_eight_devices, "slices of rows") == "[0, 1, 2, 3, 4, 5, 6, 7]"
    # [data 2, fsdp 2 slices x 2]: each row of the fsdp axis spans both slices.
    assert said(on_eight_devices, "slices of parameters") == "[0, 1, 4, 5, 2, 3, 6, 7]"
