"""The run that fills a folder with shards: parallel, resumable, and never visible half-done.

Everything is written to `NAME.partial`, shard by shard under temporary names, and the folder is renamed once
it is complete. A run that was killed goes on behind its finished shards and ends in the same bytes, whatever
the number of workers.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple

from absl import logging

from t2t_vqem import files
from t2t_vqem.errors import UserError
from t2t_vqem.problems import shards
from t2t_vqem.progress import Progress

_PLAN = "plan.json"
_DONE = ".done"
_SPAWN_FROM = 100_000  # examples; fewer are written sooner than processes have started


class Shard(NamedTuple):
    """One shard to write: its file name and its examples, as the encoder takes them."""

    name: str
    examples: list[Any]


Encode = Callable[[str, str, list[Any]], dict[str, Any]]
"""(folder, shard name, examples) -> the shard's entry; writes the file; picklable."""


@contextlib.contextmanager
def exclusive(folder: str, *, wait: bool = True) -> Iterator[None]:
    """Makes `folder` and keeps every other writer out of it until the end of the block.

    Raises:
      UserError: the folder cannot be made; or another process writes it, unless this one is to `wait`.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        # a worker imports the script that started it; waiting here for that script's lock would never end
        raise RuntimeError('generate data below `if __name__ == "__main__":` in a script')
    try:
        os.makedirs(folder, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise shards.os_error(folder, error) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if not wait:
                raise UserError(f"another process writes {folder}; let it end first") from error
            logging.info("another datagen writes %s; waiting for it", folder)
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:  # not every network file system locks folders
            logging.warning("%s cannot be locked (%s): run one datagen at a time", folder, error.strerror)
        yield
    finally:
        os.close(handle)


def resume(folder: str, plan: dict[str, Any]) -> None:
    """Keeps what an interrupted run left in `folder` if its plan was the same; else clears the folder."""
    path = os.path.join(folder, _PLAN)
    text = json.dumps(plan, sort_keys=True)
    try:
        with open(path, encoding="utf-8") as file:
            same = file.read() == text
    except OSError:
        same = False
    for name in os.listdir(folder):
        if not same or name.endswith(".tmp") or name.startswith("."):
            os.remove(os.path.join(folder, name))
    if not same:
        files.write_atomic(path, text)


def write_shards(
    folder: str,
    todo: Iterable[Shard],
    encode: Encode,
    *,
    total: int,
    workers: int,
    command: str = "datagen",
) -> dict[str, dict[str, Any]]:
    """Encodes and writes the shards that are not finished yet; returns every shard's entry by name.

    Args:
      todo: all shards in order; consumed as workers fall free, so that few are in memory at a time.
      total: examples in all of them, for the progress.
      command: what the progress calls the work.

    Raises:
      UserError: a shard cannot be written, or a worker was killed.
    """
    entries: dict[str, dict[str, Any]] = {}
    progress = Progress(command, total, "examples")

    def finish(name: str, entry: dict[str, Any]) -> None:
        files.write_atomic(os.path.join(folder, name + _DONE), json.dumps(entry, sort_keys=True))
        entries[name] = entry
        progress.made(entry["examples"])

    def unfinished() -> Iterator[Shard]:
        for shard in todo:
            entry = _finished(folder, shard.name)
            if entry is None:
                yield shard
            else:
                entries[shard.name] = entry
                progress.kept(entry["examples"])

    if workers > 1 and total >= _SPAWN_FROM:
        _in_processes(folder, unfinished(), encode, workers, finish)
    else:
        for shard in unfinished():
            finish(shard.name, encode(folder, *shard))
    progress.report()
    return entries


def publish(folder: str, final: str, manifest: dict[str, Any]) -> None:
    """Writes the manifest, clears what only the run needed, and gives the folder its final name."""
    files.write_atomic(os.path.join(folder, shards.MANIFEST), json.dumps(manifest, indent=1) + "\n")
    for name in os.listdir(folder):
        if name == _PLAN or name.endswith(_DONE):
            os.remove(os.path.join(folder, name))
    try:
        os.rename(folder, final)
    except OSError as error:
        raise UserError(
            f"{final} holds something else than data of {manifest['problem']}; move it"
        ) from error


def discard(folder: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _finished(folder: str, name: str) -> dict[str, Any] | None:
    """Returns the entry of a shard that an earlier run finished, or None."""
    try:
        with open(os.path.join(folder, name + _DONE), encoding="utf-8") as file:
            entry = json.load(file)
        found = shards.describe(os.path.join(folder, name))
    except (OSError, ValueError):
        return None
    return entry if all(entry[key] == value for key, value in found.items()) else None


def _in_processes(
    folder: str,
    todo: Iterator[Shard],
    encode: Encode,
    workers: int,
    finish: Callable[[str, dict[str, Any]], None],
) -> None:
    context = multiprocessing.get_context("spawn")  # TensorFlow's threads do not survive a fork
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker) as pool:
        running: dict[Future, str] = {}
        try:
            for shard in todo:
                running[pool.submit(encode, folder, *shard)] = shard.name
                if len(running) > workers:  # one waits, so that no worker does
                    _collect(running, finish, FIRST_COMPLETED)
            _collect(running, finish, "ALL_COMPLETED")
        except BrokenProcessPool as error:
            raise UserError(
                "a datagen worker was killed, for want of memory perhaps: run the command again, with fewer "
                "--workers, and it goes on behind the finished shards"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _collect(running: dict[Future, str], finish: Callable[[str, dict[str, Any]], None], until: str) -> None:
    for future in wait(running, return_when=until).done:
        finish(running.pop(future), future.result())


def _begin_worker() -> None:
    """Lets a worker end with its parent, even a killed one, leave Ctrl-C to it, and begin without chatter."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    stderr = os.dup(2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what TensorFlow says of itself when it is imported
    try:
        import tensorflow as tf

        tf.config.list_physical_devices()
    finally:
        os.dup2(stderr, 2)
