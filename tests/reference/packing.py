"""Packing against the original: positions, ids, indexes, labels, splits, latent grids and masks of every pack.

Our batches keep the order of a sequence in metadata. The checks put every token back at its index in the original
sequence (start of its sample + its order), and compare there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tests.helpers.pixels import to_float
from tests.reference.harness import Check, Reference, exact
from uno_jax.attention.metadata import CAPTION, METAQUERY, TokenMetadata, pairwise_visible
from uno_jax.batch import REGIONS, Layout, PixelBatch, TokenBatch
from uno_jax.data.dropout import drop_conditions
from uno_jax.data.layout import lay_out
from uno_jax.data.methods import MethodConfig
from uno_jax.data.plans import CleanLatents, Item, NoisedTarget, Plan, Text, VitImage
from uno_jax.data.rows import make_batch, pack_row
from uno_jax.data.tokenizer import Tokenizer
from uno_jax.data.transforms import ImageTransform

PACKING, UNO = "packing.npz", "uno.npz"

LABELLED_IMAGE = "our plans train no label on the closing token of an image"

UNUSED = {
    f"{PACKING}/*/padded_images": "we encode each image at its own size, not padded to the largest of a pack",
    f"{PACKING}/*/ce_loss_weights": "weights per text are not ours (the original does not use them either)",
    f"{PACKING}/*/packed_timesteps": "the step draws the times; mse_loss_indexes states which images are noised",
    f"{PACKING}/x_video/*": "our plans have no clips of several frames",
    f"{PACKING}/x_multi/packed_label_ids": LABELLED_IMAGE,
    f"{PACKING}/x_multi/ce_loss_indexes": LABELLED_IMAGE,
}


class SequenceIndex(NamedTuple):
    """For every token of the two buffers of a one-row batch, its index in the original sequence; -1 for padding."""

    understanding: np.ndarray  # [U]
    generation: np.ndarray  # [G]


def pack_batch(reference: Reference, pack: str) -> tuple[PixelBatch, SequenceIndex]:
    """A pack of `packing.json` through our plans, layout and packing: one row, every region padded a little."""
    stated = reference.json("packing.json")["packs"][pack]
    rates = {f"{name}_dropout": float(rate) for name, rate in stated["dropout"].items()}
    config = MethodConfig(**rates)
    plans = [
        drop_conditions(_stated_plan(reference, name), config, np.random.default_rng(0)) for name in stated["samples"]
    ]
    return _one_row(reference, plans)


def uno_batch(reference: Reference) -> tuple[PixelBatch, SequenceIndex]:
    """The two samples of `uno.npz` (text to image, editing): one row, every region padded a little."""
    ids = {name: tuple(value) for name, value in reference.json("uno.json")["text_ids"].items()}
    packing = reference.json("packing.json")
    vit = ImageTransform(*packing["vit_transform"])
    vae = ImageTransform(*packing["vae_transform"])
    target0, target1, source1 = (reference.array(UNO, f"in/{name}_raw") for name in ("target0", "target1", "source1"))
    prompt = Text(ids=ids["prompt"], droppable=True)
    target = NoisedTarget(pixels=vae.resize(target0), caption=ids["caption1"], query_pixels=vit.resize(target0))
    source = CleanLatents(pixels=vae.resize(source1), droppable=True)
    source_vit = VitImage(pixels=vit.resize(source1), droppable=True)
    instruction = Text(ids=ids["instruction"], droppable=True)
    edited = NoisedTarget(pixels=vae.resize(target1), caption=ids["caption2"], query_pixels=vit.resize(target1))
    return _one_row(reference, [(prompt, target), (source, source_vit, instruction, edited)])


def checks(reference: Reference) -> Iterator[Check]:
    for pack, stated in reference.json("packing.json")["packs"].items():
        if not any("split_start" in item for item in _items(reference, stated["samples"])):
            yield from _pack_checks(reference, pack)
    yield from _image_checks(reference)
    yield from _uno_checks(reference)


def _stated_plan(reference: Reference, sample: str) -> Plan:
    """The plan of a sample of `packing.json`."""
    packing = reference.json("packing.json")
    transforms = {kind: ImageTransform(*packing[f"{kind}_transform"]) for kind in ("vae", "vit")}
    stated = packing["samples"][sample]
    texts = iter(stated["text_ids"])
    pictures = iter(stated["raw_images"])
    items: list[Item] = []
    for item in stated["sequence_plan"]:
        droppable = bool(item["enable_cfg"])
        if item["type"] == "text":
            items.append(Text(ids=tuple(next(texts)), answer=bool(item["loss"]), droppable=droppable))
            continue
        kind = item["type"].removesuffix("_image")
        pixels = transforms[kind].resize(reference.array(PACKING, next(pictures)))
        if kind == "vit":
            items.append(VitImage(pixels=pixels, droppable=droppable))
        elif item["loss"]:
            items.append(NoisedTarget(pixels=pixels, droppable=droppable))
        else:
            items.append(CleanLatents(pixels=pixels, droppable=droppable))
    return tuple(items)


def _layout(reference: Reference) -> Layout:
    sizes = reference.json("packing.json")["data_config"]
    return Layout(
        vit_patch_size=sizes["vit_patch_size"],
        vit_table_side=sizes["max_num_patch_per_side"],
        pixels_per_token=sizes["vae_image_downsample"],
        max_latent_size=sizes["max_latent_size"],
        num_metaqueries=sizes["max_num_patch_per_side"] ** 2,
    )


def _one_row(reference: Reference, plans: Sequence[Plan]) -> tuple[PixelBatch, SequenceIndex]:
    layout = _layout(reference)
    tokenizer = Tokenizer.from_directory(reference.directory)
    samples = [lay_out(plan, layout, tokenizer, occurrence=i) for i, plan in enumerate(plans)]
    used = {region: sum(len(sample[region]) for sample in samples) for region in REGIONS}
    capacities = {region: tokens + 3 if tokens else 0 for region, tokens in used.items()}
    batch = make_batch([pack_row(samples, capacities, layout)])
    starts = np.cumsum([0] + [sum(len(region) for region in sample.values()) for sample in samples])

    def index(metadata: TokenMetadata) -> np.ndarray:
        sample = metadata.sample[0]
        return np.where(sample > 0, starts[np.maximum(sample - 1, 0)] + metadata.order[0], -1)

    return batch, SequenceIndex(index(batch.understanding), index(batch.generation))


class _Sequence:
    """A one-row batch put back into the order of the original sequence."""

    def __init__(self, batch: TokenBatch, index: SequenceIndex):
        self._batch = batch
        text, vit, caption, query = np.cumsum(
            [batch.text_ids.shape[1], batch.vit_image.shape[1], batch.caption_ids.shape[1], batch.query_index.shape[1]]
        )
        self.index = {
            "text": index.understanding[:text],
            "vit": index.understanding[text:vit],
            "caption": index.understanding[vit:caption],
            "query": index.understanding[caption:query],
            "latent": index.generation,
        }
        both = np.concatenate([index.understanding, index.generation])
        self._place = np.argsort(both, kind="stable")[np.count_nonzero(both < 0) :]
        np.testing.assert_array_equal(both[self._place], np.arange(len(self._place)), "an index is missing or twice")
        metadata = zip(batch.understanding, batch.generation, strict=True)
        self.metadata = TokenMetadata(*(np.concatenate([a[0], b[0]])[self._place] for a, b in metadata))

    def take(self, region: str, array: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
        """The values `[1, tokens, ...]` of a region, in sequence order, less the padding (and less not `where`)."""
        index = self.index[region]
        keep = index >= 0 if where is None else (index >= 0) & where[0]
        return array[0][keep][np.argsort(index[keep], kind="stable")]

    def indexes(self, region: str, where: np.ndarray | None = None) -> np.ndarray:
        return self.take(region, self.index[region][None], where)

    def sample_lengths(self) -> np.ndarray:
        return np.bincount(self.metadata.sample)[1:]

    def masks(self) -> list[np.ndarray]:
        """Who may look at whom, per sample."""
        visible = pairwise_visible(self.metadata, self.metadata)
        ends = np.cumsum(self.sample_lengths())
        return [visible[end - n : end, end - n : end] for n, end in zip(self.sample_lengths(), ends, strict=True)]

    def in_image_block(self) -> np.ndarray:
        """bool `[tokens]`: shares what it may see last with a neighbour, so it is no causal text."""
        same = np.zeros(len(self._place) + 1, bool)
        same[1:-1] = (np.diff(self.metadata.last_visible) == 0) & (np.diff(self.metadata.sample) == 0)
        return same[1:] | same[:-1]

    def splits(self, start: int) -> tuple[np.ndarray, np.ndarray]:
        """Lengths and modes (0 causal, 1 full, 2 noise) of the runs of tokens that share a visibility."""
        meta, image = self.metadata, self.in_image_block()
        starts_text = np.zeros(len(image), bool)
        starts_text[self.indexes("text", self._batch.text_ids == start)] = True
        new = np.diff(meta.sample, prepend=0) != 0
        new |= np.where(image, np.diff(meta.last_visible, prepend=-1) != 0, starts_text)
        new |= np.diff(image, prepend=False)
        first = np.flatnonzero(new)
        modes = np.where(meta.block[first] > 0, 2, np.where(image[first], 1, 0))
        return np.diff(first, append=len(image)), modes

    def latent_shapes(self, side: int) -> np.ndarray:
        """Rows and columns of each image's grid of latent tokens."""
        position = self.take("latent", self._batch.latent_positions)
        first = np.flatnonzero(self.take("latent", self._batch.latent_index) == 0)
        images = np.split(position, first[1:])
        return np.array([(image.max() // side + 1, (image % side).max() + 1) for image in images])


def _runs(numbers: np.ndarray) -> np.ndarray:
    """Lengths of the runs of equal image numbers."""
    return np.bincount(numbers)[1:]


def _pack_checks(reference: Reference, pack: str) -> Iterator[Check]:
    batch, index = pack_batch(reference, pack)
    sequence = _Sequence(batch, index)
    stated = reference.json("packing.json")["packs"][pack]
    tokenizer = Tokenizer.from_directory(reference.directory)
    split_lengths, modes = sequence.splits(tokenizer.start)
    shapes = sequence.latent_shapes(_layout(reference).max_latent_size) if batch.latent_index.size else []
    assert len(sequence.metadata.sample) == stated["sequence_length"]
    assert sequence.sample_lengths().tolist() == stated["sample_lens"]
    assert split_lengths.tolist() == stated["split_lens"]
    codes = reference.json("packing.json")["attn_mode_codes"]
    assert [codes[mode] for mode in modes] == stated["attn_modes"]
    assert np.array(shapes).tolist() == stated["patchified_vae_latent_shapes"]

    actual = {
        "packed_text_ids": sequence.take("text", batch.text_ids),
        "packed_text_indexes": sequence.indexes("text"),
        "packed_position_ids": sequence.metadata.position,
        "packed_latent_position_ids": sequence.take("latent", batch.latent_positions),
        "packed_vae_token_indexes": sequence.indexes("latent"),
        "packed_vit_tokens": to_float(sequence.take("vit", batch.vit_patches)),
        "packed_vit_position_ids": sequence.take("vit", batch.vit_positions),
        "packed_vit_token_indexes": sequence.indexes("vit"),
        "vit_token_seqlens": _runs(sequence.take("vit", batch.vit_image)),
        "mse_loss_indexes": sequence.indexes("latent", batch.latent_loss),
        "packed_label_ids": sequence.take("text", batch.text_labels, batch.text_loss),
        "ce_loss_indexes": sequence.indexes("text", batch.text_loss),
        "sample_lens": sequence.sample_lengths(),
        "split_lens": split_lengths,
        "attn_modes": modes,
        "patchified_vae_latent_shapes": np.array(shapes),
        **{f"mask{i}": mask for i, mask in enumerate(sequence.masks())},
    }
    if any(item["special_token_loss"] for item in _items(reference, stated["samples"])):
        del actual["packed_label_ids"], actual["ce_loss_indexes"]  # LABELLED_IMAGE
    stored = {name.removeprefix(f"{pack}/") for name in reference.names(PACKING) if name.startswith(f"{pack}/")}
    for name, value in actual.items():
        if name in stored:
            yield Check(PACKING, f"{pack}/{name}", value, exact)
        elif not name.endswith("shapes"):
            # Extra packs do not repeat the image tensors; else an array is left out when it would be empty.
            assert name == "packed_vit_tokens" or value.size == 0, f"{pack}: {name} is not stored, ours is not empty"


def _items(reference: Reference, samples: Sequence[str]) -> list[dict]:
    stated = reference.json("packing.json")["samples"]
    return [item for sample in samples for item in stated[sample]["sequence_plan"]]


def _image_checks(reference: Reference) -> Iterator[Check]:
    """The transformed image of each item, from the raw picture."""
    packing = reference.json("packing.json")
    done = set()
    for stated in packing["samples"].values():
        images = [item for item in stated["sequence_plan"] if item["type"] != "text"]
        for item, name, raw in zip(images, stated["images"], stated["raw_images"], strict=True):
            if name not in done:
                done.add(name)
                transform = ImageTransform(*packing[item["type"].replace("image", "transform")])
                pixels = transform.resize(reference.array(PACKING, raw))
                yield Check(PACKING, name, to_float(pixels).transpose(2, 0, 1), exact)


def _uno_checks(reference: Reference) -> Iterator[Check]:
    batch, index = uno_batch(reference)
    sequence = _Sequence(batch, index)
    ids = np.concatenate([batch.text_ids, batch.caption_ids], axis=1)
    sequence.index["any_text"] = np.concatenate([sequence.index["text"], sequence.index["caption"]])
    image = sequence.in_image_block()
    role = sequence.metadata.role
    kind = np.select([role == CAPTION, role == METAQUERY, sequence.metadata.block > 0, image], [3, 4, 2, 1], 0)
    side = _layout(reference).max_latent_size
    caption_sample = batch.understanding.sample[:, -batch.caption_ids.shape[1] - batch.query_index.shape[1] :]
    caption_sample, query_sample = np.split(caption_sample, [batch.caption_ids.shape[1]], axis=1)
    actual = {
        "text_ids": sequence.take("any_text", ids),
        "text_idx": sequence.indexes("any_text"),
        "pos": sequence.metadata.position,
        "vae_idx": sequence.indexes("latent"),
        "vae_pos": sequence.take("latent", batch.latent_positions),
        "noise_idx": sequence.indexes("latent", batch.latent_loss),
        "is_noised": sequence.take("latent", batch.latent_time_scale) > 0,
        "vae_sample": sequence.take("latent", batch.generation.sample) - 1,
        "vit_idx": sequence.indexes("vit"),
        "vit_pos": sequence.take("vit", batch.vit_positions),
        "vit_tok": to_float(sequence.take("vit", batch.vit_patches)),
        "vit_len": _runs(sequence.take("vit", batch.vit_image)),
        "cap_idx": sequence.indexes("caption", batch.caption_loss),
        "cap_label": sequence.take("caption", batch.caption_labels, batch.caption_loss),
        "cap_sample": sequence.take("caption", caption_sample, batch.caption_loss) - 1,
        "query_idx": sequence.indexes("query"),
        "query_j": sequence.take("query", batch.query_index),
        "query_sample": sequence.take("query", query_sample) - 1,
        "query_vitpos": sequence.take("query", batch.target_positions),
        "tgt_tok": to_float(sequence.take("query", batch.target_patches)),
        "tgt_len": _runs(sequence.take("query", batch.target_image)),
        "seg_kind": kind,
        "sample_lens": sequence.sample_lengths(),
        "patchified_vae_latent_shapes": sequence.latent_shapes(side),
        **{f"mask{i}": mask for i, mask in enumerate(sequence.masks())},
    }
    for name, value in actual.items():
        yield Check(UNO, f"in/{name}", value, exact)
