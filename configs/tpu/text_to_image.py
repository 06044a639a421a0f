"""Common part of the slice configs: UNO on BAGEL-7B-MoT for text to image at 1024 x 1024, one image per row.

A row has 4096 latents, 256 context tokens (prompt and delimiters), 256 caption tokens and 256 metaqueries. Latent
moments are inputs of the train step. The vision encoder runs within the step, on the 256 target patches of the
metaqueries.
"""

from ml_collections import ConfigDict

from configs import bagel_7b_uno


def with_rows(rows: int) -> ConfigDict:
    """Returns `bagel_7b_uno` without edits, with `rows` images per step and with EMA."""
    config = bagel_7b_uno.get_config()
    data = config.data
    data.task_weights = {"text_to_image": 1.0}
    data.rows = data.virtual_shards = rows
    data.text_tokens, data.vit_tokens, data.latent_tokens = 256, 0, 4096
    data.caption_tokens, data.query_tokens = 256, 256
    config.optimizer.ema_decay = 0.9999
    return config
