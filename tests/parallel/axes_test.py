"""Sharding by axis names: the table of axes, and the axis names of parameters."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from flax.traverse_util import flatten_dict
from jax.sharding import AbstractDevice, AbstractMesh, PartitionSpec

from tests.helpers.small_model import small_model
from uno_jax.attention.attend import platform
from uno_jax.models.config import ModelConfig
from uno_jax.parallel.axes import MESH_AXES, TABLE, constrain, on_mesh, partition_spec, spec_on_mesh
from uno_jax.parallel.parameters import parameter_axes, tree_shardings
from uno_jax.training.initialise import abstract_autoencoder, abstract_params
from uno_jax.training.optimizer import OptimizerConfig, make_optimizer
from uno_jax.training.state import UNO_TRAINABLE, create_state


def mesh(data: int = 1, fsdp: int = 1, tensor: int = 1, sequence: int = 1) -> AbstractMesh:
    return AbstractMesh((data, fsdp, tensor, sequence), MESH_AXES)


def test_the_table_names_mesh_axes():
    assert {axis for axes in TABLE.values() for axis in axes} <= set(MESH_AXES)


@pytest.mark.parametrize(
    ("names", "shape", "sizes", "expected"),
    [
        (("batch", "tokens", None), (8, 6, 5), {"data": 2, "fsdp": 2, "sequence": 2}, (("data", "fsdp"), "sequence")),
        (("embed", "mlp"), (8, 6), {"fsdp": 2, "tensor": 3}, ("fsdp", "tensor")),
        (("embed", "mlp"), (8, 6), {"fsdp": 2, "sequence": 4}, (("fsdp", "sequence"),)),
        (("embed",), (6,), {"fsdp": 2, "sequence": 2}, ("fsdp",)),  # 6 is not a multiple of 4
        (("batch", None, "kv_heads", None), (8, 6, 2, 4), {"tensor": 4}, ()),  # fewer heads than shards: replicated
        (("lookup_batch", None, "embed"), (4, 6, 8), {"data": 2, "fsdp": 4}, ("data", None, "fsdp")),
    ],
)
def test_an_axis_is_sharded_over_the_mesh_axes_that_divide_it(names, shape, sizes, expected):
    assert spec_on_mesh(names, shape, mesh(**sizes)) == PartitionSpec(*expected)


def test_a_wrong_number_of_axis_names_raises_an_error():
    with pytest.raises(ValueError, match=r"got 2 axis names .* expected 3"):
        spec_on_mesh(("batch", "tokens"), (2, 3, 4), mesh())


def test_without_a_mesh_names_do_nothing():
    assert partition_spec(("batch",), (8,)) is None
    assert "sharding" not in str(jax.make_jaxpr(lambda x: constrain(x, "batch"))(jnp.zeros(8)))


def test_the_platform_is_that_of_the_mesh_even_with_one_device():
    tpu = AbstractDevice("TPU v5 lite", 1, "tpu")
    with on_mesh(AbstractMesh((1, 1, 1, 1), MESH_AXES, abstract_device=tpu)):
        assert platform() == "tpu"
        assert partition_spec(("batch",), (8,)) is None
    assert platform() == jax.default_backend()


def test_every_parameter_of_the_published_model_has_names_and_every_matrix_is_sharded():
    params = {**abstract_params(ModelConfig()), "autoencoder": abstract_autoencoder(ModelConfig())}
    for path, sharding in flatten_dict(tree_shardings(params, mesh(fsdp=16, tensor=2)), sep="/").items():
        is_matrix = path.split("/")[-1] in ("kernel", "table", "embedding", "position_table")
        assert ("fsdp" in sharding.spec) == (is_matrix and not path.startswith("autoencoder")), path


def test_only_stacked_parameters_have_a_layers_axis():
    for path, leaf in flatten_dict(abstract_params(ModelConfig()), sep="/").items():
        assert (parameter_axes(path, leaf.ndim)[0] == "layers") == ("/layers/" in path), path


def test_experts_are_sharded_over_tensor_inside_and_over_fsdp_at_the_residual_stream():
    layers = tree_shardings(abstract_params(ModelConfig()), mesh(fsdp=4, tensor=2))["decoder"]["layers"]["generation"]
    assert layers["query"]["kernel"].spec == PartitionSpec(None, "fsdp", "tensor")
    assert layers["output"]["kernel"].spec == PartitionSpec(None, "tensor", "fsdp")
    assert layers["up"]["kernel"].spec == PartitionSpec(None, "fsdp", "tensor")
    assert layers["down"]["kernel"].spec == PartitionSpec(None, "tensor", "fsdp")
    assert layers["query"]["bias"].spec == PartitionSpec(None, "tensor")
    assert layers["mlp_norm"]["scale"].spec == PartitionSpec()


def test_optimizer_state_and_ema_have_the_sharding_of_their_parameter():
    config = small_model()
    optimizer = make_optimizer(OptimizerConfig(), 3)
    state = jax.eval_shape(lambda p: create_state(p, UNO_TRAINABLE, optimizer, ema=True), abstract_params(config))
    shardings = tree_shardings(state, mesh(fsdp=2, tensor=2))
    adam = next(part for part in shardings.opt_state if hasattr(part, "mu"))
    assert adam.mu == adam.nu == shardings.ema == shardings.trainable
    assert adam.count.spec == shardings.step.spec == PartitionSpec()


def test_a_parameter_without_axis_names_raises_an_error():
    with pytest.raises(
        ValueError, match=r"parameter decoder/layers/new/weights with 2 axes has no axis names: add them"
    ):
        tree_shardings({"decoder": {"layers": {"new": {"weights": jnp.zeros((2, 3))}}}}, mesh())
