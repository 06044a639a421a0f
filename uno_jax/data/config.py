"""The data configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from uno_jax.batch import REGIONS
from uno_jax.data.methods import Inputs, MethodConfig
from uno_jax.data.tokenizer import Tokenizer
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

    def inputs(self, tokenizer: Tokenizer) -> Inputs:
        """What a method needs beside a record: the tokenizer and the transforms."""
        return Inputs(tokenizer, self.vae_transform, self.vit_transform, self.metaquery_transform)
