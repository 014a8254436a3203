"""DistilBERT (Sanh et al. 2019) as transformers' `distilbert`: no segments and no pooler.

Its positions are a trained table, also where `sinusoidal_pos_embds` says that the table began as sines and cosines.
"""

from bert.huggingface.bert import activation, class_names
from bert.huggingface.family import Family, Field

_PREDICTIONS = {
    "head.dense": "vocab_transform",
    "head.norm": "vocab_layer_norm",
    "head.bias": "vocab_projector.bias",
}
_LAYER, _THEIR_LAYER = "encoder.layers.{i}", "distilbert.transformer.layer.{i}"


DISTILBERT = Family(
    model_type="distilbert",
    prefix="distilbert",
    classes=class_names("DistilBert", pretraining="ForMaskedLM"),
    constant={
        "num_segments": 0,
        "positions": "learned",
        "norm": "post",
        "norm_eps": 1e-12,
        "feed_forward": "mlp",
        "classifier": "relu",
        "pooler": False,
    },
    config=(
        Field("vocab_size", "vocab_size", 30522),
        Field("hidden_size", "dim", 768),
        Field("num_layers", "n_layers", 6),
        Field("num_heads", "n_heads", 12),
        Field("intermediate_size", "hidden_dim", 3072),
        Field("max_positions", "max_position_embeddings", 512),
        activation("activation"),
        Field("dropout", "dropout", 0.1),
        Field("attention_dropout", "attention_dropout", 0.1),
        Field(
            ours="classifier_dropout",
            theirs="seq_classif_dropout",
            default=0.2,
            write=lambda ours: ours.dropout if ours.classifier_dropout is None else ours.classifier_dropout,
        ),
        Field("init_std", "initializer_range", 0.02),
        Field("pad_token_id", "pad_token_id", 0),
    ),
    encoder={
        "encoder.embeddings.tokens": "distilbert.embeddings.word_embeddings",
        "encoder.embeddings.positions.table": "distilbert.embeddings.position_embeddings",
        "encoder.embeddings.norm": "distilbert.embeddings.LayerNorm",
        f"{_LAYER}.attention.qkv": tuple(f"{_THEIR_LAYER}.attention.{part}_lin" for part in "qkv"),
        f"{_LAYER}.attention.out": f"{_THEIR_LAYER}.attention.out_lin",
        f"{_LAYER}.attention_norm": f"{_THEIR_LAYER}.sa_layer_norm",
        f"{_LAYER}.feed_forward.up": f"{_THEIR_LAYER}.ffn.lin1",
        f"{_LAYER}.feed_forward.down": f"{_THEIR_LAYER}.ffn.lin2",
        f"{_LAYER}.feed_forward_norm": f"{_THEIR_LAYER}.output_layer_norm",
    },
    heads={
        "EncoderModel": {},
        "MaskedLanguageModel": _PREDICTIONS,
        "PretrainingModel": _PREDICTIONS,
        "SequenceClassifier": {"pooler.dense": "pre_classifier", "classifier": "classifier"},
        "TokenClassifier": {"classifier": "classifier"},
        "QuestionAnswering": {"classifier": "qa_outputs"},
        "MultipleChoice": {"pooler.dense": "pre_classifier", "classifier": "classifier"},
    },
)
