"""Documents, and what turns them into token ids: our command, the tokenizer alone, the pipeline of run_mlm.py."""

import json
import os
import shutil
import string
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import chain, count
from pathlib import Path
from typing import Any

import psutil

from pretrain.corpus.config import CorpusConfig
from pretrain.corpus.sources import open_corpus, read_unit


def documents(corpus: str, size: int) -> list[str]:
    """The first documents, until they have `size` bytes."""
    texts: list[str] = []
    for unit in open_corpus(CorpusConfig(files=[corpus])).units:
        for _, outcome in read_unit(unit, lines=True):
            if size <= 0:
                return texts
            if not isinstance(outcome, str):
                texts.append("\n".join(outcome.paragraphs))
                size -= len(texts[-1].encode())
    return texts


def copies(texts: list[str]) -> Iterator[str]:
    """The texts, then over and over, each time in another cipher."""
    yield from texts
    letters = string.ascii_lowercase
    for number in count(1):
        shift = number % len(letters)
        turned = letters[shift:] + letters[:shift]
        cipher = str.maketrans(letters + letters.upper(), turned + turned.upper())
        yield from (f"{number}\n{text.translate(cipher)}" for text in texts)


def write_corpus(texts: Iterator[str], size: int, path: Path) -> int:
    """JSON lines of `size` bytes of text, or of all there is; returns the bytes."""
    written = 0
    with path.open("w", encoding="utf-8") as file:
        for text in texts:
            if written >= size:
                break
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
            written += len(text.encode())
    return written


class Prepare:
    """`python -m pretrain.prepare`; the store of the last run stays in `folder`."""

    def __init__(self, corpus: Path, tokenizer: Path, processes: int, folder: Path) -> None:
        self.run_dir, config = folder / "run", folder / "config.yaml"
        config.write_text("{}")
        self.command = [sys.executable, "-m", "pretrain.prepare", str(config), f"run_dir={self.run_dir}"]
        self.command += [
            f"tokenizer.path={tokenizer}",
            f"corpus.files={corpus}",
            f"prepare.workers={processes}",
        ]

    def seconds(self, turn: int) -> float:
        shutil.rmtree(self.run_dir, ignore_errors=True)
        start = time.perf_counter()
        subprocess.run(self.command, check=True, capture_output=True)
        return time.perf_counter() - start

    def peak(self) -> int:
        """The greatest memory of the command and its workers together, bytes."""
        shutil.rmtree(self.run_dir, ignore_errors=True)
        peak = 0
        with subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None:
                peak = max(peak, resident(process.pid))
                time.sleep(0.2)
        assert process.returncode == 0
        return peak


def resident(pid: int) -> int:
    """Resident bytes of a process and all that it started."""
    total = 0
    parent = psutil.Process(pid)
    for process in [parent, *parent.children(recursive=True)]:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


class EncodeBatch:
    """The tokenizer alone."""

    def __init__(self, corpus: Path, tokenizer: Path, threads: int) -> None:
        os.environ["RAYON_NUM_THREADS"] = str(threads)
        from bert.tokenizer import Tokenizer

        self.backend = Tokenizer.load(tokenizer).backend
        self.texts = [json.loads(line)["text"] for line in corpus.open(encoding="utf-8")]

    def seconds(self, turn: int) -> float:
        start = time.perf_counter()
        for first in range(0, len(self.texts), 1000):
            self.backend.encode_batch(self.texts[first : first + 1000], add_special_tokens=False)
        return time.perf_counter() - start


class MapAndGroup:
    """What run_mlm.py does with a corpus."""

    def __init__(self, corpus: Path, tokenizer: Path, processes: int, folder: Path) -> None:
        import datasets
        from transformers import AutoTokenizer

        datasets.disable_progress_bars()
        self.load, self.tokenizer = datasets.load_dataset, AutoTokenizer.from_pretrained(tokenizer)
        self.corpus, self.processes, self.cache = str(corpus), processes, folder / "cache"

    def seconds(self, turn: int) -> float:
        start = time.perf_counter()
        raw = self.load("json", data_files=self.corpus, cache_dir=str(self.cache), split="train")
        tokenized = raw.map(
            self.tokenize, batched=True, num_proc=self.processes, remove_columns=raw.column_names
        )
        tokenized.map(self.group_texts, batched=True, num_proc=self.processes)
        seconds = time.perf_counter() - start
        shutil.rmtree(self.cache)
        return seconds

    def tokenize(self, rows: dict[str, list[str]]) -> Any:
        return self.tokenizer(rows["text"], return_special_tokens_mask=True)

    @staticmethod
    def group_texts(rows: dict[str, list[list[int]]], length: int = 512) -> dict[str, list[list[int]]]:
        joined = {key: list(chain(*rows[key])) for key in rows}
        total = len(joined["input_ids"]) // length * length
        return {key: [ids[i : i + length] for i in range(0, total, length)] for key, ids in joined.items()}
