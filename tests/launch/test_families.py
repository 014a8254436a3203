"""A model of each family, as transformers saves it with its own kind of tokenizer, is pretrained further and is after
that what it was before: transformers loads the same class with the same tokenizer."""

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
import transformers
from tokenizers import models, normalizers, pre_tokenizers, trainers

from bert import checkpoint
from bert import config as configuration
from bert.huggingface import FAMILIES
from bert.model.config import Labels
from pretrain.config import PretrainConfig
from pretrain.train import train

TEXTS = (
    "The committee met on Tuesday to discuss the new bridge, which had been closed since the flood.",
    "Why? She read the letter twice, and put it back into its envelope without a word.",
    "Water boils at 100 degrees at sea level; on a high mountain it boils at about 90 degrees.",
    "Ein Mann geht über die Straße. Où est la gare? Это предложение.",
)
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
OWN = {
    "distilbert": {"hidden_dim": 48},
    "albert": {"embedding_size": 16, "num_hidden_groups": 1},
    "electra": {"embedding_size": 16},
    "ernie": {"use_task_id": True},
}
WORDS = """
corpus: {{files: ["{folder}/corpus/*.txt"], heldout_share: 0.2}}
prepare: {{workers: 1}}
batch: {{sequences: 4, max_length: 24, micro_tokens: 512}}
training: {{steps: 2, save_every: 100, evaluate_every: 0, precision: fp32, num_workers: 0}}
evaluation: {{sequences: 8, sentences: []}}
tracking: {{wandb: off}}
"""
UNIGRAM = {
    "albert": "Albert",
    "camembert": "Camembert",
    "xlm-roberta": "XLMRoberta",
    "xlm-roberta-xl": "XLMRoberta",
}
BYTES = ("roberta", "roberta-prelayernorm", "data2vec-text", "modernbert", "eurobert", "ultrabert")


def word_piece() -> Any:
    trained = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    trained.normalizer, trained.pre_tokenizer = (
        normalizers.BertNormalizer(),
        pre_tokenizers.BertPreTokenizer(),
    )
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trained.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=150, special_tokens=special))
    return transformers.BertTokenizer(vocab=trained.get_vocab())


def byte_level() -> Any:
    trained = tokenizers.Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=alphabet)
    trained.train_from_iterator(TEXTS, trainer)
    model = json.loads(trained.to_str())["model"]
    return transformers.RobertaTokenizer(
        vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]]
    )


def unigram(name: str) -> Any:
    """Pieces after the special tokens, in the order of the published vocabularies."""
    trained = tokenizers.Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(TEXTS, trainers.UnigramTrainer(vocab_size=150, show_progress=False))
    special = {
        "Albert": ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"),
        "Camembert": ("<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>", "<mask>"),
        "XLMRoberta": ("<s>", "<pad>", "</s>", "<unk>", "<mask>"),
    }[name]
    pieces = [(token, 0.0) for token in special] + [
        (piece, score)
        for piece, score in json.loads(trained.to_str())["model"]["vocab"]
        if piece not in special
    ]
    return getattr(transformers, f"{name}Tokenizer")(vocab=pieces)


def tokenizer_of(model_type: str) -> Any:
    if model_type in UNIGRAM:
        return unigram(UNIGRAM[model_type])
    return byte_level() if model_type in BYTES else word_piece()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("families")
    (folder / "corpus").mkdir()
    for number in range(30):
        text = "\n".join(TEXTS[number % 4 :] + TEXTS[: number % 4] + (f"Number {number}.",))
        (folder / "corpus" / f"{number}.txt").write_text(text, encoding="utf-8")
    (folder / "recipe.yaml").write_text(WORDS.format(folder=folder), encoding="utf-8")
    return folder


QUICK = ("albert", "xlm-roberta")
"""Those that differ most from the other tests of continued runs; the others are among the slow tests."""


@pytest.mark.parametrize(
    "model_type", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FAMILIES]
)
def test_pretraining_goes_on_from_what_transformers_saved(
    tmp_path: Path, corpus: Path, model_type: str
) -> None:
    tokenizer, family = tokenizer_of(model_type), FAMILIES[model_type]
    pairs = family.classes["PretrainingModel"] != family.classes["MaskedLanguageModel"]
    name = family.classes["PretrainingModel" if pairs else "MaskedLanguageModel"]
    ids = {
        f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ("pad", "cls", "sep", "mask")
    }
    ids |= {"bos_token_id": ids["cls_token_id"], "eos_token_id": ids["sep_token_id"]}
    config = transformers.AutoConfig.for_model(
        model_type,
        vocab_size=len(tokenizer),
        max_position_embeddings=40,
        **{**SIZES, **OWN.get(model_type, {}), **ids},
    )
    before = getattr(transformers, name)(config)
    before.save_pretrained(tmp_path / "theirs")
    tokenizer.save_pretrained(tmp_path / "theirs")
    words = [f"model.from={tmp_path / 'theirs'}", f"run_dir={tmp_path / 'run'}"]
    words += [f"objective.pairing={'sentence_order' if pairs else 'none'}"]
    assert train(configuration.load(PretrainConfig, corpus / "recipe.yaml", words)).step == 2
    after, info = getattr(transformers, name).from_pretrained(
        tmp_path / "run/model", output_loading_info=True
    )
    assert not any(info.values()), info
    assert type(after) is type(before)
    weights = before.state_dict()
    assert after.state_dict().keys() == weights.keys()
    changed = [not torch.equal(tensor, weights[key]) for key, tensor in after.state_dict().items()]
    assert sum(changed) > len(changed) / 2
    written = json.loads((tmp_path / "run/model/config.json").read_text())
    assert written["model_type"] == model_type
    for key in ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"):
        assert written[key] == ids[key], key
    reloaded = transformers.AutoTokenizer.from_pretrained(tmp_path / "run/model")
    assert reloaded(list(TEXTS))["input_ids"] == tokenizer(list(TEXTS))["input_ids"]
    classifier = checkpoint.load(tmp_path / "run", "SequenceClassifier", labels=Labels(("a", "b", "c")))
    checkpoint.save(classifier, tmp_path / "classifier")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "classifier").eval()
    rows = torch.tensor(tokenizer(TEXTS[0])["input_ids"][:20])[None]
    with torch.no_grad():
        torch.testing.assert_close(classifier(rows).logits, theirs(rows).logits, atol=1e-5, rtol=1e-5)
