"""Token metadata and the one statement of who may look at whom."""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Int

# Roles describe visibility only. Losses and times are arrays of their own.
PADDING = 0  # sees nothing and is seen by nothing
CONTEXT = 1  # context text, delimiters of clean images, ViT tokens, clean (or lightly noised) latents
NOISED = 2  # latents of a noised target, and its two delimiters
CAPTION = 3  # caption of a noised target
METAQUERY = 4  # metaquery of a noised target


class TokenMetadata(NamedTuple):
    """What attention and RoPE need to know of every token, all int32 `[..., tokens]`.

    Order lives here and not in memory: the tokens of one sample may lie anywhere in the two buffers.
    """

    sample: Int[Any, "*rows tokens"]
    """Number of the sample in its row, from 1; 0 for padding."""
    role: Int[Any, "*rows tokens"]
    """PADDING, CONTEXT, NOISED, CAPTION or METAQUERY."""
    order: Int[Any, "*rows tokens"]
    """Place of the token in its sample's logical sequence, from 0."""
    last_visible: Int[Any, "*rows tokens"]
    """The last order index that the token may see: its own in causal text, that of its block's end in an image."""
    block: Int[Any, "*rows tokens"]
    """The noised block that a NOISED, CAPTION or METAQUERY token belongs to, from 1 in each sample; else 0."""
    position: Int[Any, "*rows tokens"]
    """RoPE position."""


def visible(query: TokenMetadata, key: TokenMetadata) -> Bool[Any, "*broadcast"]:
    """Whether the query token may attend to the key token (design: one sample's visibility).

    Pure, elementwise and broadcasting; works on numpy arrays, jax arrays and inside a Pallas kernel. One sample of
    context text `t`, a context image `i`, a noised block `n`, caption `c` and metaqueries `q` (rows look, columns
    are looked at, `1` = visible)::

              t t t  i i  n n n  c c c  q q
          t   1 . .  . .  . . .  . . .  . .     causal text
          t   1 1 .  . .  . . .  . . .  . .
          t   1 1 1  . .  . . .  . . .  . .
          i   1 1 1  1 1  . . .  . . .  . .     a context image sees itself whole, and everything before it
          i   1 1 1  1 1  . . .  . . .  . .
          n   1 1 1  1 1  1 1 1  . . .  . .     the noised block sees its context and itself
          n   1 1 1  1 1  1 1 1  . . .  . .
          n   1 1 1  1 1  1 1 1  . . .  . .
          c   . . .  . .  1 1 1  1 . .  . .     a caption sees the noised block and, causally, itself
          c   . . .  . .  1 1 1  1 1 .  . .
          c   . . .  . .  1 1 1  1 1 1  . .
          q   . . .  . .  1 1 1  . . .  1 1     metaqueries see the noised block and each other
          q   . . .  . .  1 1 1  . . .  1 1

    Context that follows a noised block (a second editing round) does not see it: only its own caption and
    metaqueries do. Padding has sample 0 and is seen by nothing, itself included.
    """
    same_sample = (query.sample == key.sample) & (key.sample > 0)
    in_time = key.order <= query.last_visible
    sees_context = (key.role == CONTEXT) & ((query.role == CONTEXT) | (query.role == NOISED)) & in_time
    own_block = (key.block == query.block) & (key.block > 0)
    sees_block = own_block & ((key.role == NOISED) | ((key.role == query.role) & in_time))
    return same_sample & (sees_context | sees_block)


def whole_images(image: Int[Array, "*rows tokens"]) -> TokenMetadata:
    """Metadata of tokens that see their own image and nothing else; `image` is its number, from 1, and 0 is padding."""
    nought = image * 0
    return TokenMetadata(
        sample=image, role=nought + CONTEXT, order=nought, last_visible=nought, block=nought, position=nought
    )


def pairwise_visible(query: TokenMetadata, key: TokenMetadata) -> Bool[Any, "*rows queries keys"]:
    """`visible` of every query token `[..., queries]` with every key token `[..., keys]`: `[..., queries, keys]`."""
    expand_query = TokenMetadata(*(x[..., :, None] for x in query))
    expand_key = TokenMetadata(*(x[..., None, :] for x in key))
    return visible(expand_query, expand_key)
