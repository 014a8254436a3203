"""A wheel, built from a source archive and installed, works in an empty folder: it carries the recipes."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.docs.test_readme import TINY

pytestmark = [pytest.mark.slow, pytest.mark.launch]

SOURCES = ("pyproject.toml", "README.md", "LICENSE", "bert", "pretrain", "finetune", "configs")
OUTSIDE = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def run(*words: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [*map(str, words)], cwd=cwd, env=OUTSIDE, text=True, capture_output=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def python(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the built wheel, and with the other packages of this environment."""
    folder = tmp_path_factory.mktemp("installed")
    source, dist = folder / "source", folder / "dist"
    source.mkdir()
    for name in SOURCES:
        if (root / name).is_dir():
            shutil.copytree(
                root / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(root / name, source / name)
    build = f"from setuptools import build_meta; print(build_meta.build_sdist({str(dist)!r}))"
    archive = dist / run(sys.executable, "-c", build, cwd=source).splitlines()[-1]
    pip = (sys.executable, "-m", "pip")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", dist, archive, cwd=folder)
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    python = folder / "venv" / "bin" / "python"
    run(*pip, "--python", python, "install", "--no-deps", "--no-index", *dist.glob("*.whl"), cwd=folder)
    own = Path(
        run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    )
    (own / "others.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return python


def test_a_recipe_runs_by_its_name_in_an_empty_folder(python: Path, tmp_path: Path) -> None:
    from pydoc_data.topics import topics

    where = run(python, "-c", "import bert; print(bert.__file__)", cwd=tmp_path).strip()
    assert Path(where).is_relative_to(python.parents[1])
    assert "  mini  " in run(python, "-m", "pretrain", "--list", cwd=tmp_path)
    assert "  glue/sst2  " in run(python, "-m", "finetune", "--list", cwd=tmp_path)
    assert run(python.parent / "bert", "--version", cwd=tmp_path).startswith("bert-pretraining ")
    (tmp_path / "my-texts").mkdir()
    for number, text in enumerate(list(topics.values())[:40]):
        (tmp_path / "my-texts" / f"{number}.txt").write_text(text, encoding="utf-8")
    launch = (python, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", "-m", "pretrain")
    run(*launch, "mini", "corpus.files=my-texts", "run_dir=runs/mini", *TINY["pretrain"], cwd=tmp_path)
    assert (tmp_path / "runs" / "mini" / "model" / "model.safetensors").is_file()
    assert str(python.parents[1]) not in (tmp_path / "runs" / "mini" / "config.yaml").read_text(
        encoding="utf-8"
    )
