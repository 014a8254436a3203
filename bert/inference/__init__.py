"""Inference: fill masks, embed texts, show attention maps, score sentences, classify and tag texts.

Each function takes the folder of a checkpoint or run; or a pair (model, tokenizer), if you call it more than once.
"""

from bert.inference.attention import AttentionMaps, attention_maps
from bert.inference.classification import classify
from bert.inference.embedding import embed
from bert.inference.filling import Prediction, fill_mask
from bert.inference.scoring import score, score_tokens
from bert.inference.tagging import tag

__all__ = [
    "AttentionMaps",
    "Prediction",
    "attention_maps",
    "classify",
    "embed",
    "fill_mask",
    "score",
    "score_tokens",
    "tag",
]
