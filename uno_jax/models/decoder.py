"""The two-expert decoder: two dense stacks with joint attention in every layer."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

from uno_jax.attention.attend import Visibility, attend, visibility
from uno_jax.attention.flash import SAVED_PRIMITIVE
from uno_jax.attention.kernel import SAVED_NAMES
from uno_jax.attention.metadata import TokenMetadata
from uno_jax.models import apart
from uno_jax.models.adapters import ExpertAdapters
from uno_jax.models.config import DecoderConfig, Remat
from uno_jax.models.linear import Linear
from uno_jax.models.positions import apply_rope, rope_tables
from uno_jax.parallel.axes import constrain
from uno_jax.parallel.parameters import lookup

_POLICIES = jax.checkpoint_policies


def _save(*names: str) -> Any:
    """Policy that saves arrays of these names and the outputs of attention."""

    def of_flash(primitive: Any, *_: Any, **__: Any) -> bool:
        return bool(primitive.name == SAVED_PRIMITIVE)

    return _POLICIES.save_from_both_policies(_POLICIES.save_only_these_names(*SAVED_NAMES, *names), of_flash)


REMAT_POLICIES: dict[Remat, Any] = {
    "offload": _POLICIES.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=["layer_input"],
        offload_src="device",
        offload_dst="pinned_host",
    ),
    "full": _POLICIES.nothing_saveable,
    "save_attention": _save(),
    "save_projections": _save("projection", "attended"),
    "dots": _POLICIES.save_from_both_policies(_POLICIES.dots_with_no_batch_dims_saveable, _save()),
}
"""Rematerialisation policies, from the one that saves the least to the most; see `DecoderConfig.remat`."""


class Streams(NamedTuple):
    """Hidden states of the two token buffers."""

    understanding: Float[Array, "batch understanding features"]
    generation: Float[Array, "batch generation features"]


class KVCache(NamedTuple):
    """Keys, values and metadata of the tokens already read by every layer.

    The order of the slots has no meaning: `metadata` determines visibility, and slots with sample 0 are empty.
    """

    keys: Float[Array, "layers batch slots kv_heads head_dim"]
    """Keys after RoPE, in the compute dtype."""
    values: Float[Array, "layers batch slots kv_heads head_dim"]
    """Values, in the compute dtype."""
    metadata: TokenMetadata
    """Metadata of every slot, `[batch, slots]`."""


class Expert(nn.Module):
    """One expert's parameters in one decoder layer. Only query, key and value have biases."""

    config: DecoderConfig
    dtype: Any
    adapted: bool = False
    """Whether the linear layers have low-rank adapters."""

    def setup(self) -> None:
        config, dense = self.config, functools.partial(Linear, dtype=self.dtype)
        norm = functools.partial(nn.RMSNorm, epsilon=config.norm_eps, dtype=jnp.float32)
        self.attention_norm, self.mlp_norm, self.query_norm, self.key_norm = norm(), norm(), norm(), norm()
        self.query = dense(config.num_heads * config.head_dim)
        self.key = dense(config.num_kv_heads * config.head_dim)
        self.value = dense(config.num_kv_heads * config.head_dim)
        self.output = dense(config.hidden_size, use_bias=False)
        self.gate = dense(config.mlp_size, use_bias=False)
        self.up = dense(config.mlp_size, use_bias=False)
        self.down = dense(config.hidden_size, use_bias=False)
        if self.adapted:
            self.adapters = ExpertAdapters(config, self.dtype)

    def linear(self, name: str, x: Float[Array, "*tokens inputs"]) -> Float[Array, "*tokens outputs"]:
        """Applies the linear layer `name` and, if there is one, its adapter."""
        y: Array = getattr(self, name)(x)
        return y + self.adapters(name, x) if self.adapted else y

    def project(self, x: Float[Array, "batch tokens features"], cos: Array, sin: Array) -> tuple[Array, Array, Array]:
        """Query, key and value heads `[batch, tokens, heads, head_dim]`, after per-head q and k norms and RoPE."""
        y = self.attention_norm(x).astype(self.dtype)
        heads, kv_heads, head_dim = self.config.num_heads, self.config.num_kv_heads, self.config.head_dim
        query, key, value = (
            checkpoint_name(self.linear(name, y), "projection").reshape(*x.shape[:-1], count, head_dim)
            for name, count in (("query", heads), ("key", kv_heads), ("value", kv_heads))
        )
        query = constrain(query, "batch", "tokens", "heads", None)
        key, value = (constrain(x, "batch", "tokens", "kv_heads", None) for x in (key, value))
        query = apply_rope(self.query_norm(query), cos, sin).astype(self.dtype)
        key = apply_rope(self.key_norm(key), cos, sin).astype(self.dtype)
        return query, key, value

    def finish(
        self, x: Float[Array, "batch tokens features"], attended: Array
    ) -> Float[Array, "batch tokens features"]:
        """Output projection and SwiGLU MLP, each with its residual connection."""
        attended = attended.reshape(*x.shape[:-1], self.config.num_heads * self.config.head_dim)
        x = checkpoint_name(x + self.linear("output", attended), "attended")
        y = self.mlp_norm(x).astype(self.dtype)
        inner = constrain(nn.silu(self.linear("gate", y)) * self.linear("up", y), "batch", "tokens", "mlp")
        return constrain(x + self.linear("down", inner), "batch", "tokens", None)


class DecoderLayer(nn.Module):
    """One layer: each expert computes its own tokens, and all tokens attend to the keys and values of both experts.

    The concatenated keys and values are sown as `keys_values` in the collection `cache`, at no cost unless the caller
    makes it mutable. In the layer whose `keep` is True, its generation stream replaces the second part of the carry.
    Both are None if no layer's stream is kept.
    """

    config: DecoderConfig
    dtype: Any

    @nn.compact
    def __call__(
        self,
        carry: tuple[Streams, Array | None],
        rope: tuple[tuple[Array, Array], ...],
        seen: Visibility,
        cache: tuple[Array, Array] | None,
        keep: Bool[Array, ""] | None,
    ) -> tuple[tuple[Streams, Array | None], None]:
        streams, kept = carry
        streams = Streams(*(checkpoint_name(x, "layer_input") for x in streams))
        understanding = Expert(self.config, self.dtype, name="understanding")
        generation = Expert(self.config, self.dtype, self.config.adapter_rank > 0, name="generation")
        first = understanding.project(streams.understanding, *rope[0])
        second = generation.project(streams.generation, *rope[1])
        query, key, value = zip(first, second, strict=True)
        self.sow("cache", "keys_values", (jnp.concatenate(key, axis=1), jnp.concatenate(value, axis=1)))
        cached_key, cached_value = ((), ()) if cache is None else ((cache[0],), (cache[1],))
        attended = attend(query, (*cached_key, *key), (*cached_value, *value), seen)
        streams = Streams(
            understanding.finish(streams.understanding, attended[0]),
            generation.finish(streams.generation, attended[1]),
        )
        self.sow("intermediates", "hidden", streams)
        if kept is not None and keep is not None:
            kept = jnp.where(keep, streams.generation, kept)
        return (streams, kept), None


class Decoder(nn.Module):
    """Qwen2.5-shaped decoder with two experts, an embedding, and an untied vocabulary head.

    The parameters of all layers are stacked for `nn.scan`, or kept apart (`models/apart.py`) for a program without a
    loop. Unrolling and the rematerialisation policy are config fields that do not change a checkpoint.
    """

    config: DecoderConfig
    dtype: Any = jnp.float32

    def setup(self) -> None:
        config = self.config
        layer = DecoderLayer
        if config.remat != "none":
            layer = nn.remat(layer, policy=REMAT_POLICIES[config.remat], prevent_cse=False)
        self.layers = nn.scan(
            layer,
            variable_axes={"params": 0, "intermediates": 0, "cache": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, nn.broadcast, 0, 0),
            length=config.num_layers,
            unroll=config.scan_unroll,
        )(config, self.dtype)
        self.embedding = self.param(
            "embedding", nn.initializers.normal(0.02), (config.vocab_size, config.hidden_size), jnp.float32
        )
        self.norm = ExpertNorms(config)
        self.head = Linear(config.vocab_size, use_bias=False, dtype=self.dtype)

    def embed(self, ids: Int[Any, "batch tokens"]) -> Float[Array, "batch tokens features"]:
        """Embeds token ids, in the compute dtype."""
        return lookup(self.embedding, ids, (*self.path, "embedding")).astype(self.dtype)

    def __call__(
        self, streams: Streams, understanding: TokenMetadata, generation: TokenMetadata, cache: KVCache | None = None
    ) -> Streams:
        """Final hidden states of both buffers, after the final norm of each expert.

        Tokens attend to the tokens of both buffers and of `cache`, subject to `visible`.
        """
        return self.norm(self.residual_stream(streams, understanding, generation, cache))

    def with_states(
        self, streams: Streams, understanding: TokenMetadata, generation: TokenMetadata, layer: int
    ) -> tuple[Streams, Float[Array, "batch generation features"]]:
        """`__call__`, and the residual stream of the generation expert after the layer `layer`, from 1."""
        last, kept = self._run(streams, understanding, generation, None, layer)
        assert kept is not None, "no layer is kept"
        return self.norm(last), kept

    def residual_stream(
        self,
        streams: Streams,
        understanding: TokenMetadata,
        generation: TokenMetadata,
        cache: KVCache | None = None,
        *,
        all_valid: bool = False,
    ) -> Streams:
        """Residual stream after the last layer, before the final norm.

        With `all_valid`, every valid token sees all valid tokens of its row and of `cache`.
        """
        return self._run(streams, understanding, generation, cache, all_valid=all_valid)[0]

    def _run(
        self,
        streams: Streams,
        understanding: TokenMetadata,
        generation: TokenMetadata,
        cache: KVCache | None,
        kept_layer: int = 0,
        *,
        all_valid: bool = False,
    ) -> tuple[Streams, Array | None]:
        """Residual stream after the last layer, and that of the generation expert after `kept_layer` (0: none)."""
        metadata = (understanding, generation)
        keys = metadata if cache is None else (cache.metadata, *metadata)
        seen = visibility(metadata, keys, self.config.attention, self.dtype, all_valid=all_valid)
        rope = tuple(rope_tables(x.position, self.config.head_dim, self.config.rope_theta) for x in metadata)
        streams = Streams(*(constrain(x.astype(self.dtype), "batch", "tokens", None) for x in streams))
        # Carried through the loop and not stacked by it, so that one layer's states are in memory, not those of all.
        keep = jnp.arange(1, self.config.num_layers + 1) == kept_layer if kept_layer else None
        kept = jnp.zeros_like(streams.generation) if kept_layer else None
        cached = cache and (cache.keys, cache.values)
        parameters = self.variables.get("params", {}).get("layers", {})
        if any(map(apart.is_apart, jax.tree.leaves(parameters, is_leaf=apart.is_apart))):
            return self._run_apart(parameters, (streams, kept), rope, seen, cached, keep)
        (streams, kept), _ = self.layers((streams, kept), rope, seen, cached, keep)
        return streams, kept

    def _run_apart(
        self,
        parameters: Any,
        carry: tuple[Streams, Array | None],
        rope: tuple[tuple[Array, Array], ...],
        seen: Visibility,
        cached: tuple[Array, Array] | None,
        keep: Bool[Array, " layers"] | None,
    ) -> tuple[Streams, Array | None]:
        """`self.layers` with parameters that are kept apart: one layer after the other, with the same sown arrays."""
        layer = DecoderLayer(self.config, self.dtype, parent=None)
        wanted = [name for name in ("cache", "intermediates") if self.is_mutable_collection(name)]

        def run(params: Any, carry: Any, cached: Any, keep: Any) -> Any:
            (carry, _), sown = layer.apply({"params": params}, carry, rope, seen, cached, keep, mutable=wanted)
            return carry, sown

        if self.config.remat != "none":
            run = jax.checkpoint(run, policy=REMAT_POLICIES[self.config.remat])
        sown = []
        for i in range(self.config.num_layers):
            own = None if cached is None else (cached[0][i], cached[1][i])
            carry, of_layer = run(apart.layer(parameters, i), carry, own, None if keep is None else keep[i])
            sown.append(of_layer)
        together = jax.tree.map(lambda *arrays: jnp.stack(arrays), *sown)
        for name in wanted:
            self.put_variable(name, "layers", together[name])
        return carry

    def logits(self, hidden: Float[Array, "batch tokens features"]) -> Float[Array, "batch tokens vocab"]:
        """Vocabulary logits, float32."""
        return constrain(self.head(hidden).astype(jnp.float32), "batch", "tokens", "vocab")


class ExpertNorms(nn.Module):
    """The final norm of each expert. Results have the dtype of the streams."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, streams: Streams) -> Streams:
        norm = functools.partial(nn.RMSNorm, epsilon=self.config.norm_eps, dtype=jnp.float32)
        return Streams(
            norm(name="understanding")(streams.understanding).astype(streams.understanding.dtype),
            norm(name="generation")(streams.generation).astype(streams.generation.dtype),
        )
