"""Programs lowered for CUDA on a machine without a GPU: the mesh to trace them for, and what is in their StableHLO."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
from jax._src.cudnn import fused_attention_stablehlo
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from uno_jax.parallel.axes import MESH_AXES

FORWARD, BACKWARD = r"@__cudnn\$fmha(ScaleBias)?Softmax\(", r"@__cudnn\$fmha(ScaleBias)?SoftmaxBackward\("


def install_cudnn(monkeypatch: pytest.MonkeyPatch) -> None:
    """JAX asks the installed cuDNN for its version before it traces a call. A machine without a GPU has none."""
    monkeypatch.setattr(fused_attention_stablehlo, "cuda_versions", SimpleNamespace(cudnn_get_version=lambda: 91300))


def gpu_mesh(**sizes: int) -> AbstractMesh:
    """Mesh of H100s with axes of size 1 except those given."""
    gpu = AbstractDevice("NVIDIA H100 80GB HBM3", 1, "gpu")
    shape = tuple(sizes.get(axis, 1) for axis in MESH_AXES)
    return AbstractMesh(shape, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES), abstract_device=gpu)


def shapes(program: str) -> set[tuple[int, ...]]:
    """Shapes of all arrays in the program."""
    found = re.findall(r"tensor<((?:\d+x)+)[a-z]", program)
    return {tuple(int(size) for size in shape.split("x")[:-1]) for shape in found}


def calls(program: str) -> tuple[int, int]:
    """Numbers of cuDNN's forward and backward calls."""
    return len(re.findall(FORWARD, program)), len(re.findall(BACKWARD, program))
