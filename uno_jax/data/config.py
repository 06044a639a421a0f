"""Config of the data pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from uno_jax.batch import REGIONS
from uno_jax.data.decoding import LARGEST_PICTURE
from uno_jax.data.methods import Inputs, MethodConfig
from uno_jax.data.tokenizer import Tokenizer
from uno_jax.data.transforms import ImageTransform


@dataclass(frozen=True)
class PartConfig:
    """One dataset of a mixture."""

    directory: str
    """Directory of a prepared dataset."""
    weight: float = 1.0
    """Its share of the samples, relative to those of the other datasets. 0 = none."""
    method: str = ""
    """A name in `METHODS`; "" = `data.method`."""
    task_weights: Mapping[str, float] = field(default_factory=dict)
    """Sampling weight of each of its tasks, as `data.task_weights`."""
    vae_transform: ImageTransform | None = None
    """Resolution of the pictures that the autoencoder encodes; None = `data.vae_transform`."""
    captions: str = ""
    """Its further captions, as `data.captions`."""
    encoded: str = ""
    """Its moments, as `data.encoded`. All datasets of a mixture have them, or none."""
    features: str = ""
    """Its vision features, as `data.features`. All datasets of a mixture have them, or none."""


@dataclass(frozen=True)
class DataConfig(MethodConfig):
    """The dataset, the post-training method (`MethodConfig`), and the rows that samples are packed into."""

    directory: str = ""
    """Directory of a prepared dataset."""
    mixture: Mapping[str, PartConfig] = field(default_factory=dict)
    """Several datasets by name, instead of `directory`, `task_weights`, `captions`, `encoded` and `features`. With
    `epochs` > 0, every record of each is used in each epoch, regardless of the weights."""
    split: str = "train"
    captions: str = ""
    """Folder of `prepare_data recaption`, whose captions are added to those of the records; "" = none. Held-out losses
    use the captions of the records alone."""
    encoded: str = ""
    """Folder of `prepare_data encode`, whose moments take the place of the pixels under latent tokens; "" = the run
    encodes the pictures of every batch."""
    features: str = ""
    """Folder of `prepare_data encode --features`, whose vision features take the place of the pixels of ViT patches and
    metaqueries; "" = the step encodes them."""
    tokenizer: str = ""
    """Tokenizer directory. Empty: the tokenizer of the checkpoint that the run starts from, or, for randomly
    initialised parameters, `tokenizer` in the dataset directory."""

    rows: int = 8
    """Global batch size in rows."""
    text_tokens: int = 512
    """Tokens per row for context text and image delimiters. Same for the other regions; 0 = the region is absent."""
    vit_tokens: int = 0
    caption_tokens: int = 256
    query_tokens: int = 256
    latent_tokens: int = 4096
    long_captions: Literal["skip", "replace"] = "skip"
    """What becomes of a sample whose caption takes more than `caption_tokens`. `skip`: it is skipped. `replace`: it has
    the shortest of its record's captions instead; if that is too long, too, it has neither caption nor metaqueries, and
    trains the flow loss alone."""
    max_samples_per_row: int = 0
    """Maximum number of samples per row; 0 = no limit."""
    packing_bins: int = 8
    """Rows that a virtual shard fills at the same time (first fit). More bins leave less padding, but take more memory
    and make a resumed run replay more samples."""

    virtual_shards: int = 8
    """Number of shards that the data are split into. Each is packed into rows of its own, for any number of hosts."""
    seed: int = 0
    shuffle: bool = True
    epochs: int = 0
    """0 = endless, reshuffled every epoch. Otherwise the data end after this many epochs, and the last rows are
    padded."""
    task_weights: Mapping[str, float] = field(default_factory=dict)
    """Sampling weight of each task, by name. Unnamed tasks are not sampled. Empty: proportions of the dataset. With
    `epochs` > 0, every record of the named tasks is used in each epoch, regardless of the weights."""

    vae_transform: ImageTransform = field(default_factory=lambda: ImageTransform(1024, 512, 16))
    vit_transform: ImageTransform = field(default_factory=lambda: ImageTransform(518, 224, 14))
    metaquery_transform: ImageTransform = field(default_factory=lambda: ImageTransform(224, 14, 14))

    max_picture_pixels: int = LARGEST_PICTURE
    """Records with a picture of more pixels, counted before it is resized, are skipped."""
    reduced_jpeg: bool = False
    """Whether JPEG files are decoded at a half, a quarter or an eighth of their sides, if that is no smaller than what
    the transforms make of them. Faster for large pictures, with slightly other pixels. Sizes stay the same."""
    max_skipped_share: float = 0.1
    """Fraction of the drawn samples that may be skipped, because they fit no row or cannot be read. Above it, the run
    stops: at its start if that holds of its first thousand samples, otherwise later. 0 = the first one stops it."""

    prefetch: int = 2
    """Batches that a background thread prepares in advance."""
    workers: int = 0
    """Processes per host that make batches, each the rows of some virtual shards. 0 = a thread of this process does it,
    which suffices on a CPU. The batches are the same."""
    read_threads: int = 0
    """Threads per host that read, decode and resize. 0 = the prefetch thread does it all, which is faster for small
    pictures because of Python's global interpreter lock."""

    @property
    def capacities(self) -> dict[str, int]:
        """Tokens per row of each region."""
        return {region: getattr(self, f"{region}_tokens") for region in REGIONS}

    def inputs(self, tokenizer: Tokenizer) -> Inputs:
        """The tokenizer and the transforms, as a method takes them."""
        transforms = (self.vae_transform, self.vit_transform, self.metaquery_transform)
        return Inputs(
            tokenizer, *transforms, max_picture_pixels=self.max_picture_pixels, reduced_jpeg=self.reduced_jpeg
        )
