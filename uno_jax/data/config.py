"""The data configuration, and what is checked of it before any record is read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from uno_jax.batch import REGIONS, TASKS, Layout
from uno_jax.data.plans import METHODS, MethodConfig
from uno_jax.data.transforms import ImageTransform


@dataclass(frozen=True)
class DataConfig(MethodConfig):
    """Where samples come from, what a method makes of them (`MethodConfig`), and the rows that they are packed into."""

    directory: str = ""
    """A prepared dataset."""
    split: str = "train"
    tokenizer: str = ""
    """A tokenizer directory; empty: that which came with the parameters that the run starts from, or, for parameters
    drawn afresh, `tokenizer` in the dataset directory."""

    rows: int = 8
    """Rows of the global batch."""
    text_tokens: int = 512
    """Length of a row's region of context text and image delimiters; the other regions alike, 0 = not there."""
    vit_tokens: int = 0
    caption_tokens: int = 256
    query_tokens: int = 256
    latent_tokens: int = 4096
    max_samples_per_row: int = 0
    """0: as many as fit."""
    packing_bins: int = 8
    """Rows that a shard fills at the same time (first fit): more of them leave less padding, take more memory, and
    make a resumed run replay more samples."""

    virtual_shards: int = 8
    """The data are split into this many, each packed alone into its own rows, whatever the number of hosts."""
    seed: int = 0
    shuffle: bool = True
    epochs: int = 0
    """0: endless, shuffled anew each time round. Else the data end; the last rows are padded."""
    task_weights: Mapping[str, float] = field(default_factory=dict)
    """Share of the draws for each task, by name; a task that is not named is not drawn. Empty: as in the data. A
    finite pass draws every record of the named tasks, whatever the shares."""

    vae_transform: ImageTransform = field(default_factory=lambda: ImageTransform(1024, 512, 16))
    vit_transform: ImageTransform = field(default_factory=lambda: ImageTransform(518, 224, 14))
    metaquery_transform: ImageTransform = field(default_factory=lambda: ImageTransform(224, 14, 14))

    prefetch: int = 2
    """Batches made ahead, in a thread."""
    read_threads: int = 0
    """Threads of a host that read, decode and resize; 0: the prefetching thread does it all, which is faster for
    small pictures (threads of one process take turns in Python code)."""

    @property
    def capacities(self) -> dict[str, int]:
        """Tokens of a row in each region."""
        return {region: getattr(self, f"{region}_tokens") for region in REGIONS}


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
    _check_grids(config, layout)
    _check_lengths(config, layout, tasks)


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


def _check_grids(config: DataConfig, layout: Layout) -> None:
    """Every grid that a transform can give must be made of whole patches and lie inside its position table."""
    queries = config.metaqueries
    tables = [
        ("vae_transform", layout.pixels_per_token, layout.max_latent_size, "model.max_latent_size"),
        ("vit_transform", layout.vit_patch_size, layout.vit_table_side, "model.vision.table_side"),
    ]
    if queries:
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
    count = _most_patches(config.metaquery_transform, layout.vit_patch_size)
    if queries and count > layout.num_metaqueries:
        raise ValueError(
            f"data.metaquery_transform can give {count} patches (max_side {config.metaquery_transform.max_side}), "
            f"but model.num_metaqueries is {layout.num_metaqueries}: lower max_side or enlarge the metaquery table"
        )


def _check_lengths(config: DataConfig, layout: Layout, tasks: Collection[str]) -> None:
    """A row must hold one sample whose pictures are as large as the transforms let them be, with one source."""
    latent = _most_patches(config.vae_transform, layout.pixels_per_token)
    vit = _most_patches(config.vit_transform, layout.vit_patch_size)
    queries = _most_patches(config.metaquery_transform, layout.vit_patch_size)
    for task in tasks:
        # Two delimiters an image, and two around a text that has at least one token.
        if task == "understanding":
            need = {"text": 8, "vit": vit}
        elif config.method == "reca":
            need = {"text": 4, "vit": vit, "latent": latent}
        elif task == "editing":
            need = {"text": 9, "vit": vit, "latent": 2 * latent}
        else:
            need = {"text": 5, "latent": latent}
            if config.method == "pretrain" and config.understanding_share > 0 and config.latent_share < 1:
                need["vit"] = vit
        if task != "understanding" and config.captions:
            need["caption"] = 3
        if task != "understanding" and config.metaqueries:
            need["query"] = queries
        for region, tokens in need.items():
            if config.capacities[region] < tokens:
                remedy = {
                    "vit": " or lower data.vit_transform.max_side",
                    "latent": " or lower data.vae_transform.max_side",
                    "query": " or lower data.metaquery_transform.max_side",
                }.get(region, "")
                raise ValueError(
                    f"data.{region}_tokens is {config.capacities[region]}, but one {task} sample of method "
                    f"{config.method} can take {tokens}: set it to at least {tokens}{remedy}"
                )


def _most_patches(transform: ImageTransform, patch: int) -> int:
    return (transform.largest_side // patch) ** 2
