"""The run folder: config, metrics, checkpoints and result of one experiment; everything written atomically."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tomli_w
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mutualign.errors import MutualignError

FORMAT = 1  # of the run folder; raised when an older mutualign could misread a newer folder

Record = dict[str, Any]


class RunFolder:
    """One experiment on disk.

    config.toml          what was asked for: task, seed, recipe
    metrics.jsonl        a line an epoch
    result.json          written at the end; its presence says that the run is complete
    checkpoints/last     all that a resume needs
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
            write_atomically(path / "config.toml", tomli_w.dumps({"format": FORMAT, **config}).encode())
        except OSError as error:
            raise MutualignError(
                f"cannot make the run folder {path}: {error.strerror}; choose another with --out"
            ) from error
        return run

    @staticmethod
    def refuse_existing(path: Path) -> None:
        """Raise MutualignError, which says what to do, if the path holds a run, or anything else."""
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

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """The run folder at a path. Raises MutualignError where there is none, or one of a newer format."""
        run = cls(path)
        if not (path / "config.toml").is_file():
            raise MutualignError(f"{path} is not a run folder: it has no config.toml")
        if (found := run.config().get("format")) != FORMAT:
            raise MutualignError(
                f"{path} has run-folder format {found}, this mutualign reads {FORMAT}: use a newer mutualign"
            )
        return run

    def config(self) -> dict[str, Any]:
        path = self.path / "config.toml"
        try:
            return tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise MutualignError(f"{path}: cannot be read: {error}") from error

    # Metrics ----------------------------------------------------------------------------------------------------------

    def append_metrics(self, record: Record) -> None:
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def metrics(self) -> list[Record]:
        """The record of each epoch so far, oldest first. A line that a kill cut off is left out."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        records = []
        for line in lines:
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                break
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
            return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        except json.JSONDecodeError as error:
            raise MutualignError(f"{path}: not JSON: {error}") from error

    # Checkpoints ------------------------------------------------------------------------------------------------------

    def save_tensors(self, name: str, tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> None:
        """Write `checkpoints/NAME.safetensors`; `info`, plain data, goes into its header as JSON."""
        dense = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
        write_atomically(self._checkpoint(name), save(dense, metadata={"info": json.dumps(info)}))

    def has_checkpoint(self, name: str) -> bool:
        return self._checkpoint(name).is_file()

    def load_tensors(self, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and info of a checkpoint. Raises MutualignError naming the file if it cannot be read."""
        path = self._checkpoint(name)
        try:
            with safe_open(path, framework="pt") as file:
                info = json.loads((file.metadata() or {})["info"])
                return {key: file.get_tensor(key) for key in file.keys()}, info  # noqa: SIM118
        except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
            raise MutualignError(f"{path}: not a readable checkpoint: {error}") from error

    def _checkpoint(self, name: str) -> Path:
        return self.path / "checkpoints" / f"{name}.safetensors"


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside, flush to disk, rename, flush the folder: after a crash there is the old file or the new one."""
    beside = path.with_name(path.name + ".part")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
