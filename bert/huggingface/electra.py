"""ELECTRA (Clark et al. 2020) as transformers' `electra`: generators, and the encoders of discriminators.

The discriminator's own head, which tells replaced tokens, is not built here.
"""

from bert.huggingface.bert import CONSTANT, REQUIRED, SHAPE, class_names, encoder_names, with_defaults
from bert.huggingface.family import Family, Field

_PREDICTIONS = {
    "head.dense": "generator_predictions.dense",
    "head.norm": "generator_predictions.LayerNorm",
    "head.bias": "generator_lm_head.bias",
}

ELECTRA = Family(
    model_type="electra",
    prefix="electra",
    classes=class_names("Electra", pretraining="ForMaskedLM"),
    constant={
        **CONSTANT,
        "head_activation": "gelu",
        "classifier": "gelu",
        "pooler": False,
        "family": "electra",
    },
    config=(
        *with_defaults(SHAPE, hidden_size=256, num_attention_heads=4, intermediate_size=1024),
        Field(
            ours="embedding_size",
            theirs="embedding_size",
            default=128,
            read=lambda width, theirs: None if width == theirs.get("hidden_size", 256) else width,
            write=lambda ours: ours.embedding_width,
        ),
    ),
    encoder={
        **encoder_names("electra"),
        "encoder.embeddings.projection": "electra.embeddings_project",
    },
    heads={
        "EncoderModel": {},
        "MaskedLanguageModel": _PREDICTIONS,
        "PretrainingModel": _PREDICTIONS,
        "SequenceClassifier": {"pooler.dense": "classifier.dense", "classifier": "classifier.out_proj"},
        "TokenClassifier": {"classifier": "classifier"},
        "QuestionAnswering": {"classifier": "qa_outputs"},
        "MultipleChoice": {"pooler.dense": "sequence_summary.summary", "classifier": "classifier"},
    },
    required=REQUIRED,
)
