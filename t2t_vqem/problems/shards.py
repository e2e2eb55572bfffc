"""Data at rest: TFRecord shards, and the manifest that names and vouches for every file.

A manifest lists the files of a problem with their sizes and SHA-256 sums, and per split the number of
examples and a histogram of their lengths. TFRecord's own checksums speak up in the middle of a training run
only; the manifest's are checked before it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from t2t_vqem.errors import UserError

MANIFEST = "manifest.json"


def shard_name(split: str, index: int, count: int) -> str:
    return f"{split}-{index:05d}-of-{count:05d}.tfrecord"


def split_paths(folder: str, manifest: dict[str, Any], split: str) -> list[str]:
    """Returns the paths of a split's shards in order."""
    return [os.path.join(folder, shard) for shard in manifest["splits"][split]["shards"]]


def os_error(path: str, error: OSError) -> UserError:
    """Returns what to tell the user when `path` cannot be written or read."""
    reason = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the disk quota is used up",
        errno.EROFS: "the file system is read-only",
        errno.EACCES: "permission denied",
    }.get(error.errno, error.strerror or str(error))
    return UserError(f"{path}: {reason}")


def write_records(path: str, records: Iterable[bytes]) -> dict[str, Any]:
    """Writes a TFRecord file under a temporary name, then renames it; returns its manifest entry.

    Raises:
      UserError: the disk is full or the folder cannot be written to.
    """
    import tensorflow as tf

    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with tf.io.TFRecordWriter(temporary) as writer:
            for record in records:
                writer.write(record)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        entry = describe(temporary)
        os.replace(temporary, path)
    except tf.errors.OpError as error:
        reason = "the disk is full" if isinstance(error, tf.errors.ResourceExhaustedError) else error.message
        raise UserError(f"{path} cannot be written: {reason}") from error
    except OSError as error:
        raise os_error(path, error) from error
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)
    return entry


def describe(path: str) -> dict[str, Any]:
    """Returns {"bytes", "sha256"} of a file."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": os.path.getsize(path), "sha256": digest}


def read_manifest(folder: str, name: str) -> dict[str, Any]:
    """Returns a manifest whose files all exist in the size it gives.

    Raises:
      UserError: no manifest, not one of this program's, or a file of another size.
    """
    path = os.path.join(folder, MANIFEST)
    try:
        with open(path, encoding="utf-8") as file:
            manifest = json.load(file)
        files = manifest["files"]
    except FileNotFoundError:
        raise UserError(f"no data of {name} in {folder}; run bin/datagen --problem={name}") from None
    except OSError as error:
        raise os_error(path, error) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged; delete {folder} and run bin/datagen --problem={name}") from error
    for file_name, entry in files.items():
        file_path = os.path.join(folder, file_name)
        size = os.path.getsize(file_path) if os.path.isfile(file_path) else None
        if size != entry["bytes"]:
            found = "is missing" if size is None else f"has {size} bytes instead of {entry['bytes']}"
            raise UserError(f"{file_path} {found}; delete {folder} and run bin/datagen --problem={name}")
    return manifest


def verify(folder: str, manifest: dict[str, Any]) -> None:
    """Reads every file and compares its SHA-256 sum with the manifest's.

    Raises:
      UserError: a file differs or cannot be read; the text names it.
    """

    def check(file_name: str) -> None:
        path = os.path.join(folder, file_name)
        try:
            found = describe(path)["sha256"]
        except OSError as error:
            raise os_error(path, error) from error
        if found != manifest["files"][file_name]["sha256"]:
            raise UserError(
                f"{path} is damaged (its SHA-256 is not the manifest's); "
                f"delete {folder} and run bin/datagen --problem={manifest['problem']}"
            )

    with ThreadPoolExecutor() as threads:  # hashing releases the interpreter lock
        list(threads.map(check, sorted(manifest["files"])))


def fingerprint(manifest: dict[str, Any]) -> str:
    """Returns a hash over the names and checksums of all files."""
    text = json.dumps({name: entry["sha256"] for name, entry in manifest["files"].items()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
