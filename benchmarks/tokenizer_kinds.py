"""Tokenizers of each kind: the steps and special tokens of published ones, with a vocabulary trained on some text."""

import json
from collections.abc import Callable, Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer, UnigramTrainer, WordPieceTrainer

from bert import tokenizer_files

BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
GEMMA = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
LLAMA_3 = ["<|begin_of_text|>", "<|end_of_text|>", "<|pad|>", "<|mask|>"]
LLAMA_3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
ONE_SPACE = normalizers.Replace(Regex(" {2,}"), " ")


def bert(texts: Sequence[str], size: int, lowercase: bool = True) -> Tokenizer:
    """WordPiece."""
    backend = tokenizer_files.word_piece(
        {token: n for n, token in enumerate(BERT)}, {"do_lower_case": lowercase}, {}
    )
    backend.train_from_iterator(
        texts, WordPieceTrainer(vocab_size=size, special_tokens=BERT, show_progress=False)
    )
    return backend


def bert_cased(texts: Sequence[str], size: int) -> Tokenizer:
    return bert(texts, size, lowercase=False)


def roberta(texts: Sequence[str], size: int) -> Tokenizer:
    """Byte-level BPE with GPT-2's words."""
    backend = _byte_level(texts, size, ROBERTA, pre_tokenizers.ByteLevel(add_prefix_space=False))
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return backend


def modernbert(texts: Sequence[str], size: int) -> Tokenizer:
    """The same after NFC, with added tokens for runs of spaces, which may stand anywhere in a text."""
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend = _byte_level(texts, size, BERT, words, normalizers.NFC())
    backend.add_tokens([AddedToken(" " * number) for number in range(24, 1, -1)])
    backend.post_processor = _around("[CLS]", "[SEP]", backend)
    return backend


def llama_3(texts: Sequence[str], size: int) -> Tokenizer:
    """Byte-level BPE with Llama 3's words, which are looked up whole before they are merged."""
    split = pre_tokenizers.Split(Regex(LLAMA_3_WORDS), "isolated")
    words = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend = _byte_level(texts, size, LLAMA_3, words)
    description = json.loads(backend.to_str())
    description["model"]["ignore_merges"] = True
    backend = Tokenizer.from_str(json.dumps(description))
    backend.post_processor = _around(*LLAMA_3[:2], backend)
    return backend


def xlm_roberta(texts: Sequence[str], size: int) -> Tokenizer:
    """SentencePiece's Unigram after NFKC; CamemBERT's too."""
    backend = _unigram(
        texts,
        size,
        ROBERTA,
        normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), ONE_SPACE]),
        pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]),
    )
    backend.post_processor = _around("<s>", "</s>", backend)
    return backend


def albert(texts: Sequence[str], size: int) -> Tokenizer:
    """SentencePiece's Unigram without case and accents."""
    plain = [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
    quotes = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    backend = _unigram(
        texts,
        size,
        ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"],
        normalizers.Sequence([*quotes, *plain, ONE_SPACE]),
        pre_tokenizers.Metaspace(),
    )
    backend.post_processor = _around("[CLS]", "[SEP]", backend)
    return backend


def gemma(texts: Sequence[str], size: int) -> Tokenizer:
    """SentencePiece's BPE with byte fallback, over the whole text; mmBERT's too."""
    backend = _byte_fallback(texts, size)
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    backend.add_tokens([AddedToken("▁" * number, normalized=False) for number in range(2, 8)])
    return backend


def llama_2(texts: Sequence[str], size: int) -> Tokenizer:
    """The same with a space before every text."""
    backend = _byte_fallback(texts, size)
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return backend


KINDS: dict[str, Callable[[Sequence[str], int], Tokenizer]] = {
    "BERT, uncased": bert,
    "BERT, cased": bert_cased,
    "RoBERTa": roberta,
    "ModernBERT": modernbert,
    "Llama 3": llama_3,
    "XLM-R, CamemBERT": xlm_roberta,
    "ALBERT": albert,
    "Gemma, mmBERT": gemma,
    "Llama 2": llama_2,
}


def _around(cls: str, sep: str, backend: Tokenizer) -> processors.TemplateProcessing:
    """The special tokens before and after a text."""
    ids = [(token, backend.token_to_id(token)) for token in (cls, sep)]
    return tokenizer_files.bert_template(*ids)


def _byte_level(
    texts: Sequence[str],
    size: int,
    special: list[str],
    words: pre_tokenizers.PreTokenizer,
    normalizer: normalizers.Normalizer | None = None,
) -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer, backend.decoder = words, decoders.ByteLevel()
    if normalizer is not None:
        backend.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    return backend


def _unigram(
    texts: Sequence[str],
    size: int,
    special: list[str],
    normalizer: normalizers.Normalizer,
    words: pre_tokenizers.PreTokenizer,
) -> Tokenizer:
    backend = Tokenizer(models.Unigram())
    backend.normalizer, backend.pre_tokenizer, backend.decoder = normalizer, words, decoders.Metaspace()
    trainer = UnigramTrainer(vocab_size=size, special_tokens=special, unk_token="<unk>", show_progress=False)
    backend.train_from_iterator(texts, trainer)
    return backend


def _byte_fallback(texts: Sequence[str], size: int) -> Tokenizer:
    """BPE that never merges across a space, with a token for each byte; words are not split when it is used."""
    learning = Tokenizer(models.BPE())
    learning.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = BpeTrainer(vocab_size=size, special_tokens=[*GEMMA, *BYTES], show_progress=False)
    learning.train_from_iterator(texts, trainer)
    learnt = json.loads(learning.to_str())["model"]
    merges = [tuple(pair) for pair in learnt["merges"]]
    backend = Tokenizer(
        models.BPE(learnt["vocab"], merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    backend.add_special_tokens(GEMMA)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    backend.post_processor = _around("<bos>", "<eos>", backend)
    return backend
