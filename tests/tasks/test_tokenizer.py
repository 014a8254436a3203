"""The tokenizer: the ids and offsets of transformers, from every kind of file, to its own and back."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from benchmarks.tokenizer_kinds import KINDS
from bert import tokenizer_files
from bert.errors import UserError
from bert.tokenizer import Tokenizer

PIECES = [
    "[MASK]",
    "[SEP]",
    " ",
    "the",
    "unaffable",
    "Running",
    "STRASSE",
    "straße",
    "é",
    "é",
    "中国",
    "が",
    "\x00",
]
TEXTS = st.lists(st.text(max_size=12) | st.sampled_from(PIECES), max_size=8).map("".join)
SAMPLES = [
    'The cat wasn\'t walking; it ran — "unaffable"!',
    "ÜBER Ærø naïve São  Tomé\t\n ﬁnd Ⅷ ½",
    "日本に 中国 привет МИР 한국",
    "[CLS] a [MASK] b[SEP] <mask> </s> [unused0] [mask]",
    "x" * 150 + " \u200b\ufeff\x07 🙂👩‍👩‍👧 e\u0301",
    "",
]


def agree(ours: Tokenizer, theirs, texts, pairs=None) -> None:
    """Ids, segments and offsets; offsets as transformers gives them, in characters of the text."""
    found = ours.encodings(texts, pairs)
    expected = theirs(texts, pairs, return_offsets_mapping=True, return_token_type_ids=True)
    assert [each.ids for each in found] == expected["input_ids"] == ours.encode_batch(texts, pairs)
    assert [each.type_ids for each in found] == expected["token_type_ids"]
    assert [each.offsets for each in found] == [[*map(tuple, each)] for each in expected["offset_mapping"]]


def train(name: str, special: list[str]) -> tokenizers.Tokenizer:
    """A small tokenizer of another family, trained on this file."""
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    if name == "byte-level":
        backend = tokenizers.Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special, initial_alphabet=alphabet)
    else:
        backend = tokenizers.Tokenizer(models.Unigram())
        backend.normalizer = normalizers.NFKC()
        backend.pre_tokenizer = pre_tokenizers.Metaspace()
        backend.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=special, unk_token="<unk>")
    backend.train_from_iterator(lines, trainer)
    return backend


ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the first releases of RoBERTa had them."""
    folder = tmp_path_factory.mktemp("roberta")
    train("byte-level", ROBERTA).model.save(str(folder))
    return folder


@pytest.fixture(scope="module", params=["vocab.txt", "saved", "cased"])
def ours_and_theirs(request, vocabulary, tmp_path_factory):
    """Our tokenizer, from a vocabulary or a folder that we wrote, and transformers' over the same one."""
    folder = tmp_path_factory.mktemp("both")
    lowercase = request.param != "cased"
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in vocabulary), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lowercase}))
    theirs = transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt"), do_lower_case=lowercase)
    ours = Tokenizer.load(folder)
    if request.param == "saved":
        ours.save(folder / "saved")
        return Tokenizer.load(folder / "saved"), theirs
    return ours, theirs


@given(texts=st.lists(TEXTS, min_size=1, max_size=4))
@settings(max_examples=150)
def test_equal_to_transformers_on_any_text(ours_and_theirs, texts):
    agree(*ours_and_theirs, texts)


@given(pair=st.tuples(TEXTS, TEXTS), max_length=st.integers(3, 12))
@settings(max_examples=60)
def test_equal_to_transformers_on_pairs_also_when_cut(ours_and_theirs, pair, max_length):
    ours, theirs = ours_and_theirs
    agree(ours, theirs, [pair[0]], [pair[1]])
    expected = theirs([pair[0]], [pair[1]], truncation=True, max_length=max_length)["input_ids"]
    assert ours.encode_batch([pair[0]], [pair[1]], max_length=max_length) == expected
    agree(ours, theirs, [pair[0]])  # the limit was for that call alone


@pytest.mark.parametrize("strip_accents", [None, True, False])
@pytest.mark.parametrize("chinese", [True, False])
@pytest.mark.parametrize("lowercase", [True, False])
def test_a_saved_folder_is_the_same_tokenizer_to_transformers(
    vocabulary, tmp_path, lowercase, chinese, strip_accents
):
    config = {
        "do_lower_case": lowercase,
        "tokenize_chinese_chars": chinese,
        "strip_accents": strip_accents,
        "model_max_length": 48,
    }
    (tmp_path / "vocab.txt").write_text("".join(f"{token}\n" for token in vocabulary), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    ours = Tokenizer.load(tmp_path)
    ours.save(tmp_path / "saved")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert type(theirs).__name__.startswith("BertTokenizer")
    assert theirs.model_max_length == 48
    agree(ours, theirs, SAMPLES)
    agree(ours, theirs, SAMPLES, SAMPLES[::-1])
    assert (tmp_path / "saved" / "vocab.txt").read_text(encoding="utf-8").splitlines() == vocabulary


def test_published_vocabularies(published, tmp_path):
    ours = Tokenizer.load(published)
    agree(
        ours,
        transformers.AutoTokenizer.from_pretrained(published),
        [*SAMPLES, Path(__file__).read_text()[:1500]],
    )
    ours.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    agree(ours, theirs, SAMPLES)
    agree(Tokenizer.load(tmp_path / "vocab.txt"), theirs, SAMPLES)

    @given(texts=st.lists(TEXTS, min_size=1, max_size=4))
    @settings(max_examples=50)
    def on_any_text(texts):
        agree(ours, theirs, texts)

    on_any_text()


@pytest.mark.parametrize("name", ["byte-level", "unigram"])
def test_other_families_load_and_save(tmp_path, name):
    backend = train(name, ROBERTA)
    if name == "byte-level":
        backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    ours = Tokenizer(backend)
    ours.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    agree(ours, theirs, SAMPLES)
    agree(ours, theirs, SAMPLES, SAMPLES[::-1])
    assert (theirs.mask_token_id, theirs.pad_token_id) == (ours.mask_id, ours.pad_id) == (4, 1)
    again = Tokenizer.load(tmp_path)
    assert again.digest == ours.digest
    assert again.encode_batch(SAMPLES) == ours.encode_batch(SAMPLES)
    assert not (tmp_path / "vocab.txt").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_loads_and_saves(tmp_path, kind):
    ours = Tokenizer(KINDS[kind](SAMPLES * 3, 420))
    ours.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    agree(ours, theirs, SAMPLES)
    agree(ours, theirs, SAMPLES, SAMPLES[::-1])
    assert (theirs.mask_token_id, theirs.pad_token_id) == (ours.mask_id, ours.pad_id)
    assert (theirs.cls_token_id, theirs.sep_token_id) == (ours.cls_id, ours.sep_id)
    again = Tokenizer.load(tmp_path)
    assert again.digest == ours.digest and again.encode_batch(SAMPLES) == ours.encode_batch(SAMPLES)


@pytest.mark.parametrize("named", ["bos and eos", "post-processor", "neither"])
def test_special_tokens_by_role(tmp_path, named):
    """A tokenizer with Llama 3's names: cls and sep from what the files say; without a mask, what would do."""
    backend = KINDS["Llama 3"](SAMPLES, 400)
    begin, end = "<|begin_of_text|>", "<|end_of_text|>"
    if named != "post-processor":
        backend.post_processor = processors.ByteLevel()
    backend.save(str(tmp_path / "tokenizer.json"))
    config = {"bos_token": begin, "eos_token": {"content": end}} if named == "bos and eos" else {}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    if named == "neither":
        with pytest.raises(UserError, match=r"no cls token \(.*add_special_tokens.*save_pretrained"):
            Tokenizer.load(tmp_path)
        return
    loaded = Tokenizer.load(tmp_path)
    assert loaded.special_tokens == {"cls": begin, "sep": end, "pad": "<|pad|>", "mask": "<|mask|>"}
    tokens = loaded.encodings(["a"], ["b"])[0].tokens
    assert (tokens[0], tokens[-1]) == (begin, end) and tokens.count(end) == 2
    loaded.save(tmp_path / "saved")
    assert Tokenizer.load(tmp_path / "saved").digest == loaded.digest


def test_the_two_files_of_roberta(roberta, tmp_path):
    ours = Tokenizer.load(roberta)
    theirs = transformers.RobertaTokenizerFast(
        vocab=str(roberta / "vocab.json"),
        merges=str(roberta / "merges.txt"),
        mask_token=tokenizers.AddedToken("<mask>", lstrip=True),
    )
    texts = [text.replace("[MASK]", "<mask>") for text in SAMPLES]
    agree(ours, theirs, texts)
    ours.save(tmp_path)
    agree(ours, transformers.AutoTokenizer.from_pretrained(tmp_path), texts)
    assert "token_type_ids" not in transformers.AutoTokenizer.from_pretrained(tmp_path).model_input_names


def test_a_space_before_the_first_word_is_said_for_transformers_4(roberta, tokenizer, tmp_path):
    from tokenizers.pre_tokenizers import ByteLevel

    byte_level = Tokenizer.load(roberta)
    byte_level.backend.pre_tokenizer = ByteLevel(add_prefix_space=True)
    for each, expected in ((byte_level, True), (tokenizer, None)):
        each.save(tmp_path)
        assert (
            json.loads((tmp_path / "tokenizer_config.json").read_text()).get("add_prefix_space") is expected
        )


def test_a_pipeline_that_is_not_quite_bert_is_kept_as_it_is(vocabulary, tmp_path):
    backend = tokenizers.Tokenizer(models.WordPiece(dict(zip(vocabulary, range(999))), unk_token="[UNK]"))
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    ours = Tokenizer(backend)
    ours.save(tmp_path, max_length=77, segments=False)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    agree(ours, theirs, SAMPLES)
    assert theirs.model_max_length == 77
    assert theirs.model_input_names == ["input_ids", "attention_mask"]


@pytest.mark.parametrize("place", [".", "tokenizer", "model"])
def test_found_in_a_run(tokenizer, tmp_path, place):
    tokenizer.save(tmp_path / place)
    assert Tokenizer.load(tmp_path).digest == tokenizer.digest
    assert Tokenizer.load(tmp_path / place / "tokenizer.json").digest == tokenizer.digest


def test_a_folder_with_a_tokenizer_json_is_complete(tokenizer, tmp_path, monkeypatch):
    """Commands that find a tokenizer.json train none: a kill may leave it only after all other files."""
    real, written = tokenizer_files.write_text, []

    def write_text(path, text):
        real(path, text)
        written.append(path.name)

    monkeypatch.setattr(tokenizer_files, "write_text", write_text)
    tokenizer.save(tmp_path)
    assert written[-1] == "tokenizer.json"
    assert sorted(written) == ["tokenizer.json", "tokenizer_config.json", "vocab.txt"]


def test_padding_and_truncation_of_a_file_are_left_out(tokenizer, tmp_path):
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    backend.enable_padding(length=20)
    backend.enable_truncation(4)
    backend.save(str(tmp_path / "tokenizer.json"))
    loaded = Tokenizer.load(tmp_path)
    assert loaded.encode_batch(SAMPLES) == tokenizer.encode_batch(SAMPLES)
    assert loaded.digest == tokenizer.digest


def test_the_case_of_a_bare_vocabulary(vocabulary, tmp_path):
    lower = [token for token in vocabulary if token.startswith("[") or token == token.lower()]
    for name, tokens, text in [("cased", vocabulary, "A"), ("uncased", lower, "a")]:
        (tmp_path / f"{name}.txt").write_text("\n".join(tokens), encoding="utf-8")
        assert Tokenizer.load(tmp_path / f"{name}.txt").encodings(["A"])[0].tokens == ["[CLS]", text, "[SEP]"]


def test_ids_by_role(tokenizer, vocabulary):
    roles = [tokenizer.pad_id, tokenizer.unk_id, tokenizer.sep_id, tokenizer.cls_id, tokenizer.mask_id]
    assert roles == [0, 2, 3, 4, 5]
    assert tokenizer.special_ids.tolist() == [0, 2, 3, 4, 5]
    assert tokenizer.normal_ids.tolist() == [1, *range(6, len(vocabulary))]
    assert tokenizer.vocab_size == len(tokenizer) == len(vocabulary)
    assert tokenizer.tokens([4, tokenizer.id_of("cat"), 3]) == ["[CLS]", "cat", "[SEP]"]
    assert tokenizer.decode(tokenizer.encode_batch(["The cat played."])[0]) == "the cat played."


@given(text=st.text(alphabet=st.characters(codec="utf-8"), max_size=40))
@settings(max_examples=60)
def test_words_of_wordpiece_are_those_of_its_pre_tokenizer(tokenizer, text):
    encoding = tokenizer.encodings([text], special_tokens=False)[0]
    words = encoding.word_ids
    begins = [i == 0 or words[i] != words[i - 1] for i in range(len(words))]
    assert [not continues for continues in tokenizer.continues_word[encoding.ids]] == begins


LEARNT = ['She said: "It was known" (naively), said it.', "She is naive, said it known."] * 4
TEXT = 'She said "unknown", (naïve): 2☃ well-known 北京。'
WORDS = [
    "She",
    "said",
    '"',
    "unknown",
    '"',
    ",",
    "(",
    "naïve",
    ")",
    ":",
    "2",
    "☃",
    "well",
    "-",
    "known",
    "北",
    "京",
    "。",
]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "BERT, " not in kind])
def test_words_of_kinds_that_mark_their_beginning(kind):
    """A word stands between spaces or marks. The bytes of a character stay together; Chinese characters stand alone."""
    tokenizer = Tokenizer(KINDS[kind]([*LEARNT, *map(" ".join, [TEXT])], 420))
    ids = np.array(tokenizer.encode_batch([TEXT], special_tokens=False)[0])
    begins = np.flatnonzero(tokenizer.begins_word(ids))
    words = [tokenizer.decode(word).strip() for word in np.split(ids, begins[1:])]
    assert words == ([word.lower().replace("ï", "i") for word in WORDS] if kind == "ALBERT" else WORDS)
    assert len(ids) > len(WORDS)
    assert not tokenizer.continues_word[tokenizer.special_ids].any()


def test_the_digest_tells_tokenizers_apart(vocabulary, tokenizer, tmp_path):
    cased = tmp_path / "vocab.txt"
    cased.write_text("\n".join(vocabulary), encoding="utf-8")
    assert Tokenizer.load(cased).digest != tokenizer.digest
    assert pickle.loads(pickle.dumps(tokenizer)).digest == tokenizer.digest


def test_nothing_heavy_is_loaded():
    code = "import bert.tokenizer, sys; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def files(**contents: str | bytes):
    def write(folder: Path) -> Path:
        for name, content in contents.items():
            path = folder / name.replace("__", ".")
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return folder

    return write


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda folder: folder / "nowhere", "nowhere: no such file or folder"),
        (files(), "no tokenizer.json, vocab.txt"),
        (files(spm__model=b"\x00"), "SentencePiece model but no tokenizer.json"),
        (files(vocab__txt="[PAD]\n[UNK]\n[CLS]\n[SEP]\nthe\n"), r"lacks \[MASK\]"),
        (files(vocab__txt=b"[PAD]\n\xff\xfe\n"), "vocab.txt: is not UTF-8"),
        (files(tokenizer__json="{"), "tokenizer.json: cannot be read as a tokenizer"),
        (files(vocab__txt="a", tokenizer_config__json="{,}"), "tokenizer_config.json: is not valid JSON"),
    ],
)
def test_mistakes_are_named(tmp_path, write, message):
    with pytest.raises(UserError, match=message) as caught:
        Tokenizer.load(write(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spare", "advice"),
    [
        ([], r'add_special_tokens\(\{"mask_token": "\[MASK\]"\}\)'),
        (["<unused1>"], '"mask_token": "<unused1>"'),
    ],
)
def test_a_tokenizer_without_a_mask_is_refused_with_what_would_do(tmp_path, spare, advice):
    train("byte-level", ["<s>", "</s>", "<pad>", *spare]).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match=f"no mask token .*{advice}"):
        Tokenizer.load(tmp_path)
    if spare:
        (tmp_path / "tokenizer_config.json").write_text('{"mask_token": "<unused1>"}')
        assert Tokenizer.load(tmp_path).mask_id == 3


def test_an_unknown_token_is_named(tokenizer):
    with pytest.raises(UserError, match="'zebra'"):
        tokenizer.id_of("zebra")
    assert np.array_equal(tokenizer.encode_batch([]), [])
