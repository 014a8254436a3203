"""RoBERTa (Liu et al. 2019) as transformers' `roberta`, and with pre-norm as `roberta-prelayernorm`.

Positions start at the padding id + 1. The prediction head always has the exact GELU. There is no pair head. The
classification head is RoBERTa's own.
"""

from bert.huggingface.bert import CONFIG, REQUIRED, encoder_names
from bert.huggingface.family import Family, Field, Names

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


def _family(model_type: str, prefix: str, their_class: str, norm: str, encoder: Names) -> Family:
    return Family(
        model_type=model_type,
        prefix=prefix,
        classes={
            "EncoderModel": f"{their_class}Model",
            "MaskedLanguageModel": f"{their_class}ForMaskedLM",
            "PretrainingModel": f"{their_class}ForMaskedLM",
            "SequenceClassifier": f"{their_class}ForSequenceClassification",
            "TokenClassifier": f"{their_class}ForTokenClassification",
        },
        constant={
            "positions": "learned",
            "norm": norm,
            "feed_forward": "mlp",
            "head_activation": "gelu",
            "classifier": "dense",
        },
        config=_CONFIG,
        encoder=encoder,
        heads={
            "EncoderModel": {"pooler.dense": f"{prefix}.pooler.dense"},
            "MaskedLanguageModel": _PREDICTIONS,
            "PretrainingModel": _PREDICTIONS,
            "SequenceClassifier": {"pooler.dense": "classifier.dense", "classifier": "classifier.out_proj"},
            "TokenClassifier": {"classifier": "classifier"},
        },
        required=REQUIRED,
    )


ROBERTA = _family("roberta", "roberta", "Roberta", "post", encoder_names("roberta"))
ROBERTA_PRENORM = _family(
    model_type="roberta-prelayernorm",
    prefix="roberta_prelayernorm",
    their_class="RobertaPreLayerNorm",
    norm="pre",
    encoder={
        **encoder_names("roberta_prelayernorm", "LayerNorm", "intermediate.LayerNorm"),
        "encoder.final_norm": "roberta_prelayernorm.LayerNorm",
    },
)
