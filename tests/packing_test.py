"""Layout and packing of random plans, against a slow statement of the same rules, token by token."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.made_up_records import LAYOUT, small_tokenizer
from uno_jax.attention.metadata import TokenMetadata, pairwise_visible
from uno_jax.data.layout import REGIONS, lay_out, sample_lengths
from uno_jax.data.packing import make_batch, pack_row, padding_share
from uno_jax.data.plans import CleanLatents, DroppedImage, NoisedTarget, Text, VitImage

TOKENIZER = small_tokenizer()
ROOMY = dict.fromkeys(REGIONS, 400)


def pixels(rows: int, columns: int, patch: int) -> np.ndarray:
    return np.random.default_rng(rows * 9 + columns).integers(0, 256, (rows * patch, columns * patch, 3), np.uint8)


ids = st.lists(st.integers(0, 255), max_size=4).map(tuple)
grid = st.tuples(st.integers(1, 2), st.integers(1, 2))
latents = grid.map(lambda side: pixels(*side, LAYOUT.pixels_per_token))
patches = grid.map(lambda side: pixels(*side, LAYOUT.vit_patch_size))
labels = st.none() | st.integers(0, 255)
texts = st.builds(Text, ids=ids, answer=st.booleans(), closing_label=labels)
vit_images = st.builds(VitImage, pixels=patches)
clean = st.builds(CleanLatents, pixels=latents, time_scale=st.sampled_from([0.0, 0.5]))
targets = st.builds(
    NoisedTarget, pixels=latents, caption=st.none() | ids, query_pixels=st.none() | patches, closing_label=labels
)
frames = st.builds(
    lambda first, rest, step: tuple(
        CleanLatents(pixels=picture, time_scale=1.0, advance=step, joins_next=i < len(rest))
        for i, picture in enumerate([first, *rest])
    ),
    latents,
    st.lists(latents, max_size=2),
    st.integers(0, 4),
)
single = (texts | vit_images | clean | targets | st.builds(DroppedImage, advance=st.integers(0, 2))).map(lambda i: (i,))
plans = st.lists(single | frames, min_size=1, max_size=5).map(lambda groups: sum(groups, ()))


@dataclass(frozen=True)
class SlowToken:
    """A token as the slow statement knows it."""

    kind: str  # text, clean, noised, caption, query
    group: int  # tokens of one text, one image block (a clip is one), one caption, one set of metaqueries share it
    block: int  # the noised block it belongs to, from 1; 0: none
    position: int


def slow_sequence(plan) -> list[SlowToken]:
    """The tokens of a plan in their logical order."""
    tokens, position, group, block, joined = [], 0, 0, 0, False
    for item in plan:
        if not joined:
            group += 1
        joined = False
        if isinstance(item, DroppedImage):
            position += item.advance
        elif isinstance(item, Text):
            for _ in range(len(item.ids) + 2):
                tokens.append(SlowToken("text", group, 0, position))
                position += 1
        elif isinstance(item, VitImage | CleanLatents):
            patch = LAYOUT.vit_patch_size if isinstance(item, VitImage) else LAYOUT.pixels_per_token
            tokens += [SlowToken("clean", group, 0, position)] * (item.pixels.size // (3 * patch * patch) + 2)
            position += getattr(item, "advance", 1)
            joined = getattr(item, "joins_next", False)
        else:
            block += 1
            count = item.pixels.size // (3 * LAYOUT.pixels_per_token**2) + 2
            tokens += [SlowToken("noised", group, block, position)] * count
            if item.caption is not None:
                group += 1
                for i in range(len(item.caption) + 2):
                    tokens.append(SlowToken("caption", group, block, position + 1 + i))
            if item.query_pixels is not None:
                group += 1
                count = item.query_pixels.size // (3 * LAYOUT.vit_patch_size**2)
                tokens += [SlowToken("query", group, block, position + 1)] * count
    return tokens


def slow_visible(tokens: list[SlowToken], i: int, j: int) -> bool:
    """Whether token i may look at token j: the table of one sample, in words."""
    query, key = tokens[i], tokens[j]
    if query.group == key.group:
        return j <= i if query.kind in ("text", "caption") else True
    if query.kind in ("text", "clean", "noised"):
        return key.kind in ("text", "clean") and j < i
    return key.kind == "noised" and key.block == query.block


def sequence_of(batch, row: int, sample: int) -> TokenMetadata:
    """The metadata of one sample, both buffers together, in logical order."""
    both = zip(batch.understanding, batch.generation, strict=True)
    metadata = TokenMetadata(*(np.concatenate([a[row], b[row]]) for a, b in both))
    keep = np.flatnonzero(metadata.sample == sample)
    keep = keep[np.argsort(metadata.order[keep], kind="stable")]
    return TokenMetadata(*(field[keep] for field in metadata))


def batch_of(*rows, capacities=ROOMY):
    """A batch whose rows are tuples of plans."""
    packed = []
    for plans_of_row in rows:
        samples = [lay_out(plan, LAYOUT, TOKENIZER, occurrence=i) for i, plan in enumerate(plans_of_row)]
        packed.append(pack_row(samples, capacities, LAYOUT))
    return make_batch(packed)


@settings(max_examples=60, deadline=None)
@given(plan=plans)
def test_every_token_of_a_sample_lies_in_the_batch_once(plan):
    sequence = sequence_of(batch_of((plan,)), 0, 1)
    np.testing.assert_array_equal(sequence.order, np.arange(len(slow_sequence(plan))))


@settings(max_examples=60, deadline=None)
@given(plan=plans)
def test_visibility_is_the_slow_statement(plan):
    sequence = sequence_of(batch_of((plan,)), 0, 1)
    slow = slow_sequence(plan)
    expected = [[slow_visible(slow, i, j) for j in range(len(slow))] for i in range(len(slow))]
    np.testing.assert_array_equal(
        pairwise_visible(sequence, sequence), np.array(expected, bool).reshape(len(slow), len(slow))
    )


@settings(max_examples=60, deadline=None)
@given(plan=plans)
def test_positions_are_the_slow_statement(plan):
    sequence = sequence_of(batch_of((plan,)), 0, 1)
    np.testing.assert_array_equal(sequence.position, [token.position for token in slow_sequence(plan)])


@settings(max_examples=60, deadline=None)
@given(plan=plans)
def test_lengths_are_known_before_laying_out(plan):
    regions = lay_out(plan, LAYOUT, TOKENIZER)
    assert sample_lengths(plan, LAYOUT) == {region: len(tokens) for region, tokens in regions.items()}


@settings(max_examples=40, deadline=None)
@given(row=st.lists(plans, min_size=1, max_size=4))
def test_a_packed_sample_is_the_sample_alone(row):
    packed = batch_of(row)
    for number, plan in enumerate(row, start=1):
        alone, among = sequence_of(batch_of((plan,)), 0, 1), sequence_of(packed, 0, number)
        for name in ("role", "order", "last_visible", "block", "position"):
            np.testing.assert_array_equal(getattr(among, name), getattr(alone, name))


@settings(max_examples=30, deadline=None)
@given(row=st.lists(plans, min_size=2, max_size=3))
def test_samples_and_padding_do_not_see_each_other(row):
    batch = batch_of(row)
    both = TokenMetadata(
        *(np.concatenate([a[0], b[0]]) for a, b in zip(batch.understanding, batch.generation, strict=True))
    )
    seen = pairwise_visible(both, both)
    assert not np.any(seen & (both.sample[:, None] != both.sample[None, :]))
    assert not np.any(seen[both.sample == 0])
    assert not np.any(seen[:, both.sample == 0])


@settings(max_examples=30, deadline=None)
@given(row=st.lists(plans, min_size=1, max_size=3))
def test_images_of_a_row_have_numbers_of_their_own(row):
    batch = batch_of(row)
    lengths = [len(i.pixels) * i.pixels.shape[1] // LAYOUT.vit_patch_size**2 for p in row for i in p if is_vit(i)]
    np.testing.assert_array_equal(np.bincount(batch.vit_image[0], minlength=len(lengths) + 1)[1:], lengths)


def is_vit(item) -> bool:
    return isinstance(item, VitImage)


def text_tokens(batch, array):
    """`[sample tokens]` of the text region of the first row, in logical order."""
    width = batch.text_ids.shape[1]
    sample, order = batch.understanding.sample[0, :width], batch.understanding.order[0, :width]
    keep = np.flatnonzero(sample > 0)
    return array[0][keep[np.argsort(order[keep])]].tolist()


def test_an_answer_trains_every_token_but_the_first():
    batch = batch_of(((Text(ids=(5, 6), answer=True),),))
    assert text_tokens(batch, batch.text_ids) == [TOKENIZER.start, 5, 6, TOKENIZER.end]
    assert text_tokens(batch, batch.text_labels)[:3] == [5, 6, TOKENIZER.end]
    assert text_tokens(batch, batch.text_loss) == [True, True, True, False]


def test_context_text_trains_nothing():
    assert not batch_of(((Text(ids=(5, 6)),),)).text_loss.any()


def test_a_label_on_the_closing_token_trains_what_follows_it():
    batch = batch_of(((NoisedTarget(pixels=pixels(1, 1, LAYOUT.pixels_per_token), closing_label=9),),))
    assert text_tokens(batch, batch.text_ids) == [TOKENIZER.image_start, TOKENIZER.image_end]
    assert text_tokens(batch, batch.text_loss) == [False, True]
    assert text_tokens(batch, batch.text_labels)[1] == 9


def test_a_caption_trains_every_token_but_the_closing_one():
    batch = batch_of(((NoisedTarget(pixels=pixels(1, 1, LAYOUT.pixels_per_token), caption=(5, 6)),),))
    assert batch.caption_ids[0, :4].tolist() == [TOKENIZER.start, 5, 6, TOKENIZER.end]
    assert batch.caption_labels[0, :3].tolist() == [5, 6, TOKENIZER.end]
    assert batch.caption_loss[0, :5].tolist() == [True, True, True, False, False]


def test_metaqueries_are_numbered_row_by_row_over_the_patches_they_predict():
    query_pixels = pixels(2, 2, LAYOUT.vit_patch_size)
    target = NoisedTarget(pixels=pixels(1, 1, LAYOUT.pixels_per_token), query_pixels=query_pixels)
    batch = batch_of(((target,),))
    assert batch.query_index[0, :4].tolist() == [0, 1, 2, 3]
    assert batch.target_positions[0, :4].tolist() == [0, 1, LAYOUT.vit_table_side, LAYOUT.vit_table_side + 1]
    np.testing.assert_array_equal(batch.target_patches[0, 1], query_pixels[:4, 4:].reshape(-1))
    assert batch.query_loss[0, :5].tolist() == [True] * 4 + [False]


def test_only_noised_targets_train_flow_and_only_they_have_all_their_time():
    side = LAYOUT.pixels_per_token
    plan = (
        CleanLatents(pixels=pixels(1, 1, side)),
        CleanLatents(pixels=pixels(1, 1, side), time_scale=0.5),
        NoisedTarget(pixels=pixels(1, 1, side)),
    )
    batch = batch_of((plan,))
    assert batch.latent_time_scale[0, :3].tolist() == [0.0, 0.5, 1.0]
    assert batch.latent_loss[0, :4].tolist() == [False, False, True, False]


def test_supervision_draws_its_time_from_its_own_noised_image():
    side, patch = LAYOUT.pixels_per_token, LAYOUT.vit_patch_size
    plan = (
        CleanLatents(pixels=pixels(1, 1, side)),
        NoisedTarget(pixels=pixels(1, 2, side), caption=(1,), query_pixels=pixels(1, 1, patch)),
    )
    batch = make_batch([pack_row([lay_out(plan, LAYOUT, TOKENIZER, occurrence=7, task="editing")], ROOMY, LAYOUT)])
    assert batch.latent_source.image[0, :3].tolist() == [0, 1, 1]
    for source, tokens in ((batch.latent_source, 3), (batch.caption_source, 3), (batch.query_source, 1)):
        assert set(source.occurrence[0, :tokens].tolist()) == {7}
        assert set(source.task[0, :tokens].tolist()) == {1}
    assert set(batch.caption_source.image[0, :3].tolist()) == {1}
    assert batch.query_source.image[0, 0] == 1


def test_padding_share_is_per_region():
    batch = batch_of(((Text(ids=(1, 2)),),), capacities=dict.fromkeys(REGIONS, 0) | {"text": 16, "vit": 4})
    assert padding_share(batch) == {"text": 0.75, "vit": 1.0}


def test_an_empty_row_is_all_padding():
    batch = batch_of((), capacities=dict.fromkeys(REGIONS, 4))
    assert set(padding_share(batch).values()) == {1.0}


def test_arrays_have_the_dtypes_of_a_batch():
    batch = batch_of(((Text(ids=(1, 2)),),))
    assert batch.understanding.sample.dtype == batch.vit_image.dtype == batch.text_ids.dtype == np.int32
    assert batch.text_loss.dtype == np.bool_
    assert batch.vit_patches.dtype == batch.latent_moments.dtype == np.uint8
    assert batch.latent_time_scale.dtype == np.float32


def test_samples_that_do_not_fit_are_refused_by_region():
    sample = lay_out((Text(ids=(1, 2)),), LAYOUT, TOKENIZER)
    with pytest.raises(ValueError, match="text_tokens"):
        pack_row([sample, sample], dict.fromkeys(REGIONS, 7), LAYOUT)


def test_a_grid_larger_than_the_latent_table_is_refused():
    side = (LAYOUT.max_latent_size + 1) * LAYOUT.pixels_per_token
    plan = (NoisedTarget(pixels=np.zeros((LAYOUT.pixels_per_token, side, 3), np.uint8)),)
    with pytest.raises(ValueError, match="position table of 4x4"):
        lay_out(plan, LAYOUT, TOKENIZER)


def test_more_patches_than_metaqueries_are_refused():
    target = NoisedTarget(pixels=pixels(1, 1, LAYOUT.pixels_per_token), query_pixels=np.zeros((12, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="6 patches of 4, more than the 4 rows"):
        lay_out((target,), LAYOUT, TOKENIZER)


def test_a_clip_must_have_its_last_frame():
    frame = CleanLatents(pixels=pixels(1, 1, LAYOUT.pixels_per_token), joins_next=True)
    with pytest.raises(ValueError, match="joins the next"):
        lay_out((frame,), LAYOUT, TOKENIZER)
    with pytest.raises(ValueError, match="follows latents that join"):
        lay_out((frame, Text(ids=())), LAYOUT, TOKENIZER)
