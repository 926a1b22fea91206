"""The page without a browser: what each handler answers, also to bad input."""

from __future__ import annotations

import pytest
import torch

from mutualign.demo.digits import normalise_digit
from mutualign.demo.systems import Verdict
from mutualign.demo.uploads import Uploads
from tests.demo.test_drawn_digits import box
from tests.demo.test_systems import data_url, png


@pytest.fixture(scope="module")
def page(gradio, digits):
    return make_page(digits)


@pytest.fixture(scope="module")
def image_page(gradio, images):
    return make_page(images)


# Gradio is imported by the tests that run, not by all processes that read this file.


def make_page(gallery):
    from mutualign.demo.page import Page

    return Page(gallery)


def drawing(*values):
    from mutualign.demo.page import Drawing

    return Drawing(*values)


def sent(data: object):
    from gradio import EventData

    return EventData(None, data)


@pytest.mark.parametrize("data", [None, 3, {}, {"pick": -1}, {"pick": 99}, {"pick": "0"}, {"pick": 0.0}])
def test_a_forged_pick_gets_a_sentence_and_changes_nothing_else(page, data):
    for answer in (
        page.pick_example(0, 1.0, sent(data)),
        page.pick_patch(drawing(page.digits.examples[0]), 1.0, sent(data)),
        page.pick_sample(sent(data)),
        page.name_upload(Uploads(), sent({"label": (data or {}).get("pick")} if isinstance(data, dict) else data)),
    ):
        note, *others = answer
        assert "no such image" in note
        assert all(other == {"__type__": "update"} for other in others)


def test_an_unexpected_error_gets_a_generic_sentence_and_goes_to_the_log(page, monkeypatch, caplog):
    monkeypatch.setattr(type(page), "place", lambda *_: 1 / 0)
    note, *others = page.slide(drawing(page.digits.examples[0]), 0, 1.0)
    assert "That did not work" in note
    assert "division" not in note
    assert len(others) == 2
    assert "ZeroDivisionError" in caplog.text


def test_every_handler_returns_as_many_answers_as_the_page_takes(page):
    drawn, image = drawing(page.digits.examples[0], 6), data_url(png(box(90, 115, 100, 50).numpy()))
    upload = page.upload(Uploads(), sent({"image": image}))
    answers = {
        "pick_example": page.pick_example(0, 1.0, sent({"pick": 1, "turn": 5})),
        "draw": page.draw(0, 1.0, sent({"image": image, "turn": 7})),
        "pick_patch": page.pick_patch(drawn, 1.0, sent({"pick": 5})),
        "slide": page.slide(drawn, 0, 1),  # the slider sends an integer at its ends
        "pick_sample": page.pick_sample(sent({"group": 1, "pick": 2})),
        "show_sample": page.show_sample((0, 3)),
        "upload": upload,
        "name_upload": page.name_upload(upload[2], sent({"label": 3})),
        "show_upload": page.show_upload(upload[2]),
    }
    assert {name: len(answer) for name, answer in answers.items()} == page.outputs
    assert all("alert" not in answer[0] and answer[1].count("<article") == 2 for answer in answers.values())
    assert torch.equal(answers["draw"][3].digit, normalise_digit(box(90, 115, 100, 50), 28, 28))
    for name, turn in {"pick_example": 5, "draw": 7, "pick_patch": 6, "slide": 6}.items():  # what they are about
        assert all(f'data-turn="{turn}"' in part for part in answers[name][1:3])
    assert answers["pick_patch"][3] == 5
    assert answers["pick_sample"][2] == (1, 2)


def test_an_empty_box_clears_the_answers_and_patches_can_still_be_picked(page):
    empty = data_url(png(box(0, 0, 0, 0).numpy()))
    note, results, patches, drawn = page.draw(0, 1.0, sent({"image": empty, "turn": 3}))
    assert drawn == drawing(None, 3)
    assert note == '<div data-turn="3"></div>'
    assert "<article" not in results
    assert patches.count("<img") == 12
    assert "<article" not in page.pick_patch(drawn, 1.0, sent({"pick": 3}))[1]


def test_the_gallery_marks_right_and_wrong_answers_and_counts_them(image_page, images):
    shown = image_page.samples((0, 0))
    for group in (0, 1):
        verdicts = [images.look_at_sample(group, row)[0] for row in range(20)]
        assert f"<b>{verdicts[0].right} of 20</b>" in shown
    every = [images.look_at_sample(group, row)[0] for group in (0, 1) for row in range(20)]
    assert shown.count("✗") == sum(one.is_wrong for one in every) == 40 - shown.count("✓")


def test_images_whose_class_the_visitor_names_are_scored_and_a_class_can_be_corrected(image_page):
    image = sent({"image": data_url(png(box(90, 115, 100, 50).numpy()))})
    names, uploads = image_page.gallery.class_names, Uploads()
    assert "<article" not in image_page.show_upload(uploads)[1]
    _, shown, uploads = image_page.upload(uploads, image)
    assert "that you named" not in shown
    right = 1 + names.index(uploads.answers[0])  # 0 is "not named"
    for label, score in ((1 + right % 3, "0 of 1"), (right, "1 of 1")):
        _, shown, uploads = image_page.name_upload(uploads, sent({"label": label}))
        assert f"<strong>{score}</strong> of your images that you named" in shown
        assert f"true class: <b>{names[label - 1]}</b>" in shown
    _, shown, uploads = image_page.upload(uploads, image)
    assert "<strong>1 of 1</strong>" in shown
    assert "true class" not in shown
    assert "<strong>1 of 2</strong>" in image_page.name_upload(uploads, sent({"label": 1 + right % 3}))[1]
    assert "<strong>1 of 1</strong>" in image_page.name_upload(uploads, sent({"label": 0}))[1]


def test_a_class_that_is_named_before_there_is_an_image_changes_nothing(image_page):
    note, shown, uploads = image_page.name_upload(Uploads(), sent({"label": 2}))
    assert "alert" not in note
    assert "<article" not in shown
    for _ in range(2):
        note, shown, uploads = image_page.upload(uploads, sent({"image": data_url(png(box(90, 115, 100, 50).numpy()))}))
        assert "alert" not in note
        assert "that you named" not in shown


def test_an_image_that_is_sent_again_as_its_answer_was_late_counts_once_and_keeps_its_class(image_page):
    image, names = data_url(png(box(90, 115, 100, 50).numpy())), image_page.gallery.class_names
    uploads = image_page.upload(Uploads(), sent({"image": image, "turn": 4}))[2]
    uploads = image_page.name_upload(uploads, sent({"label": 1}))[2]
    note, shown, again = image_page.upload(uploads, sent({"image": image, "turn": 4}))
    assert again == uploads
    assert f"true class: <b>{names[0]}</b>" in shown
    assert 'data-turn="4"' in note
    assert image_page.upload(uploads, sent({"image": image, "turn": 5}))[2].expected is None


@pytest.mark.parametrize("turn", [0, 9])
def test_an_error_says_what_it_answers(page, turn):
    note = page.upload(Uploads(), sent({"image": "no image", "turn": turn}))[0]
    assert "could not be read" in note
    assert f'data-turn="{turn}"' in note


def test_the_page_of_named_classes_shows_true_classes_and_has_no_box_to_draw_in(image_page, page):
    parts = [{block.elem_id for block in one.blocks().blocks.values()} for one in (image_page, page)]
    assert {"samples", "own"} <= parts[0] & parts[1]
    assert {"pad", "photo", "patches"} & parts[0] == set()
    assert {"pad", "photo", "patches"} <= parts[1]
    _, shown, chosen = image_page.pick_sample(sent({"group": 0, "pick": 4}))
    label = image_page.gallery.class_names[image_page.gallery.samples[0].labels[4]]
    assert chosen == (0, 4)
    assert f"true class: <b>{label}</b>" in shown
    assert all(name in shown for name in ("left", "middle", "right"))
    assert (
        "This page has no digits" in image_page.draw(0, 1.0, sent({"image": data_url(png(box(9, 9, 9, 9).numpy()))}))[0]
    )


def test_names_of_classes_and_systems_are_escaped(page):
    verdict = Verdict("<b>", True, "<script>", 1.0, [("<script>", 1.0)], "<i>", 1, 2)
    shown = page.results(page.digits.patches[0], "seen", [verdict], "target")
    assert not any(tag in shown for tag in ("<script>", "<b><", "<i>"))
