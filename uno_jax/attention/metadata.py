"""Token metadata, and the one definition of which tokens may attend to which."""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Int

# Roles describe visibility only. Losses and times have their own arrays.
PADDING = 0  # neither sees nor is seen
CONTEXT = 1  # context text, delimiters of clean images, ViT tokens, clean (or lightly noised) latents
NOISED = 2  # latents of a noised target, and its two delimiters
CAPTION = 3  # caption of a noised target
METAQUERY = 4  # metaquery of a noised target


class TokenMetadata(NamedTuple):
    """Per-token inputs of attention and RoPE, all int32 `[..., tokens]`.

    `order` defines the sequence, not the place in memory: the tokens of a sample may lie anywhere in the two buffers.
    """

    sample: Int[Any, "*rows tokens"]
    """Number of the sample in its row, from 1; 0 for padding."""
    role: Int[Any, "*rows tokens"]
    """PADDING, CONTEXT, NOISED, CAPTION or METAQUERY."""
    order: Int[Any, "*rows tokens"]
    """Place of the token in its sample's logical sequence, from 0."""
    last_visible: Int[Any, "*rows tokens"]
    """Last `order` that the token may see: its own in causal text, the end of its block in an image."""
    block: Int[Any, "*rows tokens"]
    """Noised block of a NOISED, CAPTION or METAQUERY token, from 1 in each sample; 0 for other roles."""
    position: Int[Any, "*rows tokens"]
    """RoPE position."""


def visible(query: TokenMetadata, key: TokenMetadata) -> Bool[Any, "*broadcast"]:
    """Whether the query token may attend to the key token.

    Elementwise with broadcasting; works on numpy arrays, jax arrays and inside a Pallas kernel. The mask of a sample
    with context text `t`, a context image `i`, a noised block `n`, a caption `c` and metaqueries `q` (rows are queries,
    columns are keys, `1` = visible)::

              t t t  i i  n n n  c c c  q q
          t   1 . .  . .  . . .  . . .  . .     causal text
          t   1 1 .  . .  . . .  . . .  . .
          t   1 1 1  . .  . . .  . . .  . .
          i   1 1 1  1 1  . . .  . . .  . .     a context image sees all of itself and everything before it
          i   1 1 1  1 1  . . .  . . .  . .
          n   1 1 1  1 1  1 1 1  . . .  . .     the noised block sees its context and itself
          n   1 1 1  1 1  1 1 1  . . .  . .
          n   1 1 1  1 1  1 1 1  . . .  . .
          c   . . .  . .  1 1 1  1 . .  . .     a caption sees the noised block and, causally, itself
          c   . . .  . .  1 1 1  1 1 .  . .
          c   . . .  . .  1 1 1  1 1 1  . .
          q   . . .  . .  1 1 1  . . .  1 1     metaqueries see the noised block and each other
          q   . . .  . .  1 1 1  . . .  1 1

    Only the caption and metaqueries of a noised block see it. Later context (a second editing round) does not. Padding
    has sample 0 and is invisible, even to itself.
    """
    same_sample = (query.sample == key.sample) & (key.sample > 0)
    in_time = key.order <= query.last_visible
    sees_context = (key.role == CONTEXT) & ((query.role == CONTEXT) | (query.role == NOISED)) & in_time
    own_block = (key.block == query.block) & (key.block > 0)
    sees_block = own_block & ((key.role == NOISED) | ((key.role == query.role) & in_time))
    return same_sample & (sees_context | sees_block)


def whole_images(image: Int[Array, "*rows tokens"]) -> TokenMetadata:
    """Metadata of tokens that see exactly their own image; `image` is its number from 1, 0 for padding."""
    nought = image * 0
    return TokenMetadata(
        sample=image, role=nought + CONTEXT, order=nought, last_visible=nought, block=nought, position=nought
    )


def pairwise_visible(query: TokenMetadata, key: TokenMetadata) -> Bool[Any, "*rows queries keys"]:
    """Evaluates `visible` for all pairs of query tokens `[..., queries]` and key tokens `[..., keys]`."""
    expand_query = TokenMetadata(*(x[..., :, None] for x in query))
    expand_key = TokenMetadata(*(x[..., None, :] for x in key))
    return visible(expand_query, expand_key)
