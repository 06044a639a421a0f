"""The autoencoder against `vae.npz`: encoding, sampling and decoding (stored channels first)."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from tests.helpers.public_model import load_public
from tests.reference.harness import Check, Reference, close
from uno_jax.models.autoencoder import make_autoencoder, sample_latents

FILE = "vae.npz"

UNUSED: dict[str, str] = {}


def checks(reference: Reference) -> Iterator[Check]:
    """Every stored image: moments, sampled latents, decoded latents, and decoding of the sampled latents."""
    checkpoint = load_public(reference.directory)
    config = checkpoint.config.autoencoder
    autoencoder = make_autoencoder(config)
    params = checkpoint.autoencoder_params
    encode, decode = (jax.jit(functools.partial(autoencoder.apply, method=method)) for method in ("encode", "decode"))
    for index in sorted({name.split("/")[0] for name in reference.names(FILE)}):
        image, noise, latents = (
            channels_last(reference.array(FILE, f"{index}/{name}")) for name in ("image", "noise", "dec_latent")
        )
        moments = encode({"params": params}, image)
        yield Check(FILE, f"{index}/moments", channels_first(moments), close())
        sampled = sample_latents(moments, jnp.asarray(noise), config.scale, config.shift)
        yield Check(FILE, f"{index}/latent", channels_first(sampled), close())
        decoded = decode({"params": params}, latents)
        yield Check(FILE, f"{index}/decoded", channels_first(decoded), close())
        roundtrip = decode({"params": params}, sampled)
        yield Check(FILE, f"{index}/roundtrip", channels_first(roundtrip), close())


def channels_last(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, 1, -1)


def channels_first(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(np.asarray(x), -1, 1)
