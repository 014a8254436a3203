"""What the benchmarks share: sides that run in processes of their own, interleaved rounds, and a report."""

import json
import multiprocessing
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).parent / "results"


class Side:
    """One side of a comparison: an object that `make` builds in a process of its own.

    So neither side inherits the other's allocator, caches or peak of memory, and an idle side costs nothing.
    """

    def __init__(self, make: Callable[..., Any], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
        self._process.start()

    def __call__(self, method: str, *arguments: Any) -> Any:
        """The result of a method of the object."""
        self._connection.send((method, arguments))
        failed, result = self._connection.recv()
        if failed:
            raise RuntimeError(result)
        return result

    def close(self) -> None:
        self._connection.close()
        self._process.join()


def _serve(connection: Connection, make: Callable[..., Any], arguments: Sequence[Any]) -> None:
    try:
        served = make(*arguments)
        while True:
            method, given = connection.recv()
            connection.send((False, getattr(served, method)(*given)))
    except EOFError:
        return
    except Exception as error:
        connection.send((True, f"{type(error).__name__}: {error}"))
        raise


def interleave(sides: Mapping[str, Side], method: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of each side in each round, side after side: what else the machine does meets all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds):
        for name, side in sides.items():
            seconds[name].append(side(method, turn))
    return seconds


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """How many times faster ours is: the median over the rounds."""
    return median(t / o for t, o in zip(theirs, ours, strict=True))


def timed(work: Callable[[], Any]) -> float:
    """Seconds until the work is done, on a GPU too."""
    import torch

    synchronize = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    synchronize()
    start = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - start


def matmul_rate(dtype_name: str, size: int = 2048) -> float:
    """FLOP/s of a large matrix product: the best of some, as an upper bound of what any side can reach."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    a, b = torch.randn(2, size, size, device=device).to(getattr(torch, dtype_name))
    return 2 * size**3 / min(timed(lambda: a @ b) for _ in range(12))


def machine() -> dict[str, Any]:
    """What the figures hold for."""
    import torch

    names = ("torch", "transformers", "accelerate", "numpy")
    info: dict[str, Any] = {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in names},
    }
    if torch.cuda.is_available():
        info["gpu"] = torch.cuda.get_device_name()
    return info


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    extensions = [
        name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in fields.get("flags", "")
    ]
    return f"{fields.get('model name', platform.machine())} ({', '.join(extensions)})"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Lines of aligned columns: those without a title to the left, numbers to the right."""
    cells = [list(map(str, columns)), *(list(map(str, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]

    def line(row: Sequence[str]) -> str:
        padded = zip(row, widths, columns, strict=True)
        return "  ".join(cell.rjust(w) if title else cell.ljust(w) for cell, w, title in padded).rstrip()

    return "\n".join(map(line, cells))


def write_row(path: Path | None, row: Mapping[str, Any]) -> None:
    """A result at once, as a line of JSON: into a file, for whoever runs this program, and on the screen."""
    line = json.dumps(row)
    print(line, flush=True)
    if path is not None:
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def write(name: str, result: Mapping[str, Any], text: str, folder: Path = RESULTS) -> None:
    """NAME.json and NAME.txt, and the text on the screen."""
    print(save(name, result, text, folder))


def save(name: str, result: Mapping[str, Any], text: str, folder: Path = RESULTS) -> str:
    """NAME.json and NAME.txt; returns the text. Of paths on the command line only the names stay."""
    words = [re.sub(r"[^=]*/", "", word) for word in sys.argv[1:]]
    script, folders = Path(sys.argv[0]).resolve(), RESULTS.resolve().parents
    place = script.relative_to(folders[1]) if folders[1] in script.parents else Path(script.name)
    command = " ".join(["python", place.as_posix(), *words])
    about = machine()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(
        json.dumps({"command": command, "machine": about, **result}, indent=1) + "\n"
    )
    versions = ", ".join(f"{key} {value}" for key, value in about["versions"].items() if value)
    head = f"{command}\n{about['cpu']}, {about['threads']} threads, {about.get('gpu', 'no GPU')}\n{versions}"
    (folder / f"{name}.txt").write_text(f"{head}\n\n{text}\n")
    return f"{head}\n\n{text}"
