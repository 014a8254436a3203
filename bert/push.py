"""`bert push RUN NAME`: upload a checkpoint to the Hugging Face Hub, in one commit.

What is uploaded is what `dry_run` lists: the files of the checkpoint, without the optimizer state and the state of the
training unless they are asked for. Weights of an older checkpoint in the repository are removed in the same commit, so
that nobody reads a mixture of both.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bert import checkpoint
from bert.card import CARD
from bert.checkpoint.run import STATE, is_for_training_only
from bert.errors import RunFailed, UserError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

MAIN = "main"


@dataclass(frozen=True)
class Upload:
    """A checkpoint and what of it goes to a repository. `str(upload)` is for people to read."""

    folder: Path
    name: str
    files: tuple[str, ...]
    """relative to the folder"""

    @property
    def card(self) -> str | None:
        """The model card; None if the folder has none."""
        path = self.folder / CARD
        return path.read_text(encoding="utf-8") if CARD in self.files else None

    def __str__(self) -> str:
        sizes = {file: (self.folder / file).stat().st_size for file in self.files}
        width = max(len(file) for file in sizes)
        counted = f"{len(sizes)} files" if len(sizes) > 1 else "1 file"
        lines = [f"{self.folder} → {self.name}: {counted}, {_size(sum(sizes.values()))}"]
        lines += [f"  {file:{width}}  {_size(size):>9}" for file, size in sizes.items()]
        lines += [f"the card, {CARD}:", "", self.card] if self.card else [f"there is no card ({CARD})"]
        return "\n".join(lines)


def push(
    path: str | os.PathLike[str],
    name: str,
    private: bool = False,
    revision: str = MAIN,
    commit_message: str | None = None,
    optimizer: bool = False,
) -> str:
    """Upload a checkpoint, or that of a run, to the repository `name` (OWNER/NAME, or NAME of your own).

    Returns the URL of the commit. The repository is made if there is none, `private` if asked; so is the branch
    `revision`. `optimizer` uploads the optimizer state and the state of the training too, to continue the run from.
    UserError if you are not logged in or may not write there; RunFailed if the Hub cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token

    upload = plan(path, name, optimizer)
    api = HfApi()
    if get_token() is None:
        raise UserError(f"you are not logged in to {api.endpoint}; type hf auth login, or set HF_TOKEN")
    with _explained(api, name):
        repository = api.create_repo(name, private=private or None, exist_ok=True).repo_id
        if private and not api.repo_info(repository).private:
            raise UserError(
                f"private: {repository} is there and public; change this in its settings, or name another"
            )
        if revision != MAIN:
            api.create_branch(repository, branch=revision, exist_ok=True)
        additions = [CommitOperationAdd(file, str(upload.folder / file)) for file in upload.files]
        removals = [
            CommitOperationDelete(file) for file in _outdated(api, repository, revision, upload.files)
        ]
        message = commit_message or f"Upload {_described(path, upload.folder)}"
        commit = api.create_commit(
            repository, [*removals, *additions], commit_message=message, revision=revision
        )
    return commit.commit_url


def plan(path: str | os.PathLike[str], name: str, optimizer: bool = False) -> Upload:
    """What `push` would upload. Needs no network."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UserError(f"{name!r} cannot be the name of a repository: {_line(error)}") from None
    folder = checkpoint.resolve(path)
    if optimizer and not (folder / STATE).is_file():
        raise UserError(
            f"optimizer: {folder} has no optimizer state; name a checkpoint of the run, as {path}/checkpoints/step-…"
        )
    found = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    return Upload(folder, name, tuple(file for file in found if _belongs(file, optimizer)))


def _belongs(file: str, optimizer: bool) -> bool:
    hidden = any(part.startswith((".", "__")) for part in Path(file).parts)
    return not hidden and (optimizer or not is_for_training_only(file))


def _outdated(api: "HfApi", repository: str, revision: str, files: Sequence[str]) -> list[str]:
    """Files in the repository that a checkpoint replaces and this one does not have."""
    there = [sibling.rfilename for sibling in api.repo_info(repository, revision=revision).siblings or ()]

    def owned(file: str) -> bool:
        return any(fnmatch(Path(file).parts[0], pattern) for pattern in checkpoint.OWNED)

    return [file for file in there if file not in files and (owned(file) or is_for_training_only(file))]


def _described(path: str | os.PathLike[str], folder: Path) -> str:
    """A checkpoint in a few words: `mini`, or `mini, step-1000`."""
    run = Path(path).resolve()
    return run.name if folder.name in ("model", run.name) else f"{run.name}, {folder.name}"


@contextmanager
def _explained(api: "HfApi", name: str) -> Iterator[None]:
    """Errors of the Hub and of the network as one line."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

    try:
        yield
    except OfflineModeIsEnabled:
        raise UserError("HF_HUB_OFFLINE is set, so nothing can be uploaded; unset it") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        said = _line(error.server_message or error)
        if status == 401:
            raise UserError(
                f"{api.endpoint} does not accept your token ({said}); type hf auth login"
            ) from error
        if status in (403, 404):
            raise UserError(
                f"you may not write to {name} ({said}); take a token with write access, or a name of your own"
            ) from error
        raise RunFailed(f"{api.endpoint} refused the upload to {name} ({status}: {said})") from error
    except HTTPError as error:
        raise RunFailed(
            f"{api.endpoint} cannot be reached ({_line(error)}); nothing was committed"
        ) from error
    except (RuntimeError, ValueError, OSError) as error:
        reason = _line(error.__cause__ or error)
        raise RunFailed(f"the upload to {name} failed ({reason}); nothing was committed") from error


def _line(message: Any) -> str:
    """The first line of a message."""
    return next((line.strip() for line in str(message).splitlines() if line.strip()), type(message).__name__)


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
