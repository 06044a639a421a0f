"""UNO post-training of BAGEL-7B-MoT: 5,000 steps on high-quality text-image pairs and edits.

Requires `--config.init_from=DIR` (the files of the published checkpoint, including its tokenizer) and
`--config.data.directory=DIR` (a prepared dataset). The paper does not state the loss weights, the number of metaqueries
and the learning rate; the values here are our choice. The frozen understanding expert and encoders are bfloat16, as
published. The trainable generation expert has float32 master weights.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """Returns the published sizes and settings with the UNO method."""
    config = base.get_config()
    config.steps = 5000
    config.frozen_dtype = "bfloat16"
    config.model.compute_dtype = "bfloat16"
    config.model.decoder.remat = "full"
    config.model.num_metaqueries = 256

    data = config.data
    data.method = "uno"
    data.rows = 64
    data.virtual_shards = 64
    data.text_tokens, data.vit_tokens, data.caption_tokens, data.query_tokens = 1024, 1536, 512, 512
    data.latent_tokens = 8192
    data.long_captions = "replace"
    data.vae_transform.update(max_side=1024, min_side=512, stride=16)
    data.vit_transform.update(max_side=518, min_side=224, stride=14)
    data.metaquery_transform.update(max_side=224, min_side=14, stride=14)

    config.objective.update(caption_weight=0.25, visual_weight=0.5, answer_weight=0.0)
    config.optimizer.update(learning_rate=2e-5, warmup_steps=500)
    config.checkpoint.update(every=500, every_minutes=20.0, keep=3)
    config.evaluation.every = 500
    return config
