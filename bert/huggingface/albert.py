"""ALBERT (Lan et al. 2020) as transformers' `albert`: narrow embeddings, and layers that share their weights.

Its pair head is for sentence order. In training transformers has dropout before that head, which ours has not.
"""

from bert.huggingface.bert import CONSTANT, SHAPE, class_names, encoder_names, with_defaults
from bert.huggingface.family import Family, Field

_LAYER, _THEIR_LAYER = "encoder.layers.{i}", "albert.encoder.albert_layer_groups.{i}.albert_layers.0"
_PREDICTIONS = {
    "head.dense": "predictions.dense",
    "head.norm": "predictions.LayerNorm",
    "head.bias": "predictions.bias",
}
_POOLER = {"pooler.dense": "albert.pooler"}

ALBERT = Family(
    model_type="albert",
    prefix="albert",
    classes=class_names("Albert"),
    constant=CONSTANT,
    config=(
        *with_defaults(
            (field for field in SHAPE if field.ours != "classifier_dropout"),
            vocab_size=30000,
            hidden_size=4096,
            num_attention_heads=64,
            intermediate_size=16384,
            hidden_act="gelu_new",
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        ),
        Field("embedding_size", "embedding_size", 128, write=lambda ours: ours.embedding_width),
        Field(
            ours="num_layer_groups",
            theirs="num_hidden_groups",
            default=1,
            write=lambda ours: ours.num_layer_groups or ours.num_layers,
        ),
        Field(
            ours="classifier_dropout",
            theirs="classifier_dropout_prob",
            default=0.1,
            write=lambda ours: ours.dropout if ours.classifier_dropout is None else ours.classifier_dropout,
        ),
    ),
    encoder={
        **encoder_names("albert"),
        "encoder.embeddings.projection": "albert.encoder.embedding_hidden_mapping_in",
        f"{_LAYER}.attention.qkv": tuple(
            f"{_THEIR_LAYER}.attention.{part}" for part in ("query", "key", "value")
        ),
        f"{_LAYER}.attention.out": f"{_THEIR_LAYER}.attention.dense",
        f"{_LAYER}.attention_norm": f"{_THEIR_LAYER}.attention.LayerNorm",
        f"{_LAYER}.feed_forward.up": f"{_THEIR_LAYER}.ffn",
        f"{_LAYER}.feed_forward.down": f"{_THEIR_LAYER}.ffn_output",
        f"{_LAYER}.feed_forward_norm": f"{_THEIR_LAYER}.full_layer_layer_norm",
    },
    heads={
        "EncoderModel": _POOLER,
        "MaskedLanguageModel": _PREDICTIONS,
        "PretrainingModel": {**_PREDICTIONS, **_POOLER, "pair": "sop_classifier.classifier"},
        "SequenceClassifier": {**_POOLER, "classifier": "classifier"},
        "TokenClassifier": {"classifier": "classifier"},
        "QuestionAnswering": {"classifier": "qa_outputs"},
        "MultipleChoice": {**_POOLER, "classifier": "classifier"},
    },
    required={"tie_word_embeddings": True, "inner_group_num": 1, "position_embedding_type": "absolute"},
    outputs={"sop_logits": "seq_relationship_logits"},
    older=((r"^predictions\.decoder\.bias$", "predictions.bias"),),
)
