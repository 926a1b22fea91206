"""The files of a task: found, downloaded, checked; and the message if that fails."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import platformdirs
import pytest

from mutualign.data.fetch import mirrors
from mutualign.data.fetch.data_files import DATA_VARIABLE, DataFile, damaged, data_folder, require
from mutualign.errors import MutualignError
from tests.data.fetch.servers import Server, running_server

CONTENT = b"the published file"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(mirrors, "PAUSE", 0.0)
    with running_server(CONTENT) as server:
        yield server


def write(path: Path, content: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def error_of(files: list[DataFile], folder: Path) -> str:
    with pytest.raises(MutualignError) as error:
        require(files, "a-task", folder)
    return str(error.value)


def test_files_that_are_there_are_found_in_order_and_nothing_is_downloaded(tmp_path, server):
    files = [DataFile({f"folder/{name}": SHA256}, (server.url("good/x"),)) for name in "cab"]
    expected = [write(tmp_path / "folder" / name) for name in "cab"]
    assert require(files, "a-task", tmp_path) == expected
    assert server.asked == []


def test_a_missing_file_is_downloaded_to_its_first_place(tmp_path, server):
    file = DataFile({"a/b.gz": SHA256, "b.gz": SHA256, "b": "other"}, (server.url("good/b.gz"),))
    assert require([file], "a-task", tmp_path / "new") == [tmp_path / "new" / "a" / "b.gz"]
    assert (tmp_path / "new" / "a" / "b.gz").read_bytes() == CONTENT
    require([file], "a-task", tmp_path / "new")
    assert server.asked == ["/good/b.gz"]


@pytest.mark.parametrize("kind", ["wrong", "absent"])
def test_after_a_mirror_with_a_wrong_file_or_none_comes_the_next(tmp_path, server, kind):
    file = DataFile({"b": SHA256}, (server.url(f"{kind}/b"), server.url("good/b")))
    assert require([file], "a-task", tmp_path) == [tmp_path / "b"]
    assert (tmp_path / "b").read_bytes() == CONTENT
    assert server.asked == [f"/{kind}/b", "/good/b"]


def test_each_accepted_place_counts_with_the_hash_that_it_has_there(tmp_path):
    unzipped = b"unzipped"
    file = DataFile({"raw/b.gz": SHA256, "b.gz": SHA256, "raw/b": hashlib.sha256(unzipped).hexdigest()})
    for place, content in (("raw/b", unzipped), ("b.gz", CONTENT), ("raw/b.gz", CONTENT)):  # an earlier place wins
        write(tmp_path / place, content)
        assert require([file], "a-task", tmp_path) == [tmp_path / place]


def test_files_that_cannot_be_had_are_all_named_with_where_to_put_them_and_where_they_come_from(
    tmp_path, server, monkeypatch
):
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    files = [
        DataFile({"raw/one.gz": SHA256, "one.gz": SHA256}, (server.url("absent/one.gz"), server.url("wrong/one.gz"))),
        DataFile({"raw/two.gz": SHA256, "two.gz": SHA256}, (server.url("absent/two.gz"), server.url("wrong/two.gz"))),
        DataFile({"raw/had.gz": SHA256}, (server.url("good/had.gz"),)),
        DataFile({"photos/three.jpg": SHA256}),
    ]
    message = error_of(files, tmp_path)
    lines = message.splitlines()
    assert lines[0] == "3 file(s) missing for the task a-task"
    assert lines[1:9] == [
        "  missing  raw/one.gz",
        "           raw/two.gz",
        f"  from     {server.url('absent/')}",
        f"           {server.url('wrong/')}",
        "  or as    one.gz",
        "  missing  photos/three.jpg",
        "  from     their publisher",
        f"  looked in {tmp_path} (MUTUALIGN_DATA is unset)",
    ]
    assert [line.split(": ")[0].split()[-1] for line in lines[9:13]] == [
        server.url(f"{kind}/{name}.gz") for name in ("one", "two") for kind in ("absent", "wrong")
    ]
    for part in (f"`mutualign data fetch a-task --data {tmp_path}`", "folder with --data", "`--task digits`"):
        assert part in "\n".join(lines[13:])


def test_without_a_network_the_message_names_the_file_its_source_and_the_task_that_needs_none(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(mirrors, "PAUSE", 0.0)
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    with running_server() as gone:
        urls = [gone.url(f"data/{number}") for number in range(3)]
    files = [DataFile({f"data/{number}": SHA256}, (url,)) for number, url in enumerate(urls)]
    message = error_of(files, tmp_path)
    for part in ("data/0\n", "data/1\n", "data/2\n", gone.url("data/"), "(MUTUALIGN_DATA is set)", "--task digits"):
        assert part in message
    assert "`mutualign data fetch a-task`" in message  # the folder is the one that the command uses
    assert [f"{url}: " in message for url in urls] == [
        True,
        False,
        False,
    ]  # the host is not asked again for every file


def test_a_download_that_stops_half_way_keeps_what_is_whole(tmp_path, server):
    files = [DataFile({name: SHA256}, (server.url(f"{kind}/x"),)) for name, kind in (("a", "good"), ("b", "absent"))]
    assert error_of(files, tmp_path).startswith("1 file(s) missing")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["a"]


def test_many_missing_files_and_many_failures_are_summarised(tmp_path, server):
    files = [DataFile({f"photos/{number:03}.jpg": SHA256}) for number in range(200)]
    message = error_of(files, tmp_path)
    assert message.startswith("200 file(s) missing for the task a-task\n  missing  photos/000.jpg\n")
    assert "... and 195 more, up to photos/199.jpg" in message
    assert message.count("\n") < 20
    message = error_of([DataFile({f"{i}.jpg": SHA256}, (server.url(f"absent/{i}"),)) for i in range(40)], tmp_path)
    assert len(re.findall(r"\b404 Client Error\b", message)) == 12  # a port may have 404 in its number
    assert "... and 29 more, up to" in message


def test_a_damaged_file_is_named_and_neither_used_nor_replaced(tmp_path, server):
    files = [DataFile({name: SHA256}, (server.url("good/x"),)) for name in ("good", "cut", "flipped")]
    paths = [
        write(tmp_path / "good"),
        write(tmp_path / "cut", CONTENT[:-1]),
        write(tmp_path / "flipped", CONTENT.upper()),
    ]
    message = error_of(files, tmp_path)
    assert message.startswith("2 damaged file(s) for the task a-task: the SHA-256 is not the published one\n")
    assert f"  damaged  {paths[1]}\n           {paths[2]}\n" in message
    assert str(paths[0]) not in message
    assert f"delete them and run `mutualign data fetch a-task --data {tmp_path}`" in message
    assert damaged(files, tmp_path) == paths[1:]
    assert server.asked == []


def test_the_data_folder_is_the_option_then_the_variable_then_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "variable"))
    assert data_folder(tmp_path) == tmp_path
    assert data_folder() == tmp_path / "variable"
    monkeypatch.setenv(DATA_VARIABLE, "~/data")
    assert data_folder() == Path.home() / "data"
    for unset in (lambda: monkeypatch.setenv(DATA_VARIABLE, ""), lambda: monkeypatch.delenv(DATA_VARIABLE)):
        unset()
        assert data_folder() == Path(platformdirs.user_cache_dir("mutualign")) / "data"


def test_an_option_that_is_no_folder_is_an_error_that_names_it(tmp_path):
    with pytest.raises(MutualignError, match=r"--data .*/none: no such folder"):
        data_folder(tmp_path / "none")
