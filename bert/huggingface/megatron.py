"""Megatron's BERT (Shoeybi et al. 2019) as transformers' `megatron-bert`: pre-norm, with unnormed embeddings."""

from dataclasses import replace

from bert.huggingface.bert import BERT, CONSTANT, SHAPE, class_names, encoder_names, with_defaults

MEGATRON = replace(
    BERT,
    model_type="megatron-bert",
    classes=class_names("MegatronBert"),
    constant={**CONSTANT, "norm": "pre", "embedding_norm": False},
    config=with_defaults(
        (field for field in SHAPE if field.ours != "classifier_dropout"),
        vocab_size=29056,
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
    ),
    encoder={
        **encoder_names("bert", attention_norm="ln", feed_forward_norm="ln"),
        "encoder.final_norm": "bert.encoder.ln",
    },
)
