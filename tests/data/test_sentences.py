"""Sentences are found in many scripts, nothing is lost, and hostile text costs no more than any other."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretrain.corpus.sentences import split_sentences

CASES = {
    "abbreviations": "Dr. Smith met Mrs. Lee at 5 p.m. on Friday.|They had pears, etc.|It was short.",
    "initials": "J. R. R. Tolkien wrote it.|So did C. S. Lewis.",
    "countries": "He moved to the U.S. in 1990.|The U.S. Army was there.|She left the U.S.|The war was over.",
    "decimals": "It rose 3.5 percent, to $1.25.|That was version 2.0.1 of it.|See www.example.com for more.",
    "quotes": "“Stop!” he cried.|She ran.|“Why should I?”|'Never.'|\"So be it.\"|He left.",
    "question in quotes": 'She asked "Why?" and left.|Nobody knew.',
    "ellipsis": "Well... perhaps not.|He waited...|Nothing came.|It was . . . well . . .|So was she.",
    "notes": "It is old.[1]|It was built in 1066.[2][3]|It stands.",
    "lists": "1. The first point is this.|2. The second is that.",
    "figures": "As Fig. 3 and No. 5 show, it works.|No.|It does not.",
    "german": "Am 3. Oktober kam Dr. Müller z.B. nach Köln.|Er blieb.|Das war 1990.|Die Stadt ist alt.",
    "french": "M. Dupont est arrivé à 8 h.|« Bonjour ! » dit-il.|Il est parti.",
    "spanish": "El Sr. García llegó.|¿Qué tal?|¡Hola!|No sé.",
    "russian": "Он родился в 1799 г. в Москве.|Это было давно.|И т.е. правда.",
    "greek": "Τι κάνεις;|Είμαι καλά.|Εσύ;|Καλά.",
    "chinese": "他说：“你好！”|然后走了。|是吗？|这是（一个）句子。",
    "japanese": "「行こう。」と彼は言った。|今日は晴れです！|本当ですか？",
    "arabic": "كيف حالك؟|أنا بخير.|هذا كتاب.",
    "hindi": "यह एक वाक्य है।|वह यू.के. में है।|आप कैसे हैं?",
    "armenian": "Լոնդոնը քաղաք է։|Նա այնտեղ է։",
    "mixed": "It is called 北京。|Yes.|好。|Fine!",
}


@pytest.mark.parametrize("text", CASES.values(), ids=CASES.keys())
def test_known_texts(text):
    sentences = text.split("|")
    joined = ("" if text[-1] in "。？”" else " ").join(sentences)
    assert split_sentences(joined) == sentences


@given(st.text(alphabet="aB1 .!?…\"'”」。？؟।)[\n\t", max_size=60) | st.text(max_size=60))
def test_nothing_but_white_space_is_lost(text):
    sentences = split_sentences(text)
    assert "".join("".join(sentences).split()) == "".join(text.split())
    assert all(sentence == sentence.strip() and sentence for sentence in sentences)


@pytest.mark.parametrize("piece", [".", "'", ".'", "a", "!?", "。", ".[1]", ". ", "A. ", "(", "[", '…"', " "])
def test_hostile_text_takes_linear_time(piece):
    text = piece * (300_000 // len(piece))
    start = time.process_time()
    split_sentences(text)
    assert time.process_time() - start < 2
