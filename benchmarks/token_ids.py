"""Token ids of each kind of tokenizer: whether `prepare` gives those of whole paragraphs, by which path, and how fast.

    python benchmarks/token_ids.py [CORPUS ...] [--quick]

CORPUS is a file as corpus.files takes it; by default the documentation of installed packages. A tokenizer of each kind
(tokenizer_kinds.py) is trained on the first --learn megabytes of a corpus; then come its first --megabytes, and lines
in many scripts.

- paragraphs and sentences with the same ids as the tokenizer gives to the whole paragraph, cut where sentences end;
  paragraphs with the same ids in transformers, which reads the saved folder
- apart: paragraphs whose ids would be others if their sentences were tokenised one by one
- words: the share of the paragraphs of which each distinct word is tokenised once
- speed: how many times as fast as `encode_batch_fast` on the whole paragraphs, on one thread; both sides take turns,
  the median of the rounds
"""

import argparse
import json
import os
import tempfile
import time
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from measuring import RESULTS, ratio, write
from preparing import documents
from tokenizer_kinds import KINDS
from transformers import AutoTokenizer

from bert.data.ragged import starts_of
from bert.tokenizer import Tokenizer
from pretrain.corpus.config import DOCUMENTATION, CorpusConfig
from pretrain.corpus.sentences import sentence_splitter
from pretrain.corpus.text import normalizer
from pretrain.corpus.token_ids import CachedTokenizer

SCRIPTS = """\
Schöne Grüße aus Köln! "Größer," sagte er. Straße und STRASSE; z. B. am 3. Oktober.
L'été, ça va? — Oui... À bientôt ! «Très bien.» Œuvre, naïve, ﬁn, Ⅷ, ½, e\u0301 and Å\u00a0b.
Привет, мир! Как дела? Всё хорошо. Γειά σου Κόσμε; Ναι. ΣΟΦΟΣ.
مرحبا بالعالم؟ نعم. שלום עולם! מה נשמע? नमस्ते दुनिया। हाँ। বাংলা ভাষা।
東京は日本の首都です。はい。「本当？」 한국어 문장입니다. 네! สวัสดี ครับ ภาษาไทย
北京是中国的首都。上海也很大！"东京"呢？ Tiếng Việt. Türkçe: İstanbul, ılık. ქართული. Հայերեն։ Այո։
Two  spaces.   Three\ttabs.\u3000Wide. 👩‍👩‍👧 😀. ☃! x\u200by <s> [MASK] </s> ▁ a▁b <0x41>
It costs $3.50, 10% ``quoted'' e-mail@example.com
"""


def paragraphs_of(corpus: str, megabytes: float) -> list[list[str]]:
    """The sentences of the first paragraphs."""
    config = CorpusConfig()
    lines = [line for text in documents(corpus, int(megabytes * 1e6)) for line in text.split("\n")]
    return sentence_splitter(config)([normalizer(config)(line) for line in lines])


def measure(
    kind: str, learn: list[str], paragraphs: list[list[str]], options: argparse.Namespace
) -> dict[str, Any]:
    """The figures of one kind of tokenizer."""
    tokenizer = Tokenizer(KINDS[kind](learn, options.vocab_size))
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(folder)
        theirs = AutoTokenizer.from_pretrained(folder)
    whole = ["".join(sentences) for sentences in paragraphs]
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(options.rounds):
        start = time.perf_counter()
        tokenizer.backend.encode_batch_fast(whole, add_special_tokens=False)
        between = time.perf_counter()
        ids, lengths = CachedTokenizer(tokenizer)(paragraphs)
        seconds["theirs"].append(between - start)
        seconds["ours"].append(time.perf_counter() - between)
    found = np.split(ids, starts_of(lengths)[1:-1])
    encodings = tokenizer.encodings(whole, special_tokens=False)
    by_paragraph = starts_of(np.array(list(map(len, paragraphs))))
    equal = [
        np.concatenate(found[first:last]).tolist() == encoding.ids
        for first, last, encoding in zip(by_paragraph, by_paragraph[1:], encodings)
    ]
    sentences = list(chain.from_iterable(map(cut, paragraphs, encodings)))
    alone = tokenizer.encode_batch(
        [sentence.strip() for sentence in chain(*paragraphs)], special_tokens=False
    )
    apart = [
        list(chain(*alone[first:last])) != encoding.ids
        for first, last, encoding in zip(by_paragraph, by_paragraph[1:], encodings)
    ]
    read = theirs(whole, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return {
        "kind": kind,
        "way": CachedTokenizer(tokenizer).way,
        "paragraphs": len(paragraphs),
        "equal_paragraphs": sum(equal),
        "sentences": len(sentences),
        "equal_sentences": sum(ours.tolist() == each for ours, each in zip(found, sentences, strict=True)),
        "equal_in_transformers": sum(e.ids == each for e, each in zip(encodings, read, strict=True)),
        "other_ids_apart": sum(apart),
        "share_by_words": share_by_words(tokenizer, paragraphs),
        "times_as_fast": ratio(seconds["theirs"], seconds["ours"]),
        "seconds": seconds,
    }


def cut(sentences: list[str], encoding: Any) -> list[list[int]]:
    """The ids of a paragraph, by the sentence in which each token begins."""
    ends = np.cumsum([len(sentence) for sentence in sentences])
    rows: list[list[int]] = [[] for _ in sentences]
    for token, (first, _) in zip(encoding.ids, encoding.offsets, strict=True):
        rows[min(int(np.searchsorted(ends, first, side="right")), len(rows) - 1)].append(token)
    return rows


def share_by_words(tokenizer: Tokenizer, paragraphs: list[list[str]]) -> float:
    """The share of the paragraphs that are cut into words."""
    cached, whole = CachedTokenizer(tokenizer), []
    of_whole = cached._of_whole
    cached._of_whole = lambda given: whole.extend(given) or of_whole(given)  # type: ignore[method-assign]
    cached(paragraphs)
    return 1 - len(whole) / len(paragraphs)


def described(corpus: str, rows: list[dict[str, Any]]) -> str:
    """A table in Markdown."""
    lines = [
        f"**{corpus}**: {rows[0]['paragraphs']:,} paragraphs, {rows[0]['sentences']:,} sentences",
        "",
        "| kind | paragraphs equal | sentences equal | transformers equal | others apart | by words | × as fast |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        cells = [row["kind"], *(f"{row[name]:,}" for name in ("equal_paragraphs", "equal_sentences"))]
        cells += [f"{row[name]:,}" for name in ("equal_in_transformers", "other_ids_apart")]
        cells += [f"{100 * row['share_by_words']:.1f} %", f"{row['times_as_fast']:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpora", nargs="*", default=[DOCUMENTATION], metavar="CORPUS")
    parser.add_argument("--megabytes", type=float, default=4, help="text of each corpus (4)")
    parser.add_argument("--learn", type=float, default=2, help="megabytes of it to train on (2)")
    parser.add_argument("--vocab-size", type=int, default=16_000, help="of each tokenizer (16,000)")
    parser.add_argument("--rounds", type=int, default=3, help="how often the sides take turns (3)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--quick", action="store_true", help="a smoke test: little text, one round")
    options = parser.parse_args()
    if options.quick:
        vars(options).update(megabytes=0.2, learn=0.1, vocab_size=2_000, rounds=1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    results: dict[str, list[dict[str, Any]]] = {}
    for corpus in options.corpora:
        paragraphs = paragraphs_of(corpus, options.megabytes)
        learn = ["".join(sentences) for sentences in paragraphs_of(corpus, options.learn)]
        paragraphs += sentence_splitter(CorpusConfig())(SCRIPTS.splitlines())
        name = Path(corpus).name
        results[name] = [measure(kind, learn, paragraphs, options) for kind in KINDS]
    text = "\n\n".join(described(name, rows) for name, rows in results.items())
    write("tokenizers", {"corpora": json.loads(json.dumps(results))}, text, options.results)


if __name__ == "__main__":
    main()
