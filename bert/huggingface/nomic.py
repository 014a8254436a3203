"""Nomic BERT (Nussbaum et al. 2024) as transformers' `nomic_bert`: BERT with rotary positions and a gated unit."""

from dataclasses import replace

from bert.huggingface import rotary
from bert.huggingface.bert import CONFIG
from bert.huggingface.family import Family, Field, read_num_heads

_THEIRS, _OURS = "nomic_bert.layers.{i}", "encoder.layers.{i}"
_POOLER = {"pooler.dense": "nomic_bert.pooler.dense"}
_PREDICTIONS = {
    "head.dense": "cls.predictions.transform.dense",
    "head.norm": "cls.predictions.transform.layer_norm",
    "head.bias": "cls.predictions.bias",
}
_CHANGED = {"activation": "silu", "dropout": 0.0, "attention_dropout": 0.0, "vocab_size": 30528}
"""defaults that are not BERT's"""

NOMIC = Family(
    model_type="nomic_bert",
    prefix="nomic_bert",
    classes={
        "EncoderModel": "NomicBertModel",
        "MaskedLanguageModel": "NomicBertForMaskedLM",
        "PretrainingModel": "NomicBertForMaskedLM",
        "SequenceClassifier": "NomicBertForSequenceClassification",
        "TokenClassifier": "NomicBertForTokenClassification",
    },
    constant={
        "positions": "rotary",
        "norm": "post",
        "feed_forward": "glu",
        "attention_bias": False,
        "feed_forward_bias": False,
        "classifier": "pooler",
        "pooler": False,
    },
    config=(
        *(replace(field, default=_CHANGED.get(field.ours, field.default)) for field in CONFIG),
        Field("num_heads", "num_attention_heads", 12, read_num_heads),
        Field("max_positions", "max_position_embeddings", 2048),
        Field(
            ours="rotary_base",
            theirs="rope_parameters",
            default=None,
            read=rotary.read_base("rope_theta", 1000.0),
            write=rotary.write_base,
        ),
        Field("pad_token_id", "pad_token_id", 0),
    ),
    encoder={
        "encoder.embeddings.tokens": "nomic_bert.embeddings.word_embeddings",
        "encoder.embeddings.segments": "nomic_bert.embeddings.token_type_embeddings",
        "encoder.embeddings.norm": "nomic_bert.embeddings.LayerNorm",
        f"{_OURS}.attention.qkv": tuple(f"{_THEIRS}.self_attn.{part}_proj" for part in "qkv"),
        f"{_OURS}.attention.out": f"{_THEIRS}.self_attn.o_proj",
        f"{_OURS}.attention_norm": f"{_THEIRS}.post_attention_layernorm",
        f"{_OURS}.feed_forward.up": (f"{_THEIRS}.mlp.gate_proj", f"{_THEIRS}.mlp.up_proj"),
        f"{_OURS}.feed_forward.down": f"{_THEIRS}.mlp.down_proj",
        f"{_OURS}.feed_forward_norm": f"{_THEIRS}.post_mlp_layernorm",
    },
    heads={
        "EncoderModel": {},
        "MaskedLanguageModel": _PREDICTIONS,
        "PretrainingModel": _PREDICTIONS,
        "SequenceClassifier": {**_POOLER, "classifier": "classifier"},
        "TokenClassifier": {"classifier": "classifier"},
    },
    required={"tie_word_embeddings": True, **rotary.REQUIRED},
    older=(
        (r"\bencoder\.layers\b", "layers"),
        (r"\bemb_ln\b", "embeddings.LayerNorm"),
        (r"\battn\.Wqkv\b", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
        (r"\battn\.out_proj\b", "self_attn.o_proj"),
        (r"\bfc11\b", "up_proj"),
        (r"\bfc12\b", "gate_proj"),
        (r"\bfc2\b", "down_proj"),
        (r"\bnorm1\b", "post_attention_layernorm"),
        (r"\bnorm2\b", "post_mlp_layernorm"),
    ),
)
