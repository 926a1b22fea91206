"""The run folder: config, metrics, checkpoints and result of one experiment; everything written atomically."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import tomli_w
from torch import Tensor

from mutualign.data.images import ImageShape
from mutualign.errors import MutualignError
from mutualign.plain_files import LARGEST_JSON, LARGEST_TOML, parse_json, parse_toml, read_text
from mutualign.tensor_files import pack, unpack

FORMAT = 1  # of the run folder, read for ever; raised when an older mutualign could misread a newer folder

CONFIG = {"task": str, "data": str, "seed": int, "command": str, "recipe": dict, "images": dict} | {
    "class_names": list, "own_images": dict, "notes": list,
}  # fmt: skip

Record = dict[str, Any]


class RunFolder:
    """One experiment on disk.

    config.toml          what was asked for: task, seed, recipe
    metrics.jsonl        a line an epoch
    result.json          written at the end; its presence says that the run is complete
    checkpoints/last     all that a resume needs; last-1, last-2, ...: those before it
    checkpoints/stage-N-last, stage-N-selected    classifier weights at the end of a stage and at its chosen epoch
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, config: Mapping[str, Any]) -> RunFolder:
        """A new run folder. Raises MutualignError if there is one already or the place cannot be written."""
        cls.refuse_existing(path)
        run = cls(path)
        try:
            (path / "checkpoints").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MutualignError(
                f"cannot make the run folder {path}: {error.strerror}; choose another with --out"
            ) from error
        write_atomically(path / "config.toml", tomli_w.dumps({"format": FORMAT, **config}).encode())
        return run

    @staticmethod
    def refuse_existing(path: Path) -> None:
        """Raise MutualignError, which says what to do, if the path holds a run or anything else, or cannot be made."""
        if (path / "config.toml").exists():
            raise MutualignError(
                f"{path} holds a run already\n"
                f"  do       `mutualign run --resume {path}` to go on with it, `mutualign show {path}` to look at it,\n"
                "           or choose another --out or --seed"
            )
        if any(found.is_file() for found in path.rglob("*")):
            raise MutualignError(
                f"{path} holds files that are not a run's\n  do       choose another --out, or clear it"
            )
        place = next(place for place in (path, *path.absolute().parents) if place.exists())
        if not place.is_dir() or not os.access(place, os.W_OK):
            raise MutualignError(f"cannot make the run folder {path}: {place} cannot be written; choose another --out")

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """The run folder at a path. Raises MutualignError where there is none, or one of no format or a newer one."""
        run = cls(path)
        if not (path / "config.toml").is_file():
            raise MutualignError(f"{path} is not a run folder: it has no config.toml")
        found = run.config().get("format")
        if type(found) is not int or found < 1:
            told = "no format" if found is None else f"the format {found!r}"
            raise MutualignError(
                f"{path} is not a run folder: config.toml has {told}, where a run's is a number from 1 on\n"
                "  do       restore config.toml if it was changed, or name another folder"
            )
        if found > FORMAT:
            raise MutualignError(
                f"{path} has run-folder format {found}, this mutualign reads formats up to {FORMAT}\n"
                "  do       use a newer mutualign: pip install --upgrade mutualign"
            )
        return run

    def config(self) -> dict[str, Any]:
        """What was asked for. What it holds of `CONFIG` is of the type that is told there."""
        path = self.path / "config.toml"
        try:
            config = parse_toml(read_text(path, LARGEST_TOML))
            for key, wanted in CONFIG.items():
                if key in config and type(config[key]) is not wanted:
                    raise ValueError(f"{key}: expected {wanted.__name__}, got {type(config[key]).__name__}")
            for key in ("class_names", "notes"):
                if not all(isinstance(one, str) for one in config.get(key, ())):
                    raise ValueError(f"{key}: expected texts")
            if "images" in config:
                ImageShape(**config["images"]).checked()
        except (OSError, ValueError, TypeError) as error:
            raise MutualignError(f"{path}: cannot be read: {error}") from error
        return config

    # Metrics ----------------------------------------------------------------------------------------------------------

    def append_metrics(self, record: Record) -> None:
        path = self.path / "metrics.jsonl"
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise cannot_write(path, error) from error

    def metrics(self) -> list[Record]:
        """The record of each epoch so far, oldest first. A last line that a kill cut off is left out.

        Raises MutualignError that names the file, and the line, for anything else that is not a record.
        """
        path = self.path / "metrics.jsonl"
        try:
            *lines, last = read_text(path, LARGEST_JSON).split("\n") if path.exists() else [""]
        except (OSError, ValueError) as error:
            raise MutualignError(f"{path}: cannot be read: {error}") from error
        records = [_record(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1)]
        with suppress(MutualignError):
            records.append(_record(last, ""))
        return records

    def keep_metrics(self, keep: Callable[[Record], bool]) -> None:
        """Drop the records of epochs that a resume will train again."""
        lines = [json.dumps(record) + "\n" for record in self.metrics() if keep(record)]
        write_atomically(self.path / "metrics.jsonl", "".join(lines).encode())

    # Results ----------------------------------------------------------------------------------------------------------

    def write_result(self, result: Mapping[str, Any]) -> None:
        write_atomically(self.path / "result.json", (json.dumps(result, indent=2) + "\n").encode())

    def result(self) -> dict[str, Any] | None:
        """The result, or None while the run is not complete."""
        path = self.path / "result.json"
        try:
            return _record(read_text(path, LARGEST_JSON), f"{path}") if path.exists() else None
        except (OSError, ValueError) as error:
            raise MutualignError(f"{path}: cannot be read: {error}") from error

    # Checkpoints ------------------------------------------------------------------------------------------------------

    def save_tensors(self, name: str, tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> None:
        """Write `checkpoints/NAME.safetensors`; `info`, plain data, goes into its header as JSON."""
        write_atomically(self._checkpoint(name), pack(tensors, {"info": json.dumps(info)}))

    def has_checkpoint(self, name: str) -> bool:
        return self._checkpoint(name).is_file()

    def load_tensors(self, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and info of a checkpoint. Raises MutualignError naming the file if it is not as it was written."""
        path = self._checkpoint(name)
        try:
            tensors, metadata = unpack(path)
            return tensors, _record(metadata["info"], "its info")
        except (OSError, ValueError, KeyError, MutualignError) as error:
            raise MutualignError(f"{path}: not a readable checkpoint: {error}") from error

    def save_resumable(self, tensors: Mapping[str, Tensor], info: Mapping[str, Any], keep: int = 2) -> None:
        """Write `last`, and keep the `keep - 1` checkpoints before it as last-1, last-2, ...

        At any moment one of them is whole: the new one is on disk before the old ones move.
        """
        names = ["last", *(f"last-{age}" for age in range(1, keep))]

        def move_older() -> None:
            for younger, older in zip(names[-2::-1], names[:0:-1], strict=True):
                if self.has_checkpoint(younger):
                    self._checkpoint(younger).replace(self._checkpoint(older))

        write_atomically(self._checkpoint("last"), pack(tensors, {"info": json.dumps(info)}), move_older)
        for path in self._resumable():
            if path.stem not in names:
                path.unlink()

    def load_resumable(self) -> tuple[dict[str, Tensor], dict[str, Any], list[str]] | None:
        """The newest checkpoint that is whole, and what is wrong with newer ones; None before the first is written.

        Those are set aside as NAME.damaged. Raises MutualignError if there are some and none of them is whole.
        """
        faults: list[str] = []
        for path in self._resumable():
            try:
                tensors, info = self.load_tensors(path.stem)
            except MutualignError as error:
                faults.append(str(error))
                continue
            for damaged in self._resumable()[: len(faults)]:
                damaged.replace(damaged.with_suffix(".damaged"))
            return tensors, info, faults
        if faults:
            shown = "\n".join(f"  damaged  {fault}" for fault in faults)
            raise MutualignError(
                f"{self.path}: no checkpoint is left to go on from\n{shown}\n"
                "  do       begin a new run with another --out"
            )
        return None

    def _resumable(self) -> list[Path]:
        """Checkpoints that a resume can begin at, the newest first."""
        found = [path for path in (self.path / "checkpoints").glob("last*.safetensors") if _age(path) is not None]
        return sorted(found, key=lambda path: _age(path) or 0)

    def _checkpoint(self, name: str) -> Path:
        return self.path / "checkpoints" / f"{name}.safetensors"


def _record(text: str, where: str) -> Record:
    """A table in JSON. Raises MutualignError that begins with `where` for anything else."""
    try:
        record = parse_json(text)
    except ValueError as error:
        raise MutualignError(f"{where}: not JSON: {error}") from error
    if not isinstance(record, dict):
        raise MutualignError(f"{where}: expected a table, got {text[:80]}")
    return record


def _age(path: Path) -> int | None:
    """0 of last, 1 of last-1, ...; None of other files."""
    _, dash, age = path.stem.partition("-")
    return 0 if path.stem == "last" else int(age) if dash and path.stem == f"last-{age}" and age.isdecimal() else None


def write_atomically(path: Path, content: bytes, before_rename: Callable[[], None] = lambda: None) -> None:
    """Write beside, flush to disk, rename, flush the folder: after a crash there is the old file or the new one.

    Raises MutualignError if the disk is full or the place cannot be written; the old file is still there then.
    """
    beside = path.with_name(path.name + ".part")
    try:
        try:
            with beside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            before_rename()
            beside.replace(path)
        except OSError:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> MutualignError:
    """What to tell of a failed write."""
    do = "free space there" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "make the place writable"
    return MutualignError(
        f"{path}: cannot be written: {error.strerror}; nothing that was there is lost\n"
        f"  do       {do}, or choose another place"
    )
