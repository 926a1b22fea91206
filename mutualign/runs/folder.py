"""The run folder: config, metrics, result and checkpoints of one run; everything is written atomically."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import tomli_w

from mutualign.data.task import REFIT
from mutualign.data.types import ImageShape
from mutualign.errors import MutualignError, described
from mutualign.evaluation.records import EpochRecord
from mutualign.io.atomic import cannot_write, files_last, flush_to_disk, write_atomically
from mutualign.io.plugins import mutualign_command, require_plugins, resume_command
from mutualign.io.text import LARGEST_JSON, LARGEST_TOML, parse_json, parse_toml, read_text
from mutualign.io.typed import encode_json, parse_typed
from mutualign.recipes.upgrade import upgrade_recipe
from mutualign.runs.checkpoints import Checkpoints
from mutualign.runs.history import Result, epochs_by_stage, first_gap
from mutualign.runs.lock import LOCK, locked
from mutualign.runs.spec import RunConfig
from mutualign.runs.upgrade import upgrade_record, upgrade_result

FAILURE = "failure.txt"
FORMAT = 2  # of the run folder; raised when an older mutualign could misread a newer folder. Old formats stay readable.


class RunFolder:
    """One run on disk.

    config.toml     how it was started: task, seed, recipe
    metrics.jsonl   one line per epoch
    result.json     written at the end; its presence marks the run as complete
    checkpoints/    tensors, see `Checkpoints`
    failure.txt     the error that ended the last attempt to train it, if one did
    .lock           exists while a process trains the run, see `locked`
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = Checkpoints(path / "checkpoints")

    @classmethod
    def create(cls, path: Path, config: Mapping[str, Any]) -> RunFolder:
        """Make a new run folder. What a kill left of an earlier attempt is removed.

        Raises MutualignError if there is a run already, if another process is making it, or if the place cannot be
        written.
        """
        cls.refuse_existing(path)
        run = cls(path)
        try:
            run.checkpoints.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MutualignError(
                f"cannot make the run folder {path}: {error.strerror}\n  hint:    choose another --out"
            ) from error
        with locked(path):
            cls.refuse_existing(path)  # another process may have made it in the meantime
            for left in (*path.glob("*.part"), path / FAILURE):
                left.unlink(missing_ok=True)
            write_atomically(path / "config.toml", tomli_w.dumps({"format": FORMAT, **config}).encode())
        return run

    @staticmethod
    def refuse_existing(path: Path) -> None:
        """Raise MutualignError if the path holds a run or other files, or cannot be made."""
        half_made = RunFolder.is_half_made(path)
        if (path / "config.toml").exists() and not half_made:
            resume, show = resume_command(path), mutualign_command("show", path)
            raise MutualignError(
                f"{path} already holds a run\n"
                f"  hint:    `{resume}` resumes it, `{show}` shows it;\n"
                "           or choose another --out or --seed"
            )
        if not half_made and not _holds_leftovers_only(path):
            raise MutualignError(
                f"{path} holds files that do not belong to a run\n  hint:    choose another --out, or empty it"
            )
        place = next(place for place in (path, *path.absolute().parents) if place.exists())
        if not place.is_dir() or not os.access(place, os.W_OK):
            raise MutualignError(
                f"cannot make the run folder {path}: {place} cannot be written\n  hint:    choose another --out"
            )

    @staticmethod
    def is_half_made(path: Path) -> bool:
        """Whether a start was interrupted, or failed before it saved anything: `create` can make the run folder."""
        if not (path / "config.toml").exists():
            return path.is_dir() and _holds_leftovers_only(path)
        metrics = path / "metrics.jsonl"
        saved = any((path / "checkpoints").glob("*")) or (metrics.exists() and metrics.stat().st_size > 0)
        return (path / FAILURE).exists() and not saved

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open a run folder. Raises MutualignError if it is missing or its format is unsupported."""
        run = cls(path)
        if not (path / "config.toml").is_file():
            hint = f"`{mutualign_command('runs', 'FOLDER')}` lists the runs below a folder"
            if cls.is_half_made(path):
                hint = "if a start of the run was interrupted, start it again as before"
            raise MutualignError(f"{path} is not a run folder: it has no config.toml\n  hint:    {hint}")
        found = run._read_config().get("format")
        if type(found) is not int or found < 1:
            shown = "no format" if found is None else f"the format {found!r}"
            raise MutualignError(
                f"{path} is not a run folder: config.toml has {shown}; expected a number of 1 or more\n"
                "  hint:    restore config.toml if it was changed, or name another folder"
            )
        if found > FORMAT:
            raise MutualignError(
                f"{path} has run-folder format {found}; this version of mutualign reads formats up to {FORMAT}\n"
                "  hint:    pip install --upgrade mutualign"
            )
        return run

    # Config -----------------------------------------------------------------------------------------------------------

    def config(self) -> RunConfig:
        """Read how the run was started. Raises MutualignError that names the file and the key."""
        data, where = self._read_config(), f"{self.path}/config.toml"
        if isinstance(data.get("recipe"), Mapping):
            data["recipe"] = upgrade_recipe(data["recipe"])
        if isinstance(images := data.get("images"), Mapping):  # a table for people, a tuple for msgspec
            data["images"] = [images.get(name) for name in ImageShape._fields]
        if isinstance(plugins := data.get("plugins"), list):
            require_plugins(map(str, plugins), where)
        return parse_typed(data, RunConfig, where)

    def upgrade(self) -> None:
        """Mark a folder of an older format as one of this format, before records of this format are added to it."""
        data = self._read_config()
        if data["format"] != FORMAT:
            data |= {"format": FORMAT, "recipe": upgrade_recipe(data["recipe"])}
            write_atomically(self.path / "config.toml", tomli_w.dumps(data).encode())

    def _read_config(self) -> dict[str, Any]:
        path = self.path / "config.toml"
        try:
            return parse_toml(read_text(path, LARGEST_TOML))
        except (OSError, ValueError) as error:
            raise MutualignError(f"{path}: cannot be read: {error}") from error

    # Metrics ----------------------------------------------------------------------------------------------------------

    def append_metrics(self, record: EpochRecord) -> None:
        """Add an epoch's record."""
        path = self.path / "metrics.jsonl"
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(encode_json(record) + "\n")
                file.flush()
                flush_to_disk(file.fileno())
        except OSError as error:
            raise cannot_write(path, error) from error

    def metrics(self) -> list[EpochRecord]:
        """Read the records of all epochs so far, oldest first. A last line that was cut off by a kill is ignored.

        Raises MutualignError that names file and line for anything else that is not a record, and if epochs are
        missing or double.
        """
        path = self.path / "metrics.jsonl"
        try:
            *lines, last = read_text(path, LARGEST_JSON).split("\n") if path.exists() else [""]
        except (OSError, ValueError) as error:
            raise MutualignError(f"{path}: cannot be read: {error}") from error
        records = [_record(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1)]
        with suppress(MutualignError):
            records.append(_record(last, ""))
        if (gap := first_gap(records)) is not None:
            found = f"epoch {records[gap].epoch} of stage {records[gap].stage}"
            raise _incomplete(f"{path}, line {gap + 1}: {found} does not follow the line before it")
        if (result := self.result()) is not None:
            self.require_epochs(records, [stage.epochs for stage in result.stages])
        return records

    def require_epochs(self, records: list[EpochRecord], expected: list[int]) -> None:
        """Raise MutualignError unless there is a record for each of the expected number of epochs of each stage."""
        if (found := epochs_by_stage(records)) != [number for number in expected if number]:
            raise _incomplete(f"{self.path}/metrics.jsonl: epochs by stage are {found}, expected {expected}")

    def keep_metrics(self, keep: Callable[[EpochRecord], bool]) -> list[EpochRecord]:
        """Drop the records of epochs that a resume will train again, and return the others."""
        records = [record for record in self.metrics() if keep(record)]
        lines = [encode_json(record) + "\n" for record in records]
        write_atomically(self.path / "metrics.jsonl", "".join(lines).encode())
        return records

    # Result -----------------------------------------------------------------------------------------------------------

    def write_result(self, result: Result) -> None:
        """Mark the run as complete."""
        write_atomically(self.path / "result.json", (encode_json(result, indent=2) + "\n").encode())

    @property
    def is_complete(self) -> bool:
        """Whether the run has its result."""
        return (self.path / "result.json").exists()

    def result(self) -> Result | None:
        """Read the result; None while the run is not complete.

        Raises MutualignError that names the file and the key, also for the result of another run.
        """
        path = self.path / "result.json"
        if not path.exists():
            return None
        try:
            data = parse_json(read_text(path, LARGEST_JSON))
        except (OSError, ValueError) as error:
            raise MutualignError(f"{path}: cannot be read: {error}") from error
        result, config = parse_typed(_table(data, upgrade_result), Result, f"{path}"), self.config()
        for key, found, expected in (
            ("recipe", result.recipe, config.recipe.name),
            ("task", result.task, config.task),
            ("data", result.data, config.data),
            ("seed", result.seed, config.seed),
            ("stages", [stage.epochs for stage in result.stages], [stage.epochs for stage in config.recipe.stages]),
        ):
            if found != expected:
                raise MutualignError(
                    f"{path}, {key}: the result of another run: {found}; config.toml has {expected}\n"
                    "  hint:    restore both files from a copy of the run, or train it again in another folder"
                )
        return result

    @contextmanager
    def recording_failure(self, except_for: type[Exception]) -> Iterator[None]:
        """Keep the error, if one ends the context, in failure.txt; the error of an earlier attempt is removed.

        A note says so on an error that is no MutualignError: only the file has its traceback where runs are many.
        """
        path = self.path / FAILURE
        path.unlink(missing_ok=True)
        try:
            yield
        except Exception as error:
            if not isinstance(error, except_for):
                text = f"{described(error)}\n\n{''.join(traceback.format_exception(error))}"
                with suppress(MutualignError):  # a full disk may be the very error
                    write_atomically(path, text.encode("utf-8", "backslashreplace"))
                    if files_last() and not isinstance(error, MutualignError):
                        error.add_note(f"  details  {path}")
            raise

    def failure(self) -> str:
        """Return the first line of the error that ended the last attempt to train the run; "" if none did."""
        try:
            return read_text(self.path / FAILURE, LARGEST_TOML).partition("\n")[0]
        except (OSError, ValueError):
            return ""

    @property
    def to_continue(self) -> str:
        """What to do with a run that is not complete: the command that resumes it, if its images can be loaded."""
        return REFIT if self.config().is_of_arrays else resume_command(self.path)

    def require_result(self) -> Result:
        """Read the result. Raises MutualignError that says how to resume if the run is not complete."""
        if (result := self.result()) is None:
            raise MutualignError(f"{self.path} is not complete\n  hint:    {self.to_continue}")
        return result


def _holds_leftovers_only(path: Path) -> bool:
    """Whether all files below a path are locks, or parts of files that were being written."""
    files = (found for found in path.rglob("*") if not found.is_dir() or found.is_symlink())
    return all(found.name == LOCK or found.name.endswith(".part") for found in files)


def _incomplete(what: str) -> MutualignError:
    return MutualignError(
        f"{what}\n  hint:    restore metrics.jsonl from a copy, or train the run again in another folder"
    )


def _record(line: str, where: str) -> EpochRecord:
    try:
        data = parse_json(line)
    except ValueError as error:
        raise MutualignError(f"{where}: not JSON: {error}") from error
    return parse_typed(_table(data, upgrade_record), EpochRecord, where)


def _table(data: Any, upgrade: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """Upgrade a table; anything else is left for the typed reader to refuse."""
    try:
        return upgrade(data) if isinstance(data, dict) else data
    except (AttributeError, TypeError):
        return data
