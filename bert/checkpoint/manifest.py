"""Whether a folder is whole: `manifest.json` holds the size and SHA-256 of each file."""

import hashlib
import json
from pathlib import Path

from bert.files import sync

MANIFEST = "manifest.json"


def write(folder: Path) -> None:
    """List every file of `folder`, and make sure that all files are on the disk, the manifest last."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    entries = {
        str(path.relative_to(folder)): {"size": path.stat().st_size, "sha256": _sha256(path)}
        for path in files
    }
    (folder / MANIFEST).write_text(json.dumps(entries, indent=1), encoding="utf-8")
    for path in [*files, *{path.parent for path in files} - {folder}, folder / MANIFEST, folder]:
        sync(path)


def damage(folder: Path) -> str | None:
    """What is wrong with a folder; None if every file is there and unchanged."""
    try:
        entries = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        listed = [(name, entry["size"], entry["sha256"]) for name, entry in entries.items()]
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (OSError, ValueError) as error:
        return f"{MANIFEST} cannot be read ({error})"
    except (AttributeError, KeyError, TypeError):
        return f"{MANIFEST} is not a list of files with size and sha256"
    for name, size, checksum in listed:
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
        if _sha256(path) != checksum:
            return f"{name} has changed since it was written (its checksum differs)"
    return None


def digest(folder: Path) -> str:
    """SHA-256 of the manifest, and so of all that it lists."""
    return _sha256(folder / MANIFEST)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
