"""Equal conditions: recipes that differ in the method only."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mutualign.errors import MutualignError
from mutualign.methods import METHODS, Method, register_method
from mutualign.recipes import Recipe, Stage, load_recipe
from mutualign.recipes.equal import demonstration, equal_recipes, method_of, shares
from mutualign.runs.loading import recipes_for
from mutualign.runs.network_choice import NetworkChoice

IMAGES, PHOTOS = load_recipe("equal"), load_recipe("equal_photos")


@pytest.fixture(scope="module", params=[IMAGES, PHOTOS], ids=["images", "photos"])
def conditions(request) -> Recipe:
    return request.param


@pytest.fixture(scope="module")
def recipes(conditions) -> dict[str, Recipe]:
    return {method_of(recipe.name): recipe for recipe in equal_recipes(conditions)}


def test_every_method_has_a_recipe_that_ends_with_it_and_source_only_is_the_baseline(recipes, conditions):
    needs_images = {"adamatch", "self_ensembling", "mutual_align", "rotation", "fda"}
    assert set(recipes) == set(METHODS) - (needs_images if conditions.features else set())
    assert all(recipe.stages[-1].method == name for name, recipe in recipes.items())
    assert next(iter(recipes)) == "source_only"
    assert recipes["source_only"].stages == conditions.stages


def test_network_batches_length_and_optimiser_are_the_same_for_all(recipes, conditions):
    (common,) = conditions.stages
    for recipe in recipes.values():
        assert recipe._shared_settings == conditions._shared_settings
        assert sum(stage.epochs for stage in recipe.stages) == common.epochs
        assert recipe.stages[0].optim == common.optim
        for stage in recipe.stages:
            own = {key: getattr(common, key) for key in ("method", "options", "epochs")}
            assert replace(stage, optim=replace(stage.optim, lr=common.optim.lr), **own) == common


def test_settings_and_first_stages_are_those_of_the_recipe_that_demonstrates_the_method(recipes, conditions):
    assert [stage.method for stage in recipes["shot"].stages] == ["source_only", "shot"]
    assert [stage.method for stage in recipes["dirt_t"].stages] == ["vada", "dirt_t"]
    assert [stage.method for stage in recipes["mani"].stages] == ["dann", "mani"]
    assert recipes["shot"].stages[1].optim.lr == pytest.approx(0.3 * conditions.stages[0].optim.lr)
    assert recipes["dann"].stages[0].options.reversal == "ramp"
    assert recipes["coral"].stages[0].options == load_recipe("coral").stages[0].options


def test_the_demonstration_is_the_shortest_recipe_on_the_same_input_if_there_is_one():
    assert demonstration("dann", on_features=False).name == "dann_ramp"
    assert demonstration("dann", on_features=True).name == "photos_dann"
    assert demonstration("coral", on_features=True).name == "coral"
    assert demonstration("neighbour_information", on_features=False).name == "photos"
    assert demonstration("mutual_align", on_features=False).name == "fast"


def test_a_method_of_ones_own_takes_part_with_its_defaults():
    @register_method("own")
    class Own(Method):
        """Trains nothing."""

    try:
        own = next(recipe for recipe in equal_recipes(IMAGES) if recipe.name == "equal.own")
        assert own.stages == (replace(IMAGES.stages[0], method="own", options=METHODS["own"].config()),)
    finally:
        METHODS.pop("own")


@pytest.mark.parametrize(
    ("weights", "total", "expected"),
    [([40], 4, [4]), ([40, 40], 4, [2, 2]), ([10, 1], 4, [3, 1]), ([1, 10], 4, [1, 3]), ([10, 1, 1], 3, [1, 1, 1])],
)
def test_stages_share_the_epochs_and_each_has_one(weights, total, expected):
    assert shares(weights, total) == expected


def test_what_cannot_be_equal_conditions_is_an_error():
    with pytest.raises(MutualignError, match="1 epochs are too few for 2 stages"):
        equal_recipes(replace(IMAGES, stages=(replace(IMAGES.stages[0], epochs=1),)))
    with pytest.raises(MutualignError, match="recipe mani: equal conditions are a recipe of one stage"):
        equal_recipes(load_recipe("mani"))


def test_a_method_that_needs_images_is_refused_on_features():
    with pytest.raises(ValueError, match="mixes images, which features are not"):
        Recipe("mine", (Stage("rotation", epochs=1),), features="efficientnet_lite0")


def test_all_on_the_command_line_is_every_method_and_overrides_change_them_alike():
    assert recipes_for(None, "all") == equal_recipes(IMAGES)
    assert recipes_for(None, "all", photos=True) == equal_recipes(PHOTOS)
    (whole,) = {one.backbone for one in recipes_for(None, "all:equal", (), NetworkChoice("mlp"))}
    assert whole == "mlp"
    longer = recipes_for(None, "fast, all:equal", ["stages.0.epochs=5"])
    assert [recipe.name.partition("-")[0] for recipe in longer[:2]] == ["fast", "equal"]
    assert {sum(stage.epochs for stage in recipe.stages) for recipe in longer} == {5}
    assert {method_of(recipe.name) for recipe in longer[1:]} == set(METHODS)
