"""RoBERTa (Liu et al. 2019) as transformers' `roberta`, with pre-norm as `roberta-prelayernorm` and `xlm-roberta-xl`,
and under other names: XLM-RoBERTa, CamemBERT, data2vec for text.

Positions start at the padding id + 1. The prediction head always has the exact GELU. There is no pair head. The
classification head is RoBERTa's own.
"""

from dataclasses import replace
from typing import Any

from bert.huggingface.bert import CONFIG, REQUIRED, class_names, encoder_names, with_defaults
from bert.huggingface.family import Family, Field

_PREDICTIONS = {"head.dense": "lm_head.dense", "head.norm": "lm_head.layer_norm", "head.bias": "lm_head.bias"}

_CONFIG = (
    *CONFIG,
    Field(
        ours="max_positions",
        theirs="max_position_embeddings",
        default=512,
        read=lambda rows, theirs: rows - theirs.get("pad_token_id", 1) - 1,
        write=lambda ours: ours.max_positions + ours.position_offset,
    ),
    Field("position_offset", "pad_token_id", 1, lambda pad, theirs: pad + 1, lambda ours: ours.pad_token_id),
    Field("pad_token_id", "pad_token_id", 1),
)


def _family(model_type: str, prefix: str, their_class: str, **constant: Any) -> Family:
    """`constant` are our fields in which it differs from RoBERTa."""
    return Family(
        model_type=model_type,
        prefix=prefix,
        classes=class_names(their_class, pretraining="ForMaskedLM"),
        constant={
            "positions": "learned",
            "norm": "post",
            "feed_forward": "mlp",
            "head_activation": "gelu",
            "classifier": "dense",
            **constant,
        },
        config=_CONFIG,
        encoder=encoder_names(prefix),
        heads={
            "EncoderModel": {"pooler.dense": f"{prefix}.pooler.dense"},
            "MaskedLanguageModel": _PREDICTIONS,
            "PretrainingModel": _PREDICTIONS,
            "SequenceClassifier": {"pooler.dense": "classifier.dense", "classifier": "classifier.out_proj"},
            "TokenClassifier": {"classifier": "classifier"},
            "QuestionAnswering": {"classifier": "qa_outputs"},
            "MultipleChoice": {"pooler.dense": f"{prefix}.pooler.dense", "classifier": "classifier"},
        },
        required=REQUIRED,
        older=((r"^lm_head\.decoder\.bias$", "lm_head.bias"),),
    )


ROBERTA = replace(
    _family("roberta", "roberta", "Roberta"),
    config=with_defaults(_CONFIG, vocab_size=50265),
)
XLM_ROBERTA = _family("xlm-roberta", "roberta", "XLMRoberta", family="xlm-roberta")
CAMEMBERT = _family("camembert", "roberta", "Camembert", family="camembert")
DATA2VEC = _family("data2vec-text", "data2vec_text", "Data2VecText", family="data2vec-text")
ROBERTA_PRENORM = replace(
    _family("roberta-prelayernorm", "roberta_prelayernorm", "RobertaPreLayerNorm", norm="pre"),
    config=ROBERTA.config,
    encoder={
        **encoder_names("roberta_prelayernorm", "LayerNorm", "intermediate.LayerNorm"),
        "encoder.final_norm": "roberta_prelayernorm.LayerNorm",
    },
)
XLM_ROBERTA_XL = replace(
    _family("xlm-roberta-xl", "roberta", "XLMRobertaXL", norm="pre", embedding_norm=False),
    config=with_defaults(
        _CONFIG,
        vocab_size=250880,
        hidden_size=2560,
        num_hidden_layers=36,
        num_attention_heads=32,
        intermediate_size=10240,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
    ),
    encoder={
        **encoder_names("roberta", attention_norm="self_attn_layer_norm", feed_forward_norm="LayerNorm"),
        "encoder.final_norm": "roberta.encoder.LayerNorm",
    },
)
