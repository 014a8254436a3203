"""The ids of the sentences of a paragraph are those that the tokenizer gives to the whole, however they were found."""

from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import models
from tokenizers.normalizers import BertNormalizer, Normalizer
from tokenizers.pre_tokenizers import BertPreTokenizer, PreTokenizer, Whitespace

from benchmarks.tokenizer_kinds import KINDS
from bert.tokenizer import Tokenizer
from pretrain.corpus import token_ids
from pretrain.corpus.config import CorpusConfig
from pretrain.corpus.sentences import sentence_splitter
from pretrain.corpus.token_ids import CachedTokenizer
from pretrain.corpus.word_cuts import find_words

CHARACTERS = "aBb.e \u0301é\xa0\x1c\t\u3000北丠龿䶵䷀'#,[]Σσςかー。"
VOCABULARY = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ab", "b.", "##ab", "##bab", "北か", "mask", "MASK"),
    *(piece for character in "aAbBeéσςΣ北丠かー。.'#,[]" for piece in (character, f"##{character}")),
]
PIPELINES: dict[str, tuple[Normalizer, PreTokenizer]] = {
    "uncased": (BertNormalizer(), BertPreTokenizer()),
    "cased": (BertNormalizer(lowercase=False), BertPreTokenizer()),
    "with accents": (BertNormalizer(strip_accents=False), BertPreTokenizer()),
    "Chinese in words": (BertNormalizer(handle_chinese_chars=False), BertPreTokenizer()),
    "as it is": (BertNormalizer(False, False, False, False), BertPreTokenizer()),
    "between spaces": (BertNormalizer(), Whitespace()),
}
TEXT = """\
The curious fox wasn't lazy. "It's 12,500 dogs!" she said... (Really?)
"No!"  They'd run — it cost $3.50; e.g. see www.example.com.
Schöne Grüße aus Köln! Ça et là, l'été. ﬁnd Ⅷ ½ e\u0301 Å\u00a0b.
Привет, мир! Γειά σου Κόσμε; Ναι.
مرحبا بالعالم؟ نعم. नमस्ते दुनिया। हाँ।
北京是中国的首都。上海也很大！"东京"呢？ 東京は日本の首都です。 はい。
สวัสดี ครับ 한국어 문장입니다. 네.
<s> [MASK] </s> ▁ a▁b <0x41> 👩‍👩‍👧 😀. \u200b\ufeffA\u3000B\tC
"""
PIECES = st.sampled_from(
    [*TEXT, *TEXT.split(" "), " ", "  ", ". ", ".  A", "。", "\t", "\u0301", " \u0301", "\u0600 "]
)
PARAGRAPHS = st.lists(PIECES, max_size=12).map("".join) | st.text(max_size=20)
BY_WORDS = "each distinct word is tokenised once"


@pytest.fixture(scope="module", params=[*PIPELINES, *KINDS])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> CachedTokenizer:
    if request.param in KINDS:
        return CachedTokenizer(Tokenizer(KINDS[request.param]([*TEXT.splitlines()] * 3, 500)))
    file: Path = tmp_path_factory.mktemp("encoder") / "vocab.txt"
    file.write_text("\n".join(VOCABULARY) + "\n")
    tokenizer = Tokenizer.load(file)
    tokenizer.backend.normalizer, tokenizer.backend.pre_tokenizer = PIPELINES[request.param]
    return CachedTokenizer(tokenizer)


def check(encoder: CachedTokenizer, texts: list[str]) -> None:
    """Sentences as the splitter finds them."""
    paragraphs = sentence_splitter(CorpusConfig())(texts)
    tokens, lengths = encoder(paragraphs)
    whole = [text.strip() for text in texts if text.strip()]
    assert ["".join(sentences) for sentences in paragraphs] == whole
    expected = encoder.tokenizer.encodings(whole, special_tokens=False)
    assert tokens.tolist() == [token for encoding in expected for token in encoding.ids]
    assert len(lengths) == sum(map(len, paragraphs)) and lengths.sum() == len(tokens)
    row = 0
    for sentences, encoding in zip(paragraphs, expected, strict=True):
        first = place = 0
        for sentence in sentences:
            last = first + lengths[row]
            begins = {min(begin, place + len(sentence) - 1) for begin, _ in encoding.offsets[first:last]}
            assert begins <= set(range(place, place + len(sentence)))
            first, place, row = last, place + len(sentence), row + 1


@settings(max_examples=40)
@given(st.lists(PARAGRAPHS | st.text(CHARACTERS, max_size=30), max_size=4))
def test_the_ids_are_the_tokenizers(encoder: CachedTokenizer, texts: list[str]) -> None:
    check(encoder, texts)


def test_running_text_in_many_scripts(encoder: CachedTokenizer) -> None:
    check(encoder, [*TEXT.splitlines(), TEXT, *TEXT.split(". ")])


def test_a_sentence_may_begin_within_a_word_or_a_token() -> None:
    encoder = CachedTokenizer(Tokenizer(KINDS["Gemma, mmBERT"](TEXT.splitlines() * 3, 500)))
    whole = encoder.tokenizer.encode_batch(["curious 北京😀."], special_tokens=False)[0]
    tokens, lengths = encoder([["cur", "ious", " 北京", "😀."]])
    assert tokens.tolist() == whole and lengths.sum() == len(whole)
    cuts = lengths.cumsum()[:-1]
    assert [encoder.tokenizer.decode(part) for part in (whole[: cuts[0]], whole[cuts[2] :])] == [
        "curio",
        "😀.",
    ]


def test_the_way_is_told(encoder: CachedTokenizer, request: pytest.FixtureRequest) -> None:
    kind = request.node.callspec.params["encoder"]
    whole = {"Llama 2": "its normalizer Prepend"}
    assert encoder.way.startswith(BY_WORDS) == (kind not in whole)
    assert whole.get(kind, "") in encoder.way


def test_words_are_not_cut_where_that_is_not_known_to_be_safe() -> None:
    """Merges over spaces, merges at random, and steps that nobody has looked at."""

    def obstacle(kind: str, **changes: object) -> str:
        backend = KINDS[kind](TEXT.splitlines(), 400)
        for name, value in changes.items():
            setattr(backend if name in ("normalizer", "pre_tokenizer") else backend.model, name, value)
        return CachedTokenizer(Tokenizer(backend)).way

    from tokenizers.normalizers import Replace, Strip
    from tokenizers.pre_tokenizers import Split

    assert "tokens, which may reach over spaces" in obstacle("Gemma, mmBERT", normalizer=Replace("a", "b"))
    assert "dropout" in obstacle("RoBERTa", dropout=0.1)
    assert "normalizer Strip" in obstacle("RoBERTa", normalizer=Strip())
    assert "normalizer Replace" in obstacle("RoBERTa", normalizer=Replace("a b", "c"))
    assert "pre-tokenizer Split" in obstacle("RoBERTa", pre_tokenizer=Split("a", "removed"))
    merging = Backend(
        models.BPE({"[CLS]": 0, "[SEP]": 1, "[PAD]": 2, "[MASK]": 3, "a": 4, "▁": 5, "a▁": 6}, [("a", "▁")])
    )
    merging.normalizer = Replace(" ", "▁")
    encoder = CachedTokenizer(Tokenizer(merging))
    assert "tokens, which may reach over spaces" in encoder.way
    assert encoder([["a a", " a"]])[0].tolist() == [6, 6, 4]


def test_the_table_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_ids, "_MOST_BYTES", 100)
    for kind in ("BERT, cased", "RoBERTa"):
        encoder = CachedTokenizer(Tokenizer(KINDS[kind](TEXT.splitlines(), 400)))
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


def test_spaces_divide_most_of_a_text_with_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = CachedTokenizer(Tokenizer(KINDS["ModernBERT"](TEXT.splitlines(), 500)))
    seen: list[list[list[str]]] = []
    real = CachedTokenizer._of_whole
    monkeypatch.setattr(
        CachedTokenizer, "_of_whole", lambda self, given: seen.append(given) or real(self, given)
    )
    check(encoder, ["One fox. Two  foxes.", "Three foxes. Four.", "Привет, мир! Да.", "北京是。中国。"])
    assert list(chain(*seen)) == [["One fox.", " Two  foxes."], ["北京是。", "中国。"]]
