"""Checks of a data config that need no records."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from uno_jax.batch import REGIONS, TASKS, Layout
from uno_jax.data.config import DataConfig
from uno_jax.data.largest import needed_tokens
from uno_jax.data.methods import METHODS
from uno_jax.data.transforms import ImageTransform


def check_data_config(config: DataConfig, layout: Layout, tasks: Collection[str], host_count: int = 1) -> None:
    """Rejects settings that would only fail later, in the pipeline.

    Args:
      config: the data config.
      layout: sizes of the model.
      tasks: the tasks that will be sampled.
      host_count: number of hosts that share the rows.

    Raises:
      ValueError: a field is invalid; the message names it and says what to change.
    """
    check_choices(config)
    _check_rows(config, host_count)
    needed = {task: needed_tokens(config, layout, task) for task in tasks}
    check_grids(config, layout, metaqueries=any(lengths["query"] for lengths in needed.values()))
    _check_lengths(config, needed)


def check_choices(config: DataConfig) -> None:
    """Rejects names, shares and seeds that no dataset and no model could make valid.

    Raises:
      ValueError: a field is invalid; the message names it.
    """
    if config.method not in METHODS:
        raise ValueError(f"data.method is {config.method!r}, expected one of {', '.join(METHODS)}")
    for task, weight in config.task_weights.items():
        if task not in TASKS:
            raise ValueError(f"data.task_weights names {task!r}, which is not a task. Tasks are {', '.join(TASKS)}")
        if not 0 <= weight < math.inf:
            raise ValueError(f"data.task_weights gives {task} the weight {weight}, expected a finite number, 0 or more")
    for name in (
        *("text_dropout", "vae_dropout", "vit_dropout"),
        *(
            "understanding_share",
            "recaption_share",
            "latent_share",
            "noised_share",
            "noised_time_scale",
            "max_skipped_share",
        ),
    ):
        if not 0 <= getattr(config, name) <= 1:
            raise ValueError(f"data.{name} is {getattr(config, name)}, expected a number in [0, 1]")
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"data.seed is {config.seed}, expected an integer in [0, 2**32)")


def _check_rows(config: DataConfig, host_count: int) -> None:
    counts = dict.fromkeys(("rows", "virtual_shards", "packing_bins", "max_picture_pixels"), 1)
    lengths = (f"{region}_tokens" for region in REGIONS)
    counts |= dict.fromkeys(("epochs", "prefetch", "workers", "read_threads", "max_samples_per_row", *lengths), 0)
    for name, least in counts.items():
        if getattr(config, name) < least:
            raise ValueError(f"data.{name} is {getattr(config, name)}, expected at least {least}")
        if getattr(config, name) >= 2**31:
            raise ValueError(f"data.{name} is {getattr(config, name)}, expected less than 2**31")
    if config.rows % config.virtual_shards:
        raise ValueError(
            f"data.rows is {config.rows}, not a multiple of data.virtual_shards = {config.virtual_shards}. Every "
            "virtual shard fills the same number of rows: change one of the two"
        )
    if config.virtual_shards % host_count:
        raise ValueError(
            f"data.virtual_shards is {config.virtual_shards}, not a multiple of the {host_count} hosts. Every host "
            "owns the same number of virtual shards: set it to a multiple of the largest number of hosts you plan for"
        )


def check_grids(config: DataConfig, layout: Layout, *, metaqueries: bool) -> None:
    """Requires every grid a transform can produce to consist of whole patches and to fit its position table.

    Raises:
      ValueError: one does not; the message names the field and says what to change.
    """
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
                f"data.{name}.stride is {transform.stride}, expected a multiple of the patch size ({patch} pixels)"
            )
        side = transform.largest_side // patch
        if side > table_side:
            raise ValueError(
                f"data.{name}.max_side is {transform.max_side} ({side} patches of {patch} pixels per side), but "
                f"{table} is {table_side}: lower max_side to {table_side * patch}, or enlarge the table"
            )
    side = config.vae_transform.largest_side // layout.pixels_per_token
    if layout.align and side > layout.vit_table_side:
        raise ValueError(
            f"data.vae_transform.max_side is {config.vae_transform.max_side} ({side} latent tokens per side), and the "
            f"align loss needs as many patches, but model.vision.table_side is {layout.vit_table_side}: lower max_side "
            f"to {layout.vit_table_side * layout.pixels_per_token}, or set model.align_layer to 0"
        )
    count = (config.metaquery_transform.largest_side // layout.vit_patch_size) ** 2
    if metaqueries and count > layout.num_metaqueries:
        raise ValueError(
            f"data.metaquery_transform can produce {count} patches (max_side {config.metaquery_transform.max_side}), "
            f"but model.num_metaqueries is {layout.num_metaqueries}: lower max_side or enlarge the metaquery table"
        )


def _check_lengths(config: DataConfig, needed: Mapping[str, Mapping[str, int]]) -> None:
    """Requires a row to hold any single sample with at most one source image, at the transforms' largest sizes."""
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
