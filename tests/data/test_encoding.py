"""The ids of a sentence are the tokenizer's own, whichever way its words were found."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer, Whitespace

from bert.tokenizer import Tokenizer
from pretrain.corpus import token_ids
from pretrain.corpus.token_ids import CachedTokenizer, find_words

CHARACTERS = "aBb.e \u0301é\xa0\x1c\t\u3000北丠龿䶵䷀'#,[]Σσςかー。"
VOCABULARY = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ab", "b.", "##ab", "##bab", "北か", "mask", "MASK"),
    *(piece for character in "aAbBeéσςΣ北丠かー。.'#,[]" for piece in (character, f"##{character}")),
]
TOKENIZERS = {
    "uncased": (BertNormalizer(), BertPreTokenizer()),
    "cased": (BertNormalizer(lowercase=False), BertPreTokenizer()),
    "with accents": (BertNormalizer(strip_accents=False), BertPreTokenizer()),
    "Chinese in words": (BertNormalizer(handle_chinese_chars=False), BertPreTokenizer()),
    "as it is": (BertNormalizer(False, False, False, False), BertPreTokenizer()),
    "by sentences": (BertNormalizer(), Whitespace()),
}


@pytest.fixture(scope="module", params=TOKENIZERS)
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> CachedTokenizer:
    file: Path = tmp_path_factory.mktemp("encoder") / "vocab.txt"
    file.write_text("\n".join(VOCABULARY) + "\n")
    tokenizer = Tokenizer.load(file)
    tokenizer.backend.normalizer, tokenizer.backend.pre_tokenizer = TOKENIZERS[request.param]
    return CachedTokenizer(tokenizer)


def check(encoder: CachedTokenizer, sentences: list[str]) -> None:
    tokens, lengths = encoder(sentences)
    expected = encoder.tokenizer.encode_batch(sentences, special_tokens=False)
    assert lengths.tolist() == [len(ids) for ids in expected]
    assert tokens.tolist() == [token for ids in expected for token in ids]


@settings(max_examples=150)
@given(st.lists(st.text(max_size=30) | st.text(CHARACTERS, max_size=30), max_size=4))
def test_the_ids_are_the_tokenizers(encoder: CachedTokenizer, sentences: list[str]) -> None:
    check(encoder, sentences)


def test_the_table_is_bounded(encoder: CachedTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_ids, "_MOST_BYTES", 100)
    for n in range(100):
        check(encoder, [f"ab {'ab' * (n % 30)}, [MASK] #{n}", "北か ab"])
    assert encoder._table.size < 300


def test_words_are_found_in_bytes() -> None:
    words, counts = find_words(["It's  a北京か。b", "", " ", "é-\t"], splits_chinese=True)
    expected = ["It", "'", "s", "a", "北", "京", "か。b", "é", "-", "\t"]
    assert [word.decode() for word in words.to_pylist()] == expected
    assert counts.tolist() == [7, 0, 0, 3]
    words, _ = find_words(["a北京か"], splits_chinese=False)
    assert words.to_pylist() == ["a北京か".encode()]
