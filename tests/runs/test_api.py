"""`run`, `compare` and `load_run`: what they accept, and that they follow the rules of the commands."""

from __future__ import annotations

from mutualign import compare, load_run, run


def test_a_single_name_may_be_given_as_it_is(tmp_path):
    short = "stages.0.epochs=1"
    found = compare("source_only", "digits@60", seeds=1, overrides=short, out=tmp_path)
    assert {(row.task, row.seed) for row in found.rows} == {("digits@60", 0)}
    (result,) = tmp_path.rglob("result.json")
    written = result.stat().st_mtime_ns
    assert run("digits@60", "source_only", overrides=short, out=tmp_path).path == result.parent
    assert result.stat().st_mtime_ns == written  # read, and not trained again
    assert len(load_run(result.parent).epochs) == 1
