"""Sequence-level distillation (Kim & Rush 2016, arXiv:1606.07947): a problem's sources with a teacher's outputs.

`NAME_distill` is a problem wherever NAME is one: its training targets are a teacher's translations, its other
splits and its vocabulary are NAME's own. `bin/distiller` has the teacher translate; the outputs lie part by
part in the folder `NAME_distill.outputs`, each part with the checksum of the sources it answers.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from t2t_vqem import files, registry
from t2t_vqem.errors import UserError
from t2t_vqem.problems.translation import VOCABULARY, TranslationProblem

SUFFIX = "_distill"
PART_LINES = 2048  # enough to fill the buckets of every length; what a kill can cost

_PLAN, _TEACHER = "plan.json", "teacher.json"


def register(name: str, base: str) -> None:
    """Registers the problem `name` made of the registered problem `base`."""
    registry.problems.register(name)(type(name, (DistilledProblem,), {"name": name, "base_name": base}))


class Outputs:
    """A teacher's translations of a problem's training sources, in parts of `PART_LINES` lines.

    Attributes:
      folder: where the parts lie, beside the plan that says what they are translations of, and by whom.
    """

    def __init__(self, folder: str):
        self.folder = folder
        self._begun: str | None = None  # the digest of the plan that `begin` found or wrote

    @property
    def plan(self) -> dict[str, Any] | None:
        """What the parts are: None where there are none."""
        return self._read(_PLAN, ("problem",))

    @property
    def teacher(self) -> dict[str, Any] | None:
        """What `finish` was told of the teacher; None until all parts are there."""
        return self._read(_TEACHER, ("model", "step", "checkpoint", "decode"))

    def begin(self, plan: dict[str, Any]) -> None:
        """Writes the plan, or checks that the outputs that are there already follow this very one.

        Another plan without outputs, as a process leaves that ended before its first, is replaced.

        Args:
          plan: all that the outputs depend on; values of JSON. Of an object in it the names that both plans have
            count: others are of another version of the package.

        Raises:
          UserError: they are of other sources, another teacher or other settings; the text names the difference.
        """
        with files.alone_in(self.folder):
            there = self.plan
            if there is None or (_first_difference(there, plan) and not self._begun_before()):
                files.write_atomic(os.path.join(self.folder, _PLAN), json.dumps(plan, indent=1) + "\n")
                there = self.plan
            self._begun = self._plan_digest()
        if difference := _first_difference(there, plan):
            raise UserError(
                f"{self.folder} holds outputs of another {difference}; delete it or choose another --data_dir"
            )

    def parts(self, count: int) -> list[range]:
        """Returns the places of each part's lines among `count`."""
        return [range(i, min(i + PART_LINES, count)) for i in range(0, count, PART_LINES)]

    def has(self, part: int) -> bool:
        return os.path.exists(self._path(part))

    def write(self, part: int, sources: Sequence[str], outputs: Sequence[str], truncated: int) -> None:
        """Writes a part whole or not at all.

        Args:
          truncated: sources that were too long for the teacher and were cut.

        Raises:
          UserError: another process has begun with another plan meanwhile.
        """
        if len(sources) != len(outputs):
            raise ValueError(f"{len(outputs)} outputs for {len(sources)} sources")
        content = {"plan": self._begun, "sources": _digest(sources)}
        content |= {"truncated": truncated, "outputs": list(outputs)}
        path = self._path(part)
        for left in glob.glob(os.path.join(glob.escape(self.folder), f".{os.path.basename(path)}.*")):
            os.unlink(left)  # by a process that was killed in the midst of this part
        with files.alone_in(self.folder):
            if self._plan_digest() != self._begun:
                raise UserError(
                    f"{self.folder} was begun anew meanwhile, with another teacher or other settings; end that process "
                    "or leave this one ended"
                )
            files.write_atomic(path, json.dumps(content, ensure_ascii=False) + "\n")

    def read(self, part: int, sources: Sequence[str]) -> tuple[list[str], int]:
        """Returns the outputs of a part and how many sources were cut.

        Raises:
          UserError: it is not there, damaged, or of other sources than these.
        """
        path = self._path(part)
        try:
            with open(path, encoding="utf-8") as file:
                content = json.load(file)
            outputs, digest, truncated = (content[key] for key in ("outputs", "sources", "truncated"))
            plan = content["plan"]
        except FileNotFoundError:
            raise UserError(f"{path} is missing; run bin/distiller again, it goes on where it was") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged; delete it and run bin/distiller again") from error
        if len(outputs) != len(sources) or digest != _digest(sources):
            raise UserError(
                f"{path} holds {len(outputs)} translations of other sources than the {len(sources)} of this part; "
                "delete it and run bin/distiller again"
            )
        if plan != self._plan_digest():
            raise UserError(
                f"{path} is of another teacher or other settings than {os.path.join(self.folder, _PLAN)} says; "
                "delete it and run bin/distiller again"
            )
        return outputs, truncated

    def finish(self, teacher: Mapping[str, Any]) -> None:
        """Says of the teacher what the manifest of the distilled data will carry."""
        text = json.dumps(teacher, indent=1, ensure_ascii=False)
        files.write_atomic(os.path.join(self.folder, _TEACHER), text + "\n")

    def _path(self, part: int) -> str:
        return os.path.join(self.folder, f"part-{part:05d}.json")

    def _begun_before(self) -> bool:
        """Returns whether there is more than a plan."""
        parts = os.path.join(glob.escape(self.folder), "part-*.json")
        return bool(glob.glob(parts)) or self.teacher is not None

    def _plan_digest(self) -> str:
        return _digest([json.dumps(self.plan, sort_keys=True)])

    def _read(self, name: str, known: tuple[str, ...]) -> dict[str, Any] | None:
        """Returns the JSON object in a file, which has at least the keys `known`; None where there is none."""
        path = os.path.join(self.folder, name)
        try:
            with open(path, encoding="utf-8") as file:
                content = json.load(file)
            if not set(known) <= content.keys():
                raise ValueError(f"not all of {known} are in it")
            return content
        except FileNotFoundError:
            return None
        except (OSError, ValueError, AttributeError) as error:  # the last where it is no object
            raise UserError(f"{path} is damaged; delete {self.folder} and run bin/distiller again") from error


class DistilledProblem(TranslationProblem):
    """`base_name`'s training sources with a teacher's translations; all else is the base problem's."""

    base_name: str

    def __init__(self):
        self.base = registry.problems.get(self.base_name)()
        self.base.require_content("text", "distillation")
        super().__init__(self.base.vocab_size)
        self.shard_size, self.main_metric = self.base.shard_size, self.base.main_metric
        self.splits, self.dev_split = self.base.splits, self.base.dev_split
        self._data_dir: str | None = None

    def settings(self) -> dict[str, Any]:
        return self.base.settings()

    def outputs(self, data_dir: str) -> Outputs:
        """Returns the teacher's translations below `data_dir`, finished or not."""
        return Outputs(self.folder(data_dir) + ".outputs")

    def generate(
        self, data_dir: str, source_dir: str | None = None, workers: int | None = None
    ) -> dict[str, Any]:
        """Makes shards of the sources and the teacher's outputs, once `bin/distiller` has made all of these."""
        self._data_dir = data_dir
        manifest_there = os.path.exists(self.folder(data_dir))
        teacher = self.outputs(data_dir).teacher
        if teacher is None and not manifest_there:
            raise UserError(
                f"the data of {self.name} are a teacher's translations, and there are none in {data_dir}: run "
                f"bin/distiller --model_dir=TEACHER --data_dir={data_dir}, with a run trained on {self.base_name}"
            )
        manifest = super().generate(data_dir, source_dir, workers)
        if teacher is not None:
            self.require_teacher(data_dir, teacher)
        return manifest

    def require_teacher(self, data_dir: str, teacher: Mapping[str, Any]) -> None:
        """Raises a UserError if the data are there already and made of another teacher's translations."""
        if not os.path.exists(self.folder(data_dir)):
            return
        there = self.manifest(data_dir)["teacher"]
        for key, value in teacher.items():
            if difference := _difference(there.get(key), value):
                raise UserError(
                    f"{self.folder(data_dir)} was made by another teacher, of another {key} ({difference}); "
                    "delete it or choose another --data_dir"
                )

    def provenance(self) -> dict[str, Any]:
        return {"teacher": self.outputs(self._data_dir).teacher}

    def samples(self, split: str) -> Iterator[tuple[str, str]]:
        sources, targets = self.base.texts(split, self._data_dir)
        if split != self.train_split:
            yield from zip(sources, targets, strict=True)
            return
        outputs = self.outputs(self._data_dir)
        for part, places in enumerate(outputs.parts(len(sources))):
            own = sources[places.start : places.stop]
            yield from zip(own, outputs.read(part, own)[0], strict=True)

    def score(self, hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, float | int | str]:
        return self.base.score(hypotheses, references)

    def _make_vocabulary(self, folder: str, lines: Sequence[str]) -> bytes:
        with open(os.path.join(self.base.folder(self._data_dir), VOCABULARY), "rb") as file:
            return file.read()  # the teacher's own, so that it can rerank what is trained on this


def _digest(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _first_difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str | None:
    """Returns the name of the first value in which two plans differ, and how; None where they do not."""
    for key in {**here, **there}:
        if difference := _difference(there.get(key), here.get(key)):
            return f"{key} ({difference})"
    return None


def _difference(there: Any, here: Any) -> str | None:
    """Returns how two values of JSON differ, objects in the names that both have; None where they do not.

    One that is not there is as one that is empty.
    """
    if not (isinstance(there, Mapping) and isinstance(here, Mapping)):
        return None if there == here or not (there or here) else f"{there!r}, not {here!r}"
    other = [
        f"{key}: {there[key]}, not {here[key]}" for key in there if key in here and there[key] != here[key]
    ]
    return "; ".join(other) or None
