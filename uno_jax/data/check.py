"""What is checked of a data configuration before any record is read."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from uno_jax.batch import REGIONS, TASKS, Layout
from uno_jax.data.config import DataConfig
from uno_jax.data.largest import needed_tokens
from uno_jax.data.methods import METHODS
from uno_jax.data.transforms import ImageTransform


def check_data_config(config: DataConfig, layout: Layout, tasks: Collection[str], host_count: int = 1) -> None:
    """Refuses what could only fail later.

    Args:
      config: the data configuration.
      layout: sizes of the model.
      tasks: the tasks that will be drawn.
      host_count: hosts that share the rows.

    Raises:
      ValueError: names the field and says what to do.
    """
    _check_choices(config)
    _check_rows(config, host_count)
    needed = {task: needed_tokens(config, layout, task) for task in tasks}
    _check_grids(config, layout, metaqueries=any(lengths["query"] for lengths in needed.values()))
    _check_lengths(config, needed)


def _check_choices(config: DataConfig) -> None:
    if config.method not in METHODS:
        raise ValueError(f"data.method is {config.method!r}: it must be one of {', '.join(METHODS)}")
    for task, weight in config.task_weights.items():
        if task not in TASKS:
            raise ValueError(f"data.task_weights names {task!r}: tasks are {', '.join(TASKS)}")
        if weight < 0:
            raise ValueError(f"data.task_weights gives {task} the weight {weight}: it must be 0 or more")
    for name in (
        *("text_dropout", "vae_dropout", "vit_dropout"),
        *("understanding_share", "latent_share", "noised_share", "noised_time_scale"),
    ):
        if not 0 <= getattr(config, name) <= 1:
            raise ValueError(f"data.{name} is {getattr(config, name)}: it must lie in [0, 1]")
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"data.seed is {config.seed}: it must lie in [0, 2**32)")


def _check_rows(config: DataConfig, host_count: int) -> None:
    for name in ("rows", "virtual_shards", "packing_bins"):
        if getattr(config, name) < 1:
            raise ValueError(f"data.{name} is {getattr(config, name)}: it must be 1 or more")
    for name in ("epochs", "prefetch", "read_threads", "max_samples_per_row", *(f"{r}_tokens" for r in REGIONS)):
        if getattr(config, name) < 0:
            raise ValueError(f"data.{name} is {getattr(config, name)}: it must be 0 or more")
    if config.rows % config.virtual_shards:
        raise ValueError(
            f"data.rows is {config.rows}, not a multiple of data.virtual_shards = {config.virtual_shards}: every "
            "virtual shard fills the same number of rows; change one of the two"
        )
    if config.virtual_shards % host_count:
        raise ValueError(
            f"data.virtual_shards is {config.virtual_shards}, not a multiple of the {host_count} hosts: every host "
            "owns the same number of virtual shards; set it to a multiple of the largest number of hosts you plan for"
        )


def _check_grids(config: DataConfig, layout: Layout, *, metaqueries: bool) -> None:
    """Every grid that a transform can give must be made of whole patches and lie inside its position table."""
    tables = [
        ("vae_transform", layout.pixels_per_token, layout.max_latent_size, "model.max_latent_size"),
        ("vit_transform", layout.vit_patch_size, layout.vit_table_side, "model.vision.table_side"),
    ]
    if metaqueries:
        tables.append(("metaquery_transform", layout.vit_patch_size, layout.vit_table_side, "model.vision.table_side"))
    for name, patch, table_side, table in tables:
        transform: ImageTransform = getattr(config, name)
        if transform.stride % patch:
            raise ValueError(
                f"data.{name}.stride is {transform.stride}: it must be a multiple of the {patch} pixels of one patch"
            )
        side = transform.largest_side // patch
        if side > table_side:
            raise ValueError(
                f"data.{name}.max_side is {transform.max_side}, that is {side} patches of {patch} pixels a side, but "
                f"{table} is {table_side}: lower max_side to {table_side * patch}, or enlarge the table"
            )
    count = (config.metaquery_transform.largest_side // layout.vit_patch_size) ** 2
    if metaqueries and count > layout.num_metaqueries:
        raise ValueError(
            f"data.metaquery_transform can give {count} patches (max_side {config.metaquery_transform.max_side}), "
            f"but model.num_metaqueries is {layout.num_metaqueries}: lower max_side or enlarge the metaquery table"
        )


def _check_lengths(config: DataConfig, needed: Mapping[str, Mapping[str, int]]) -> None:
    """A row must hold any one sample whose pictures are as large as the transforms let them be, with one source."""
    remedies = {
        "vit": " or lower data.vit_transform.max_side",
        "latent": " or lower data.vae_transform.max_side",
        "query": " or lower data.metaquery_transform.max_side",
    }
    for task, lengths in needed.items():
        for region, tokens in lengths.items():
            if config.capacities[region] < tokens:
                raise ValueError(
                    f"data.{region}_tokens is {config.capacities[region]}, but one {task} sample of method "
                    f"{config.method} can take {tokens}: set it to at least {tokens}{remedies.get(region, '')}"
                )
