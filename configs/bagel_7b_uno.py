"""UNO post-training of BAGEL-7B-MoT: 5,000 steps on high-quality text-image pairs and edits.

Give `--config.init_from=DIR` (the published checkpoint's files, its tokenizer among them) and
`--config.data.directory=DIR` (a prepared dataset). The paper does not publish loss weights, number of metaqueries and
learning rate; these are ours. The frozen understanding expert and encoders are bfloat16 as published, the trainable
generation expert has a float32 master.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """Published sizes and settings, with UNO's plan."""
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
    data.vae_transform.update(max_side=1024, min_side=512, stride=16)
    data.vit_transform.update(max_side=518, min_side=224, stride=14)
    data.metaquery_transform.update(max_side=224, min_side=14, stride=14)

    config.objective.update(caption_weight=0.25, visual_weight=0.5, answer_weight=0.0)
    config.optimizer.update(learning_rate=2e-5, warmup_steps=500)
    config.checkpoint.update(every=500, keep=3)
    config.evaluation.update(every=500, batches=2)
    return config
