"""The report as a file: what is on the page, in which order, and what is not."""

from __future__ import annotations

import json
import re
import shutil
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from mutualign.cli import app as cli
from mutualign.errors import MutualignError
from mutualign.report import evaluation_sections as evidence_sections
from mutualign.report.html import write_report
from mutualign.report.page import Gallery, Page, Section, slug

SECTIONS = (
    "result",
    "alarms",
    "curves",
    "embedding",
    "confusion",
    "reliability",
    "pseudo-labels",
    "galleries",
    "samples",
    "config",
    "environment",
)
EVIL = "<script>alert(1)</script>"


class Reader(HTMLParser):
    """Tags, ids, and what is fetched or linked."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.ids, self.addresses = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href"):
                self.addresses.append(value)


@pytest.fixture
def run(tiny_runs, tmp_path):
    """A copy of the tiny run of two stages, to change."""
    return shutil.copytree(tiny_runs / "tiny" / "mani" / "seed-0", tmp_path / "tiny" / "mani" / "seed-0")


@pytest.fixture(scope="session")
def page(tiny_runs, tmp_path_factory):
    return write_report(tiny_runs / "tiny" / "mani" / "seed-0", tmp_path_factory.mktemp("page") / "run.html")


def edit_result(run, **changes):
    path = run / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_every_section_is_there_in_order_and_in_the_table_of_contents(page):
    text = page.read_text()
    assert tuple(re.findall(r'<section id="([^"]+)"', text)) == SECTIONS
    assert tuple(re.findall(r'<a href="#([^"]+)"', text)) == SECTIONS


def test_the_numbers_on_the_page_are_those_of_the_result(tiny_runs, page):
    result = json.loads((tiny_runs / "tiny" / "mani" / "seed-0" / "result.json").read_text())
    text, chosen = page.read_text(), result["stages"][-1]["selections"]
    for share in (chosen["last"]["target_accuracy"], chosen["last"]["source_accuracy"]):
        assert f"<dd>{100 * share:.1f} %</dd>" in text
    assert f"reaches {100 * chosen['last']['target_accuracy']:.1f} % on the target of" in text
    for alarm in result["alarms"]:
        assert alarm["name"] in text
    assert result["versions"]["torch"] in text


def test_the_page_needs_no_network_is_small_and_has_no_id_twice(page):
    read = Reader(page.read_text())
    assert page.stat().st_size < 5e6
    assert len(read.ids) == len(set(read.ids))
    assert all(address.startswith(("data:image/", "#")) for address in read.addresses)
    assert "script" not in read.tags
    assert "link" not in read.tags
    assert "default-src 'none'" in page.read_text()


def test_two_reports_of_a_run_are_equal_byte_for_byte(run, page):
    assert write_report(run).read_bytes() == page.read_bytes()
    assert (run / "report.html").is_file()


def test_names_are_escaped_wherever_they_stand(run):
    edit_result(run, class_names=[EVIL, "$x$", "a&b"], command=f"mutualign run --recipe {EVIL}", task=EVIL)
    text = write_report(run).read_text()
    assert EVIL not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "script" not in Reader(text).tags
    assert "$x$" in text  # not read as mathematics


def test_without_a_review_the_sections_that_need_labels_say_that_there_are_none(run):
    (run / "checkpoints" / "review.safetensors").unlink()
    text = write_report(run).read_text()
    assert tuple(re.findall(r'<section id="([^"]+)"', text)) == SECTIONS
    for what in ("confusion matrix", "reliability diagram", "gallery"):
        assert f"There are no target labels, so there is no {what}" in text
    assert "target by its predictions" in text


def test_without_target_labels_the_summary_says_so_and_no_oracle_is_shown(run):
    result = json.loads((run / "result.json").read_text())
    for stage in result["stages"]:
        del stage["selections"]["oracle"]
        for chosen in stage["selections"].values():
            del chosen["target_accuracy"]
    edit_result(run, stages=result["stages"])
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines = [json.dumps({key: record[key] for key in record if key != "target_accuracy"}) for record in records]
    (run / "metrics.jsonl").write_text("\n".join(lines))
    text = write_report(run).read_text()
    assert "no labels to judge by" in text
    assert "there is no target curve" in text
    assert "oracle (needs labels)" not in text


def test_a_comparison_has_a_section_a_task_with_every_system_and_names_what_is_left_out(tiny_runs, tmp_path):
    for folder in (tiny_runs, tiny_runs / "tiny"):
        text = write_report(folder, tmp_path / "comparison.html").read_text()
        for part in (
            '<section id="tiny"',
            "source_only",
            "mani",
            "needs labels",
            '<section id="left-out"',
            "dann/seed-0",
        ):
            assert part in text
    read = Reader(text)
    assert len(read.ids) == len(set(read.ids))
    assert all(address.startswith("#") for address in read.addresses)


def test_an_incomplete_run_and_an_old_one_say_what_to_do(tiny_runs, run, tmp_path):
    begun = tiny_runs / "tiny" / "dann" / "seed-0"
    with pytest.raises(MutualignError, match=f"not complete\n.*mutualign run --resume {begun}"):
        write_report(begun)
    (run / "checkpoints" / "stage-1-selected-outputs.safetensors").unlink()
    with pytest.raises(MutualignError, match="older mutualign"):
        write_report(run)
    with pytest.raises(MutualignError, match="name a run, such as"):
        write_report(tmp_path / "nothing")


def test_the_command_prints_path_and_size_and_writes_pictures_for_papers(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mutualign", "report", str(run), "--png", str(tmp_path / "png")])
    cli.main()
    assert re.search(r"report\.html \(0\.\d MB\)", capsys.readouterr().out)
    names = {path.stem for path in (tmp_path / "png").iterdir()}
    figures = {"learning-curves", "embedding-class", "confusion", "reliability", "gradients", "class-shares"}
    assert figures | {"source-samples", "target-samples", "least-confident"} <= names
    with Image.open(tmp_path / "png" / "learning-curves.png") as image:
        assert round(image.info["dpi"][0]) == 300
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_galleries_of_large_noisy_photos_stay_small():
    photos = np.random.default_rng(0).integers(256, size=(120, 224, 224, 3)).astype(np.uint8)
    page = Page("t", "w", "s", [], [Section("samples", "Samples", [Gallery("g", "G", "c", photos)])], "0")
    assert len(page.html()) < 5e6


def test_the_calibration_error_is_the_mean_gap_weighted_by_images():
    reliability = np.array([[0.0, 0.0, 0.0], [30.0, 0.6, 0.5], [10.0, 0.9, 0.6]])
    assert evidence_sections.calibration_error(reliability) == pytest.approx((30 * 0.1 + 10 * 0.3) / 40)


def test_an_anchor_has_letters_digits_and_dashes_only():
    assert slug("mnist-mnistm@6000") == "mnist-mnistm-6000"
    assert slug("<é>") == "x"
