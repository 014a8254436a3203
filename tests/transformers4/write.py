"""For `make check-transformers4`: write checkpoints, with what this package computes from them, into a folder.

`compare.py` then loads them with transformers 4, in an environment of its own, and compares.
"""

import json
import sys
from pathlib import Path

import numpy as np
import tokenizers
import torch
from safetensors.torch import save_file
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

import bert
from bert.data.ragged import Ragged
from bert.inference.common import tokenize_and_cut
from bert.tokenizer import Tokenizer
from bert.verification import OUTPUTS, TEXTS, text_batch

LONGEST = 96
SHAPE = {
    "hidden_size": 32,
    "num_layers": 5,
    "num_heads": 2,
    "intermediate_size": 48,
    "max_positions": LONGEST,
}
ROBERTA = {"num_segments": 1, "position_offset": 2, "head_activation": "gelu", "classifier": "dense"}
MODERNBERT = {
    "num_segments": 0,
    "positions": "rotary",
    "rotary_base": 51_000.0,
    "rotary_base_local": 700.0,
    "norm": "pre",
    "norm_eps": 1e-5,
    "norm_bias": False,
    "first_norm_identity": True,
    "feed_forward": "glu",
    "attention_bias": False,
    "feed_forward_bias": False,
    "head_bias": False,
    "window": 12,
    "classifier": "transform",
    "pooler": False,
}
LABELS = bert.Labels(("no", "perhaps", "yes"))
# Bases and patterns are not those that transformers 4 takes, and says nothing, for keys that it does not find.
CHECKPOINTS = {
    "bert-pretraining": ({}, "PretrainingModel"),
    "bert-encoder": ({}, "EncoderModel"),
    "bert-texts": ({}, "SequenceClassifier"),
    "roberta-masked": (ROBERTA, "MaskedLanguageModel"),
    "roberta-tokens": (ROBERTA, "TokenClassifier"),
    "modernbert-masked-GL": ({**MODERNBERT, "layer_pattern": "GL"}, "MaskedLanguageModel"),
    "modernbert-masked-GLLL": ({**MODERNBERT, "layer_pattern": "GLLL"}, "MaskedLanguageModel"),
    "modernbert-masked-G": ({**MODERNBERT, "layer_pattern": "G"}, "MaskedLanguageModel"),
    "modernbert-texts": ({**MODERNBERT, "layer_pattern": "GLL", "pooling": "mean"}, "SequenceClassifier"),
}


def word_piece() -> Tokenizer:
    """An uncased tokenizer of BERT's kind."""
    backend = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    backend.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=300, special_tokens=special))
    return Tokenizer(backend)


def byte_level(prefix_space: bool) -> Tokenizer:
    """A tokenizer of RoBERTa's kind, byte-level BPE; with or without a space before the first word."""
    backend = tokenizers.Tokenizer(models.BPE())
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    backend.train_from_iterator(TEXTS, trainer)
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), True, prefix_space)
    return Tokenizer(backend)


def write(folder: Path, values: dict[str, object], architecture: str, tokenizer: Tokenizer) -> None:
    torch.manual_seed(0)
    sizes = {**SHAPE, "vocab_size": tokenizer.vocab_size, "pad_token_id": tokenizer.pad_id}
    model = bert.build(bert.EncoderConfig(**{**sizes, **values}), architecture, LABELS)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    bert.save(model, folder, tokenizer)
    rows, _ = tokenize_and_cut(TEXTS, tokenizer, LONGEST)
    rows = Ragged.of([list(row) for row in rows])
    batch = text_batch(rows.take(np.arange(len(rows))), "padded", model)
    with torch.inference_mode():
        output = bert.load(folder, dtype=torch.float64)(**batch)
    found = {name: output[name] for name in OUTPUTS if name in output.keys()}  # noqa: SIM118 (an output is no dict)
    if architecture != "EncoderModel":
        found.pop("last_hidden_state", None)
        found.pop("pooler_output", None)
    tensors = {**{f"input.{k}": v for k, v in batch.items()}, **{f"output.{k}": v for k, v in found.items()}}
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "expected.safetensors"
    )
    ids = tokenizer.encode_batch(TEXTS)
    (folder / "expected.json").write_text(json.dumps({"texts": TEXTS, "ids": ids}), encoding="utf-8")


if __name__ == "__main__":
    for name, (values, architecture) in CHECKPOINTS.items():
        tokenizer = byte_level(name == "roberta-tokens") if name.startswith("roberta") else word_piece()
        write(Path(sys.argv[1]) / name, values, architecture, tokenizer)
