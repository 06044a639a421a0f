"""UNO on BAGEL-7B-MoT from text at 1024 x 1024, one picture a row: what the configs of the slices share.

A row is 4096 latents, 256 tokens of context (prompt and delimiters), 256 of caption and 256 metaqueries. The latents'
moments are inputs of the step; the vision encoder runs in it, on the metaqueries' 256 target patches.
"""

from ml_collections import ConfigDict

from configs import bagel_7b_uno


def with_rows(rows: int) -> ConfigDict:
    """`bagel_7b_uno` without edits, with that many pictures a step, and an average of weights."""
    config = bagel_7b_uno.get_config()
    data = config.data
    data.task_weights = {"text_to_image": 1.0}
    data.rows = data.virtual_shards = rows
    data.text_tokens, data.vit_tokens, data.latent_tokens = 256, 0, 4096
    data.caption_tokens, data.query_tokens = 256, 256
    config.optimizer.ema_decay = 0.9999
    return config
