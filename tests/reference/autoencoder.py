"""The autoencoder against `vae.npz`: encoding, sampling and decoding (stored channels first)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tests.reference.harness import Check, Reference, close
from uno_jax.interop.load import load_public
from uno_jax.models.autoencoder import make_autoencoder, sample_latents

FILE = "vae.npz"

UNUSED: dict[str, str] = {}


def checks(reference: Reference) -> Iterator[Check]:
    """Every stored image: moments, sampled latents, decoded latents, and decoding of the sampled latents."""
    checkpoint = load_public(reference.directory)
    config = checkpoint.config.autoencoder
    autoencoder = make_autoencoder(config)
    variables = {"params": checkpoint.autoencoder_params}
    for index in sorted({name.split("/")[0] for name in reference.names(FILE)}):
        image, noise, latents = (
            channels_last(reference.array(FILE, f"{index}/{name}")) for name in ("image", "noise", "dec_latent")
        )
        moments = autoencoder.apply(variables, image, method="encode")
        yield Check(FILE, f"{index}/moments", channels_first(moments), close())
        sampled = sample_latents(moments, noise, config.scale, config.shift)
        yield Check(FILE, f"{index}/latent", channels_first(sampled), close())
        decoded = autoencoder.apply(variables, latents, method="decode")
        yield Check(FILE, f"{index}/decoded", channels_first(decoded), close())
        roundtrip = autoencoder.apply(variables, sampled, method="decode")
        yield Check(FILE, f"{index}/roundtrip", channels_first(roundtrip), close())


def channels_last(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, 1, -1)


def channels_first(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(np.asarray(x), -1, 1)
