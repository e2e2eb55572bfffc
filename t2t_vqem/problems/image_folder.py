"""A user's own pictures, all of one size, in a folder; subfolders are classes."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from t2t_vqem import picture_file, registry
from t2t_vqem.errors import UserError, require
from t2t_vqem.picture_file import BadPicture, Wanted
from t2t_vqem.problems.image import ImageProblem, Sample

_LARGEST = 128  # pixels a side
_READ_AHEAD = 256  # pictures in memory
_SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "test", "testing"}


class _Found(NamedTuple):
    """What a folder holds: paths relative to it, in the order of their hashes, by split; and the classes."""

    root: str
    paths: dict[str, list[str]]
    classes: tuple[str, ...]
    description: dict[str, Any]


@registry.problems.register("image_folder")
class ImageFolder(ImageProblem):
    """The pictures (PNG, JPEG, WebP, BMP) in the folder that gin names, or in --source_dir:

        image_folder.folder = "pictures"

    A subfolder is a class, with all that lies below it; without subfolders there is one class. Splits are made by a
    hash of each picture's path below the folder, so that a picture stays in its split when others come or go. The
    first picture by name decides the size, and whether all are RGB or grey; at most 128 x 128. Files whose names
    begin with a dot are no concern of it. A relative folder starts from --source_dir, if that is given.
    """

    name = "image_folder"

    def __init__(
        self,
        folder: str | None = None,
        size: tuple[int, int] | None = None,
        resize: bool = False,
        channels: int | None = None,
        skip_bad: bool = False,
        val_share: float = 0.05,
        test_share: float = 0.05,
    ):
        """Checks the parameters; reads nothing yet.

        Args:
          size: (height, width) in pixels; None takes the first picture's.
          resize: crops the centre of each picture and brings it to `size`, instead of refusing another size.
          channels: 3 makes every picture RGB, 1 makes it grey; None takes them as they are, and all must be alike.
          skip_bad: leaves out, and counts, files that are no such pictures, instead of refusing the folder.
          val_share, test_share: of the pictures, to validate and to test on.

        Raises:
          UserError: naming a parameter that is out of its range.
        """
        sides = size is None or (isinstance(size, list | tuple) and len(size) == 2)
        whole = sides and all(type(side) is int and 1 <= side <= _LARGEST for side in size or ())
        require(whole, "image_folder.size", size, f"(height, width), {_LARGEST} at most")
        known = channels is None or (type(channels) is int and channels in (1, 3))
        require(known, "image_folder.channels", channels, "3 (RGB) or 1 (grey)")
        require(folder is None or isinstance(folder, str), "image_folder.folder", folder, "a path in quotes")
        for name, value in (("resize", resize), ("skip_bad", skip_bad)):
            require(type(value) is bool, f"image_folder.{name}", value, "True or False")
        require(
            not resize or size is not None,
            "image_folder.resize",
            resize,
            "False unless image_folder.size is bound",
        )
        for name, share in (("val_share", val_share), ("test_share", test_share)):
            require(
                isinstance(share, float) and 0 < share < 0.5,
                f"image_folder.{name}",
                share,
                "above 0 and below 0.5",
            )
        self._folder, self._resize, self._skip_bad = folder, resize, skip_bad
        self._size, self._channels = tuple(size) if size else None, channels
        self._shares = (val_share, test_share)
        self._found: _Found | None = None

    def settings(self) -> dict[str, Any]:
        bound = {"size": list(self._size) if self._size else None, "resize": self._resize}
        return super().settings() | bound | {"channels": self._channels, "shares": list(self._shares)}

    def sources(self) -> list[dict[str, Any]]:
        return [self._look().description]

    def samples(self, split: str) -> Iterator[Sample | None]:
        found = self._look()
        paths = iter(found.paths[split])
        with ThreadPoolExecutor() as threads:  # decoding releases the interpreter lock
            while ahead := list(itertools.islice(paths, _READ_AHEAD)):
                yield from threads.map(lambda path: self._read(found, path), ahead)

    def _read(self, found: _Found, path: str) -> Sample | None:
        height, width, channels = self.image_shape
        wanted = Wanted((height, width), channels, self._resize, convert=self._channels is not None)
        try:
            name, _, rest = path.partition("/")
            if found.classes and not rest:
                raise BadPicture("lies beside the folders of the classes and belongs to none")
            label = found.classes.index(name) if found.classes else 0
            return picture_file.read(os.path.join(found.root, path), wanted), label
        except BadPicture as bad:
            if self._skip_bad:
                return None
            raise _refusal(found.root, path, bad) from None

    def _look(self) -> _Found:
        """Lists the folder, once, and learns the size of the pictures and the classes from it."""
        parts = [part for part in (self.source_dir, self._folder) if part]
        if not parts:
            raise UserError('image_folder needs the binding image_folder.folder = "FOLDER", or --source_dir')
        root = os.path.join(*parts)
        if self._found is None or self._found.root != root:
            listed = _listed(root)
            shape = self._first_shape(root, sorted(listed))
            found = _split(root, list(listed), self._shares)
            digest = hashlib.sha256(repr(sorted(listed.items())).encode(errors="surrogateescape"))
            name = os.path.basename(os.path.abspath(root))
            found.description.update(name=name, files=len(listed), sha256=digest.hexdigest())
            self.num_classes, self.label_names = max(1, len(found.classes)), found.classes
            self.image_shape = shape
            self._found = found
        return self._found

    def _first_shape(self, root: str, paths: list[str]) -> tuple[int, int, int]:
        """Returns the shape that all pictures have to have."""
        if self._size and self._channels:
            return (*self._size, self._channels)
        for path in paths:
            try:
                height, width, channels = picture_file.shape(os.path.join(root, path), self._channels)
            except BadPicture as bad:
                if self._skip_bad:
                    continue
                raise _refusal(root, path, bad) from None
            if not self._size and max(height, width) > _LARGEST:
                raise UserError(
                    f"{os.path.join(root, path)} is {height} x {width} pixels; {_LARGEST} x {_LARGEST} is the most: "
                    "image_folder.size = (HEIGHT, WIDTH) and image_folder.resize = True make all pictures smaller"
                )
            return (*(self._size or (height, width)), channels)
        raise UserError(f"{root} holds no picture")


def _listed(root: str) -> dict[str, int]:
    """Returns the size in bytes of every file below a folder, by its relative path with slashes."""
    listed = {}
    try:
        if not os.path.isdir(root):
            raise UserError(f"{root} is no folder; is image_folder.folder, or --source_dir, right?")
        for folder, inner, names in os.walk(root, followlinks=True):
            inner[:] = [name for name in inner if not name.startswith(".")]
            for name in names:
                if not name.startswith("."):
                    path = os.path.join(folder, name)
                    listed[os.path.relpath(path, root).replace(os.sep, "/")] = os.path.getsize(path)
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from error
    return listed


def _split(root: str, paths: list[str], shares: tuple[float, float]) -> _Found:
    """Deals paths out by their hashes, which also mix the classes."""
    classes = tuple(sorted({path.partition("/")[0] for path in paths if "/" in path}))
    if classes and _SPLIT_NAMES.issuperset(name.lower() for name in classes):
        raise UserError(
            f"{root} has the subfolders {', '.join(classes)}, but subfolders are classes and image_folder makes the "
            "splits itself; name one of them, or move the classes together"
        )
    val, test = shares
    dealt: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    digests = {path: hashlib.sha256(path.encode(errors="surrogateescape")).digest() for path in paths}
    for path in sorted(paths, key=digests.__getitem__):
        place = int.from_bytes(digests[path][:8]) / 2**64
        dealt["val" if place < val else "test" if place < val + test else "train"].append(path)
    for split, dealt_out in dealt.items():
        if not dealt_out:
            raise UserError(
                f"{root} holds {len(paths)} files, none of which falls to the split {split}; add pictures, or give "
                "image_folder.val_share and image_folder.test_share other values"
            )
    return _Found(root, dealt, classes, {})


def _refusal(root: str, path: str, bad: BadPicture) -> UserError:
    remedies = ["image_folder.skip_bad = True leaves such files out"]
    if bad.channels is not None:
        remedies.insert(0, f"image_folder.channels = {bad.channels} converts all pictures")
    return UserError(f"{os.path.join(root, path)} {bad}; {', '.join(remedies)}")
