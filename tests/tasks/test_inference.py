"""Inference gives what transformers gives, and what a plain loop over single texts gives."""

import itertools
import shutil

import numpy as np
import pytest
import tokenizers
import torch
import transformers

import bert
from bert.data.packing import by_length
from bert.inference import scoring

TEXTS = [
    "the cat sat on a mat in paris.",
    "was a dog unaffable?",
    "a",
    "walking dogs played in the capital of france, a big red city; it was good!",
    "",
    "is the cat good or bad or red or big or in or on or of a mat or a city or a dog or the cat",
]
MASKED = ["the [MASK] sat.", "[MASK] is the capital of [MASK].", "a [MASK]ing dog was bad", "[MASK]"]
WITH_PREDICTIONS = ["bert", "modernbert"]


def their_pair(folder, model_class=transformers.AutoModelForMaskedLM):
    model = model_class.from_pretrained(folder, attn_implementation="eager").eval()
    return model, transformers.AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("name", WITH_PREDICTIONS)
@pytest.mark.parametrize("top_k", [1, 4])
def test_fill_mask_is_the_pipeline_of_transformers(folders, name, top_k):
    model, tokenizer = their_pair(folders[name])
    pipeline = transformers.pipeline("fill-mask", model=model, tokenizer=tokenizer)
    for text in MASKED:
        compare_predictions(bert.fill_mask(folders[name], text, top_k), pipeline(text, top_k=top_k))
    all_at_once = bert.fill_mask(folders[name], MASKED, top_k, batch_tokens=12)
    compare_predictions(all_at_once, pipeline(MASKED, top_k=top_k))


def compare_predictions(ours, theirs):
    if isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs):
            compare_predictions(one, other)
    else:
        assert ours.pop("score") == pytest.approx(theirs.pop("score"), abs=1e-6)
        assert ours == theirs


def test_weights_that_are_no_numbers_are_said(folders, tmp_path):
    model = bert.load(folders["bert"])
    with torch.no_grad():
        model.encoder.layers[0].attention.out.bias[3] = torch.nan
    bert.save(model, tmp_path, bert.Tokenizer.load(folders["bert"]))
    for use in (bert.fill_mask, bert.embed):
        with pytest.raises(bert.UserError, match=r"encoder\.layers\.0\..* values that are not finite \(NaN"):
            use(tmp_path, "the [MASK] sat.")


def test_fill_mask_with_published_weights(published):
    if "cognition" not in str(published):
        with pytest.raises(bert.UserError, match="holds a bare encoder"):
            bert.fill_mask(published, "a [MASK]")
        return
    pipeline = transformers.pipeline("fill-mask", model=str(published), tokenizer=str(published))
    texts = ["The capital of [MASK] is Paris.", "He [MASK] the [MASK] to her."]
    for text in texts:
        compare_predictions(bert.fill_mask(published, text), pipeline(text))


def by_hand(folder, text, pooling):
    """One text's vector, as written in the documentation of most sentence encoders."""
    model, tokenizer = their_pair(folder, transformers.AutoModel)
    batch = tokenizer([text, text + " and much padding"], padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"][:, :, None]
    pooled = {
        "mean": (hidden * mask).sum(1) / mask.sum(1),
        "cls": hidden[:, 0],
        "max": hidden.masked_fill(mask == 0, -torch.inf).amax(1),
    }
    return pooled[pooling][0].numpy()


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
@pytest.mark.parametrize("name", ["bert", "modernbert", "bare", "classifier"])
def test_embed_is_pooling_by_hand(folders, name, pooling):
    expected = np.stack([by_hand(folders[name], text, pooling) for text in TEXTS])
    vectors = bert.embed(folders[name], TEXTS, pooling, batch_tokens=30)
    assert vectors.dtype == np.float32 and vectors.shape == (len(TEXTS), 32)
    np.testing.assert_allclose(vectors, expected, atol=2e-6)
    np.testing.assert_allclose(bert.embed(folders[name], TEXTS[3], pooling), expected[3], atol=2e-6)


def test_embed_with_published_weights(published):
    texts = ["A kitten sat on the mat.", "Stocks fell.", "The cat was sitting on a rug."]
    vectors = bert.embed(published, texts, normalise=True)
    expected = np.stack([by_hand(published, text, "mean") for text in texts])
    np.testing.assert_allclose(vectors, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)
    assert vectors[0] @ vectors[2] > vectors[0] @ vectors[1]


def test_embed_cuts_long_texts_and_says_so(folders, caplog):
    long = "the cat " * 100
    vectors = bert.embed(folders["bert"], [long, "the cat " * 31, "a"])
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)
    assert [record.message for record in caplog.records] == ["1 of 3 texts had too many tokens and were cut"]
    shorter = bert.embed(folders["bert"], long, max_length=4)
    np.testing.assert_allclose(shorter, bert.embed(folders["bert"], "the cat"), atol=1e-6)


def test_embed_of_nothing(folders):
    assert bert.embed(folders["bert"], []).shape == (0, 32)
    with pytest.raises(bert.UserError, match="'median' is not one of mean, cls, max"):
        bert.embed(folders["bert"], ["a"], pooling="median")


@pytest.mark.parametrize("scorer", ["original", "within_word_l2r"])
@pytest.mark.parametrize("name", WITH_PREDICTIONS)
def test_score_is_a_loop_over_masks(folders, name, scorer):
    model, tokenizer = their_pair(folders[name])
    expected = []
    for text in TEXTS:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        total = 0.0
        for position in range(1, ids.shape[1] - 1):
            masked = ids.clone()
            masked[0, position] = tokenizer.mask_token_id
            pieces = tokenizer.convert_ids_to_tokens(ids[0, position + 1 :])
            for later, piece in enumerate(pieces, position + 1):
                if scorer == "original" or not piece.startswith("##"):
                    break
                masked[0, later] = tokenizer.mask_token_id
            with torch.no_grad():
                total += model(masked).logits[0, position].log_softmax(-1)[ids[0, position]].item()
        expected.append(total)
    for batch_tokens in (1, 50, 8192):
        scores = bert.score(folders[name], TEXTS, batch_tokens, scorer)
        assert scores.dtype == np.float64
        np.testing.assert_allclose(scores, expected, rtol=1e-5)
    assert bert.score(folders[name], TEXTS[0], scorer=scorer) == pytest.approx(expected[0], rel=1e-5)


def test_the_two_scorers_differ_where_words_have_several_pieces(folders):
    texts = ["the cat sat on a mat", "was a dog unaffable?"]
    original, l2r = (
        bert.score_tokens(folders["bert"], texts, scorer=s) for s in ("original", "within_word_l2r")
    )
    np.testing.assert_array_equal(original[0], l2r[0])
    pieces = bert.Tokenizer.load(folders["bert"]).encodings(texts[1:])[0].tokens[1:-1]
    last = [not after.startswith("##") for after in [*pieces[1:], "."]]
    assert 0 < sum(last) < len(last)
    np.testing.assert_array_equal(np.isclose(original[1], l2r[1], rtol=1e-5), last)


@pytest.mark.parametrize("scorer", ["original", "within_word_l2r"])
def test_only_what_comes_after_the_start_is_scored(folders, scorer):
    text, start = "was a dog unaffable?", len("was a dog ")
    (values,) = bert.score_tokens(folders["bert"], [text], scorer=scorer)
    encoding = bert.Tokenizer.load(folders["bert"]).encodings([text])[0]
    first = next(position for position, (_, end) in enumerate(encoding.offsets) if end > start)
    for at in (start, start - 1):  # with the space, or without
        scored = bert.score(folders["bert"], [text, text], scorer=scorer, starts=[at, 0])
        np.testing.assert_allclose(scored, [values[first - 1 :].sum(), values.sum()], rtol=1e-5)


def test_words_are_those_of_the_tokenizer():
    """Byte-level BPE has no mark on the pieces inside a word: the same letters may begin one."""
    backend = tokenizers.Tokenizer(tokenizers.models.BPE({"Ġ": 0, "a": 1, "b": 2, ".": 3}, []))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    begins = scoring._begins_word(backend.encode("ab ba.ab")).tolist()
    assert "".join("|" * one + piece for one, piece in zip(begins, "abĠba.ab", strict=True)) == "|ab|Ġba|.|ab"


def test_score_tokens_are_the_parts_of_a_score(folders):
    parts = bert.score_tokens(folders["bert"], TEXTS)
    tokenizer = bert.Tokenizer.load(folders["bert"])
    assert [len(part) for part in parts] == [len(ids) - 2 for ids in tokenizer.encode_batch(TEXTS)]
    np.testing.assert_allclose([part.sum() for part in parts], bert.score(folders["bert"], TEXTS), rtol=1e-5)
    assert bert.score_tokens(folders["bert"], []) == []
    assert bert.score(folders["bert"], []).shape == (0,)


@pytest.mark.parametrize("name", ["bert", "modernbert", "bare"])
def test_attention_maps_are_those_of_transformers(folders, name):
    model, tokenizer = their_pair(folders[name], transformers.AutoModel)
    pairs = [None] if name == "modernbert" else [None, "is a dog"]
    for text, pair in itertools.product(["the cat sat on a mat in paris.", "a"], pairs):
        batch = tokenizer(text, pair, return_tensors="pt")
        with torch.no_grad():
            expected = torch.stack(model(**batch, output_attentions=True).attentions)[:, 0]
        tokens, maps = bert.attention_maps(folders[name], text, pair)
        assert tokens == tokenizer.convert_ids_to_tokens(batch["input_ids"][0])
        assert maps.shape == (3, 2, len(tokens), len(tokens))
        np.testing.assert_allclose(maps, expected.numpy(), atol=1e-6)
    several = bert.attention_maps(folders[name], ["a cat", "the big dog"])
    assert [each.tokens[1] for each in several] == ["a", "the"]


def test_a_pair_of_model_and_tokenizer_serves_as_well(folders):
    pair = bert.load(folders["bert"]), bert.Tokenizer.load(folders["bert"])
    pair[0].train()
    np.testing.assert_array_equal(bert.embed(pair, TEXTS), bert.embed(folders["bert"], TEXTS))
    np.testing.assert_array_equal(bert.score(pair, TEXTS[:2]), bert.score(folders["bert"], TEXTS[:2]))
    assert bert.fill_mask(pair, MASKED) == bert.fill_mask(folders["bert"], MASKED)
    assert pair[0].training


@pytest.mark.parametrize("name", ["pretraining", "own", "modernbert-pretraining"])
def test_every_model_with_a_prediction_head_is_asked_the_same_way(folders, name):
    assert len(bert.fill_mask(folders[name], "a [MASK]", top_k=3)) == 3
    assert np.isfinite(bert.score(folders[name], TEXTS)).all()


LONG = "cat " * 63


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda folders: bert.fill_mask(folders["bert"], ["[MASK]", "the cat"]), r"text 2: has no \[MASK\]"),
        (
            lambda folders: bert.fill_mask(folders["bert"], LONG + "[MASK]"),
            "text 1: has 66 tokens and the model",
        ),
        (lambda folders: bert.score(folders["bert"], ["a", LONG]), "text 2: has 65 tokens"),
        (
            lambda folders: bert.score(folders["bert"], "a", scorer="best"),
            "scorer: 'best' is not one of original, within_word_l2r",
        ),
        (lambda folders: bert.attention_maps(folders["bert"], ["a", LONG]), "text 2: has 65 tokens"),
        (
            lambda folders: bert.score(folders["bare"], "a"),
            "bare: holds a bare encoder, which predicts no tokens",
        ),
        (lambda folders: bert.embed(folders["bert"].parent, "a"), "neither a checkpoint"),
    ],
)
def test_mistakes_are_named(folders, ask, message):
    with pytest.raises(bert.UserError, match=message):
        ask(folders)


def test_a_tokenizer_of_another_model_is_refused(folders, published):
    pair = bert.load(folders["bert"]), bert.Tokenizer.load(published)
    with pytest.raises(bert.UserError, match="30522 tokens and the model"):
        bert.embed(pair, "a")


def test_another_tokenizer_beside_the_model_is_refused(folders, tmp_path):
    """Of another size, or with another padding: by inference, verification and fine-tuning alike."""
    folder = tmp_path / "model"
    shutil.copytree(folders["bert"], folder)
    own = bert.Tokenizer.load(folder)
    bert.Tokenizer(own.backend, own.special_tokens | {"pad": own.special_tokens["mask"]}).save(folder)
    for use in (lambda: bert.embed(folder, ["a"]), lambda: bert.verify(folder)):
        with pytest.raises(
            bert.UserError, match=rf"model: the tokenizer pads with token {own.mask_id} and the model"
        ):
            use()
    own.backend.add_tokens(["another"])
    bert.Tokenizer(own.backend, own.special_tokens).save(folder)
    with pytest.raises(bert.UserError, match=rf"tokenizer has {own.vocab_size} tokens and the model"):
        bert.verify(folder)


def test_batches_keep_to_their_budget():
    lengths = np.random.default_rng(0).integers(1, 40, size=200)
    batches = list(by_length(lengths, 64))
    assert sorted(np.concatenate(batches)) == list(range(200))
    assert all(lengths[batch].sum() <= 64 for batch in batches)
    assert len(batches) <= 1.5 * lengths.sum() / 64
    assert [len(batch) for batch in by_length(np.array([9, 3, 7]), 5)] == [1, 1, 1]
