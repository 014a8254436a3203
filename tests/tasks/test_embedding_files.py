"""A folder embeds texts in one way, whoever reads it: sentence-transformers and `bert.embed` give the same vectors."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import bert
from bert.checkpoint import embedding_files

TEXTS = [
    "The cat sat on a MAT in Paris, France.",
    "good",
    " ".join(["the big red dog was in the capital of France"] * 20),  # longer than the model reads
    "Straße — 日本; привет, мир!",
]


@pytest.mark.parametrize("name", ["bert", "roberta", "modernbert", "bare", "classifier"])
def test_sentence_transformers_gives_the_same_vectors(folders: dict[str, Path], name: str) -> None:
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(folders[name]), device="cpu")
    ours = bert.embed(folders[name], TEXTS)
    assert theirs.max_seq_length == 64
    assert np.abs(theirs.encode(TEXTS) - ours).max() < 1e-5
    assert np.abs(ours[0] - ours[1]).max() > 0.1, "vectors that are all alike agree without effort"


@pytest.mark.parametrize("name", ["modernbert-pretraining", "pretraining", "classifier"])
def test_what_sentence_transformers_saves_is_the_encoder(
    folders: dict[str, Path], tmp_path: Path, name: str
) -> None:
    from sentence_transformers import SentenceTransformer

    SentenceTransformer(str(folders[name]), device="cpu").save_pretrained(str(tmp_path / "saved"))
    assert type(bert.load(tmp_path / "saved")) is bert.EncoderModel
    assert np.abs(bert.embed(tmp_path / "saved", TEXTS) - bert.embed(folders[name], TEXTS)).max() < 1e-5


def test_a_classifier_is_read_as_one(folders: dict[str, Path]) -> None:
    from sentence_transformers import CrossEncoder

    pairs = [("the cat", "a dog"), ("Paris", "capital of France")]
    theirs = CrossEncoder(str(folders["classifier"]), device="cpu").predict(pairs, activation_fn=None)
    model, tokenizer = bert.load(folders["classifier"]), bert.Tokenizer.load(folders["classifier"])
    encodings = tokenizer.encodings(*zip(*pairs, strict=True))
    for logits, encoding in zip(theirs, encodings, strict=True):
        ids, segments = torch.tensor([[encoding.ids], [encoding.type_ids]])
        ours = model(ids, token_type_ids=segments).logits[0].detach().numpy()
        assert np.abs(ours - logits).max() < 1e-5


def test_what_text_embeddings_inference_requires(folders: dict[str, Path]) -> None:
    pooling = json.loads((folders["bert"] / "1_Pooling" / "config.json").read_text())
    assert pooling["pooling_mode_mean_tokens"] is True
    assert pooling["pooling_mode_cls_token"] is False
    assert json.loads((folders["roberta"] / "sentence_bert_config.json").read_text())["max_seq_length"] == 64


def test_an_encoder_that_only_we_can_load_has_none_of_them(folders: dict[str, Path]) -> None:
    assert not any((folders["own"] / name).exists() for name in embedding_files.FILES)


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("1_Pooling/config.json", None, "is missing: text-embeddings-inference takes the first token"),
        (
            "1_Pooling/config.json",
            {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False},
            "says ['cls'], and bert.embed has mean",
        ),
        (
            "1_Pooling/config.json",
            {"word_embedding_dimension": 8},
            "is for vectors of 8, and the model has 32",
        ),
        (
            "sentence_bert_config.json",
            {"max_seq_length": 16},
            "cuts texts at 16 tokens, and bert.embed at 64",
        ),
    ],
)
def test_verification_says_where_a_folder_embeds_otherwise(
    folders: dict[str, Path], tmp_path: Path, name: str, changes: dict[str, object] | None, said: str
) -> None:
    folder = shutil.copytree(folders["bert"], tmp_path / "copy")
    if changes is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(json.dumps({**json.loads((folder / name).read_text()), **changes}))
    notes = embedding_files.differences(folder, bert.load(folder).config)
    assert len(notes) == 1
    assert said in notes[0]


def test_a_folder_from_before_these_files_is_read_and_completed(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    old = shutil.copytree(
        folders["bert"], tmp_path / "old", ignore=shutil.ignore_patterns(*embedding_files.FILES)
    )
    report = bert.verify(old)
    assert report.passed
    assert "1_Pooling/config.json is missing" in report.notes[0]
    bert.save(bert.load(old), tmp_path / "new", bert.Tokenizer.load(old))
    assert bert.verify(tmp_path / "new").notes == []
    assert np.array_equal(bert.embed(old, TEXTS), bert.embed(tmp_path / "new", TEXTS))
