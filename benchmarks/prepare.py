"""How fast a corpus becomes token ids, and in how much memory.

    python benchmarks/prepare.py CORPUS VOCABULARY [--sizes 25 100 400] [--processes 2] [--rounds 3]

CORPUS is anything that corpus.files takes, VOCABULARY anything that tokenizer.from takes. Beside `prepare` (sentences,
duplicates, held-out share and all) stand the tokenizer alone (`tokenizers.encode_batch` on the same documents, in
memory, on as many threads) and what run_mlm.py of transformers does (`datasets.map` with a tokenizer, then group_texts,
on as many processes). Memory: the greatest sum over a command and its workers while it prepares the text, repeated to
each size. Rounds are interleaved; every side is a process of its own and pays for its own start.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from statistics import median

import psutil
from measuring import ratio, table, write

from pretrain.data.config import CorpusConfig
from pretrain.data.corpus import open_corpus, read

SPEED_BYTES = 100_000_000
TOKENIZER_ALONE = """
import json, os, sys, time
os.environ["RAYON_NUM_THREADS"] = sys.argv[3]
from bert.tokenizer import Tokenizer
backend = Tokenizer.load(sys.argv[2]).backend
texts = [json.loads(line)["text"] for line in open(sys.argv[1])]
start = time.perf_counter()
for first in range(0, len(texts), 1000):
    backend.encode_batch(texts[first : first + 1000], add_special_tokens=False)
print(time.perf_counter() - start)
"""
MAP_AND_GROUP = """
import sys, time
from itertools import chain
from datasets import load_dataset
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[2])
start = time.perf_counter()
raw = load_dataset("json", data_files=sys.argv[1], cache_dir=sys.argv[4], split="train")
def tokenize(rows):
    return tokenizer(rows["text"], return_special_tokens_mask=True)
def group_texts(rows, length=512):
    joined = {key: list(chain(*rows[key])) for key in rows.keys()}
    total = len(joined["input_ids"]) // length * length
    return {key: [ids[i : i + length] for i in range(0, total, length)] for key, ids in joined.items()}
processes = int(sys.argv[3])
tokenized = raw.map(tokenize, batched=True, num_proc=processes, remove_columns=raw.column_names)
tokenized.map(group_texts, batched=True, num_proc=processes)
print(time.perf_counter() - start)
"""


def documents(corpus: str) -> Iterator[str]:
    found = open_corpus(CorpusConfig(files=[corpus]))
    for unit in found.units:
        yield from (
            "\n".join(one.paragraphs) for _, one in read(unit, lines=True) if not isinstance(one, str)
        )


def write_corpus(texts: list[str], size: int, path: Path) -> int:
    """JSON lines of `size` bytes of text, repeated where there is not enough; returns the bytes."""
    written = 0
    with path.open("w") as file:
        for text in cycle(texts):
            if written >= size:
                return written
            file.write(json.dumps({"text": text}) + "\n")
            written += len(text.encode())
    return written


def ours(corpus: Path, tokenizer: Path, processes: int, folder: Path) -> tuple[float, float]:
    """Seconds of a command, and its greatest memory in bytes with all its workers."""
    config = folder / "config.yaml"
    config.write_text("prepare: {deduplicate: exact}")
    words = [f"run_dir={folder}/run", f"tokenizer.path={tokenizer}", f"corpus.files={corpus}"]
    command = [sys.executable, "-m", "pretrain.prepare", str(config), *words, f"prepare.workers={processes}"]
    start, peak = time.perf_counter(), 0.0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, memory(process.pid))
            time.sleep(0.2)
    assert process.returncode == 0
    return time.perf_counter() - start, peak


def memory(pid: int) -> float:
    """Resident bytes of a process and its children; pages that they share count in each."""
    total = 0.0
    parent = psutil.Process(pid)
    for process in [parent, *parent.children(recursive=True)]:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def theirs(script: str, *arguments: object) -> float:
    """Seconds that a script measures itself, its imports left out."""
    environment = os.environ | {"HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    environment.pop("TOKENIZERS_PARALLELISM", None)  # as a user has it: on, but off in forked processes
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("corpus")
    parser.add_argument("vocabulary")
    parser.add_argument("--sizes", type=int, nargs="+", default=[25, 100, 400], help="MB of text")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    from bert.tokenizer import Tokenizer

    texts = list(documents(options.corpus))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer = folder / "tokenizer"
        Tokenizer.load(options.vocabulary).save(tokenizer)
        corpus = folder / "speed.jsonl"
        size = write_corpus(texts, min(SPEED_BYTES, sum(len(text.encode()) for text in texts)), corpus)
        seconds: dict[str, list[float]] = {"prepare": [], "encode_batch": [], "map + group_texts": []}
        for turn in range(options.rounds):
            place = folder / f"round{turn}"
            place.mkdir()
            seconds["prepare"].append(ours(corpus, tokenizer, options.processes, place)[0])
            seconds["encode_batch"].append(theirs(TOKENIZER_ALONE, corpus, tokenizer, options.processes))
            arguments = (corpus, tokenizer, options.processes, place / "cache")
            seconds["map + group_texts"].append(theirs(MAP_AND_GROUP, *arguments))
        peaks = {}
        for megabytes in options.sizes:
            place = folder / f"size{megabytes}"
            place.mkdir()
            write_corpus(texts, megabytes * 1_000_000, folder / "memory.jsonl")
            peaks[megabytes] = ours(folder / "memory.jsonl", tokenizer, options.processes, place)[1]
    result = {
        "corpus": Path(options.corpus).name,
        "text_bytes": size,
        "processes": options.processes,
        "seconds": seconds,
        "times_as_fast_as": {key: ratio(of, seconds["prepare"]) for key, of in seconds.items()},
        "peak_memory_bytes_by_megabytes_of_text": peaks,
    }
    rows = [
        [key, f"{size / 1e6 / median(of):.2f}", f"{ratio(of, seconds['prepare']):.2f}"]
        for key, of in seconds.items()
    ]
    memories = [[f"{megabytes} MB", f"{peak / 1e6:.0f}"] for megabytes, peak in peaks.items()]
    text = table(["", "MB/s", "prepare is times as fast"], rows)
    text += "\n\n" + table(["", "peak MB, all processes"], memories)
    write(f"prepare_{Path(options.corpus).name.partition('.')[0]}", result, text)


if __name__ == "__main__":
    main()
