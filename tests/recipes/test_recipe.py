"""Recipes: the published settings, TOML round trips, and the messages for mistakes."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest
import tomli_w

from mutualign.errors import MutualignError
from mutualign.methods import METHODS, Method, NoConfig, register_method
from mutualign.methods.dann import DANNConfig
from mutualign.methods.mani import MaNiConfig
from mutualign.methods.self_ensembling import SelfEnsemblingConfig
from mutualign.recipes import OptimConfig, Recipe, Stage, load_recipe, parse_recipe, recipe_names

MINIMAL = 'description = "mine"\n[[stages]]\nmethod = "mani"\nepochs = 2\n'


@pytest.fixture
def own(tmp_path):
    """Write a recipe file and return its path."""

    def own(text, name="own.toml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return own


# The published settings -----------------------------------------------------------------------------------------------

OPTIM = OptimConfig("adam", lr=1e-4, schedule="constant")
DANN_STAGE = Stage("dann", epochs=40, batch_size=64, optim=OPTIM, options=DANNConfig(1.0, "constant"))
MANI_OPTIONS = MaNiConfig(domain=DANNConfig(1.0, "constant"), weight=1.0, threshold=0.9, decay=0.99)
PUBLISHED = {
    "source_only": (Stage("source_only", epochs=10, batch_size=64, optim=OptimConfig(lr=1e-3), options=NoConfig()),),
    "dann": (DANN_STAGE,),
    "mani": (DANN_STAGE, Stage("mani", epochs=40, batch_size=64, optim=OPTIM, options=MANI_OPTIONS)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_shipped_recipe_has_the_published_settings(name):
    recipe = load_recipe(name)
    assert recipe.stages == PUBLISHED[name]
    assert (recipe.name, recipe.backbone, recipe.precision) == (name, "mani_cnn", "auto")
    assert recipe.description


def test_the_names_are_those_of_the_files_that_are_shipped():
    shipped = [file.name for file in files("mutualign.recipes").iterdir() if file.name.endswith(".toml")]
    assert [f"{name}.toml" for name in recipe_names()] == sorted(shipped)
    assert set(PUBLISHED) <= set(recipe_names())


# To TOML and back -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("overrides", [(), ("precision=bf16", "stages.0.epochs=3", "stages.0.optim.lr=0.1")])
def test_a_recipe_survives_the_way_to_toml_and_back(name, overrides):
    recipe = load_recipe(name, overrides)
    again = parse_recipe(tomllib.loads(tomli_w.dumps(recipe.to_dict())), "here")
    assert again == recipe


def test_a_recipe_made_in_python_survives_it_too_and_has_the_defaults_of_its_method():
    recipe = Recipe("mine", (Stage("mani", epochs=1), Stage("source_only", epochs=2)), "of my own")
    assert recipe.stages[0].options == MANI_OPTIONS
    assert recipe.stages[1].options == NoConfig()
    assert parse_recipe(tomllib.loads(tomli_w.dumps(recipe.to_dict())), "here") == recipe


def test_the_options_of_a_file_are_read_at_every_level(own):
    text = MINIMAL + "[stages.options]\nthreshold = 0.8\n[stages.options.domain]\nreversal = 'ramp'\n"
    (stage,) = load_recipe(own(text)).stages
    assert stage.options == MaNiConfig(domain=DANNConfig(reversal="ramp"), threshold=0.8)


@pytest.mark.parametrize(
    ("name", "group", "key", "value", "expected"),
    [
        ("vada", "domain", "reversal", "ramp", DANNConfig(weight=0.01, reversal="ramp")),
        ("bsp", "domain", "weight", 0.5, DANNConfig(weight=0.5, reversal="ramp")),
        ("mutual_align", "domain", "weight", 0, DANNConfig(weight=0.0, reversal="ramp")),
        ("self_ensembling", "views", "noise", 0.1, dataclasses.replace(SelfEnsemblingConfig().views, noise=0.1)),
    ],
)
def test_one_setting_of_a_group_leaves_the_others_at_the_defaults_of_the_method(own, name, group, key, value, expected):
    """They may differ from those of the group's class, as all of these do."""
    assert getattr(METHODS[name].config(), group) != type(expected)()
    plain = f'[[stages]]\nmethod = "{name}"\nepochs = 1\n'
    written = own(f"{plain}[stages.options.{group}]\n{key} = {json.dumps(value)}\n")
    found = [load_recipe(written), load_recipe(own(plain, "plain.toml"), [f"stages.0.options.{group}.{key}={value}"])]
    found.append(Recipe("mine", (Stage(name, epochs=1, options={group: {key: value}}),)))
    for recipe in found:
        assert recipe.stages[0].options == dataclasses.replace(METHODS[name].config(), **{group: expected})
        assert parse_recipe(tomllib.loads(tomli_w.dumps(recipe.to_dict())), "here") == recipe


@dataclasses.dataclass(frozen=True)
class Inner:
    """A group inside a group."""

    a: float = 1.0
    b: float = 1.0


@dataclasses.dataclass(frozen=True)
class Group:
    """A group with a group and a dictionary inside."""

    inner: Inner = Inner(b=2.0)
    names: dict[str, float] = dataclasses.field(default_factory=dict)
    size: float = 1.0


@dataclasses.dataclass(frozen=True)
class GroupedConfig:
    """Settings of which one has no default."""

    needed: float
    group: Group = dataclasses.field(default_factory=lambda: Group(Inner(a=3.0, b=4.0), {"x": 1.0}, 5.0))
    optional: Inner | None = Inner(a=8.0)
    groups: tuple[Inner, ...] = (Inner(a=6.0),)


def test_only_tables_are_completed_and_at_every_level():
    """Dictionaries and lists are values: what is given replaces them."""

    @register_method("grouped", GroupedConfig)
    class Grouped(Method):
        """Trains nothing."""

    def options(**given):
        return Stage("grouped", epochs=1, options={"needed": 0.0, **given}).options

    try:
        assert options() == GroupedConfig(0.0)
        assert options(optional={"b": 2.0}).optional == Inner(a=8.0, b=2.0)
        assert options(optional=None).optional is None
        assert options(group=Group(size=7.0)).group == Group(size=7.0)
        assert options(group={"inner": {"a": 7.0}}).group == Group(Inner(a=7.0, b=4.0), {"x": 1.0}, 5.0)
        assert options(group={"names": {"y": 2.0}}).group == Group(Inner(a=3.0, b=4.0), {"y": 2.0}, 5.0)
        assert options(groups=[{"b": 2.0}]).groups == (Inner(b=2.0),)
        for wrong, message in (
            ({"group": "none"}, "options, group: expected object"),
            ({"group": {"innr": {}}}, r'options, group: unknown key "innr"; did you mean "inner"\?'),
            ({"group": {"inner": {"__class__": {}}}}, r'options, group\.inner: unknown key "__class__"'),
            ({"needed": None}, "options, needed: expected float"),
        ):
            with pytest.raises(ValueError, match=message):
                options(**wrong)
        with pytest.raises(ValueError, match="options: missing the key needed"):
            Stage("grouped", epochs=1)
    finally:
        METHODS.pop("grouped")


def test_a_whole_number_serves_as_a_float(own):
    (stage,) = load_recipe(own(MINIMAL + "optim = { lr = 1 }\n[stages.options]\nweight = 2\n")).stages
    assert type(stage.optim.lr) is type(stage.options.weight) is float
    assert (stage.optim.lr, stage.options.weight) == (1.0, 2.0)


def test_a_recipe_file_names_the_recipe_unless_it_has_a_name_in_it(own):
    assert load_recipe(own(MINIMAL, "steep.toml")).name == "steep"
    assert load_recipe(own('name = "gentle"\n' + MINIMAL, "steep.toml")).name == "gentle"


def test_a_recipe_saved_by_an_editor_of_windows_is_read(own, tmp_path):
    text = f"# a recipe\n{MINIMAL}"
    expected = load_recipe(own(text))
    (tmp_path / "own.toml").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert load_recipe(str(tmp_path / "own.toml")) == expected


def test_a_recipe_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_recipe("dann").precision = "float32"


# Mistakes -------------------------------------------------------------------------------------------------------------

STAGE = '[[stages]]\nmethod = "mani"\nepochs = 2\n'
MISTAKES = {
    "in the options": (
        MINIMAL + "[stages.options]\ntreshold = 0.8",
        r'stages\.0: options: .*"treshold".*"threshold"\?',
    ),
    "in nested options": (
        MINIMAL + "[stages.options.domain]\nwieght = 0.8",
        r'stages\.0: options, domain: .*"wieght".*"weight"\?',
    ),
    "in a stage": (MINIMAL + "bach_size = 3", r'stages\.0: .*"bach_size".*"batch_size"\?'),
    "in the second stage": (MINIMAL + STAGE + "bach_size = 3", r'stages\.1: .*"bach_size"'),
    "in the optimiser": (
        MINIMAL + "optim = { weigth_decay = 0.1 }",
        r'stages\.0\.optim: .*"weigth_decay".*"weight_decay"',
    ),
    "at the top": ('precison = "bf16"\n' + MINIMAL, r'own\.toml: .*"precison".*"precision"\?'),
    "far from all": ('zzzz = "bf16"\n' + MINIMAL, r"zzzz.*allowed: .*backbone, .*precision"),
    "an old key": (
        MINIMAL + "learning_rate = 0.1",
        r'stages\.0: unknown key "learning_rate"\n  hint: .*"optim\.lr" now',
    ),
    "an old method": ('[[stages]]\nalgorithm = "dann"\nepochs = 1', r'"algorithm"\n  hint: .*"method" now'),
    "a string for a number": (MINIMAL + 'batch_size = "64"', r"stages\.0\.batch_size: expected `?int`?, got `?str"),
    "a float for a whole number": (MINIMAL + "batch_size = 6.4", r"batch_size: expected `?int`?, got `?float"),
    "a truth for a number": (MINIMAL + "optim = { lr = true }", r"optim\.lr: expected `?float`?, got `?bool"),
    "a number for a string": ("description = 1\n" + STAGE, r"description: expected `?str"),
    "a list for a method": ('[[stages]]\nmethod = ["dann"]\nepochs = 1', r"method: expected `?str"),
    "a value for options": (MINIMAL + "options = 3", r"stages\.0: options: expected `?object"),
    "not one of a few": ('precision = "fp16"\n' + MINIMAL, r'precision: got "fp16"; did you mean "bf16"'),
    "not an optimiser": (MINIMAL + 'optim = { name = "adamax" }', r'optim\.name: got "adamax"; did you mean "adam"'),
    "not a schedule": (MINIMAL + '[stages.options.domain]\nreversal = "up"', r'"up"; allowed: constant, ramp'),
    "momentum of adam": (MINIMAL + "optim = { momentum = 0.9 }", r'stages\.0\.optim: momentum .* "sgd", not to "adam"'),
    "no epochs": ('[[stages]]\nmethod = "dann"', r"stages\.0: missing the key `?epochs"),
    "no method": ("[[stages]]\nepochs = 1", r"stages\.0: missing the key `?method"),
    "no stages": ('description = ""', r"missing the key `?stages"),
    "no stage": ("stages = []", r"needs one or more \[\[stages\]\]"),
    "a value for stages": ("stages = 3", r"stages: expected `?array"),
    "values for stages": ("stages = [3]", r"stages\.0: expected `?object"),
    "no such method": (
        '[[stages]]\nmethod = "damn"\nepochs = 1',
        r'stages\.0: unknown method "damn"; did you mean "dann"\?',
    ),
    "no such backbone": ('backbone = "publishd_cnn"\n' + MINIMAL, r'unknown backbone "publishd_cnn"'),
    "timm without a name": ('backbone = "timm:"\n' + MINIMAL, r'unknown backbone "timm:"; .*timm:NAME'),
    "zero epochs": ('[[stages]]\nmethod = "dann"\nepochs = 0', r"stages\.0: epochs must be above 0"),
    "an empty batch": (MINIMAL + "batch_size = -1", r"stages\.0: batch_size must be above 0, got -1"),
    "a network without units": (
        '[[stages]]\nmethod = "cdan"\nepochs = 1\noptions = { hidden = 0 }',
        r"stages\.0: options, hidden: expected int >= 1",
    ),
    "no singular value": (
        '[[stages]]\nmethod = "bsp"\nepochs = 1\noptions = { largest = -1 }',
        r"stages\.0: options, largest: expected int >= 1",
    ),
    "a teacher that runs ahead": (
        '[[stages]]\nmethod = "mani"\nepochs = 1\noptions = { decay = -0.5 }',
        r"stages\.0: options, decay: expected float >= 0",
    ),
    "more than all": (
        '[[stages]]\nmethod = "neighbour_information"\nepochs = 1\noptions = { label_smoothing = 1.5 }',
        r"stages\.0: options, label_smoothing: expected float <= 1",
    ),
    "nan": (MINIMAL + "optim = { lr = nan }", r"stages\.0\.optim\.lr: expected a finite number, got nan"),
    "infinity": (MINIMAL + "[stages.options]\nweight = inf", r"weight: expected a finite number, got inf"),
    "a number that no field can have": (MINIMAL + f"batch_size = 1{'0' * 400}", "got one of 401 digits"),
    "a number that Python does not read": (MINIMAL + f"batch_size = 1{'0' * 5000}", "not TOML: .*4300 digits"),
    "arrays in arrays": (MINIMAL + "batch_size = " + "[" * 5000, "not TOML: nested too deep"),
    "a key of many parts": (MINIMAL + "a." * 16 + "a = 1", "not TOML: a key of more than 16 parts"),
    "not TOML": ("description = ", r"own\.toml: not TOML"),
    "a name for no folder": ('name = "../up"\n' + MINIMAL, "name is up to 100 letters"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_recipe_is_named_with_its_place_and_what_is_allowed(own, mistake):
    text, message = MISTAKES[mistake]
    with pytest.raises(MutualignError, match=message) as error:
        load_recipe(own(text))
    assert "own.toml" in str(error.value)


def test_an_unknown_recipe_is_answered_with_the_nearest():
    with pytest.raises(MutualignError, match=r'unknown recipe "dan"; did you mean "dann"'):
        load_recipe("dan")
    with pytest.raises(MutualignError, match=r"allowed: .*dann, .*mani, .*source_only"):
        load_recipe("xyzzy")


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path):
    with pytest.raises(MutualignError, match=r"no recipe file .*absent\.toml"):
        load_recipe(str(tmp_path / "absent.toml"))
    (tmp_path / "latin.toml").write_bytes('description = "é"'.encode("latin-1"))
    with pytest.raises(MutualignError, match=r"latin\.toml: cannot be read"):
        load_recipe(str(tmp_path / "latin.toml"))


def test_a_stage_made_in_python_is_checked_as_well():
    with pytest.raises(ValueError, match=r'unknown method "damn"; did you mean "dann"\?'):
        Stage("damn", epochs=1)
    with pytest.raises(ValueError, match="epochs must be above 0, got 0"):
        Stage("dann", epochs=0)
    with pytest.raises(ValueError, match=r"one or more \[\[stages\]\]"):
        Recipe("mine", ())


def test_a_backbone_of_timm_is_taken_by_any_name_and_survives_the_way_to_toml_and_back():
    recipe = load_recipe("dann", ["backbone=timm:resnet18.a1_in1k", "backbone_weights=my/weights.safetensors"])
    assert (recipe.backbone, recipe.backbone_weights) == ("timm:resnet18.a1_in1k", "my/weights.safetensors")
    assert parse_recipe(tomllib.loads(tomli_w.dumps(recipe.to_dict())), "here") == recipe


def test_a_recipe_from_before_there_were_weights_is_read_as_one_without():
    data = load_recipe("mani").to_dict()
    assert (data.pop("backbone_weights"), data.pop("backbone_weights_sha256")) == ("", "")
    assert parse_recipe(data, "config.toml") == load_recipe("mani")


# Overrides ------------------------------------------------------------------------------------------------------------


def test_overrides_set_any_field_at_any_level():
    recipe = load_recipe(
        "mani",
        [
            "precision=float32",
            "stages.0.epochs=5",
            "stages.1.optim.lr=2e-3",
            "stages.1.options.threshold=0.8",
            'stages.1.options.domain.reversal="ramp"',
            "name = my-own",
        ],
    )
    assert (recipe.precision, recipe.name) == ("float32", f"my-own-{recipe.digest}")
    first, second = recipe.stages
    assert first == dataclasses.replace(DANN_STAGE, epochs=5)
    assert second.optim.lr == 2e-3
    assert second.options == MaNiConfig(domain=DANNConfig(reversal="ramp"), threshold=0.8)


@pytest.mark.parametrize("override", ["precision=bf16", 'precision="bf16"', "precision = bf16", "precision='bf16'"])
def test_a_bare_word_is_a_string_and_blanks_do_not_count(override):
    assert load_recipe("dann", [override]).precision == "bf16"


def test_overrides_change_the_name_so_that_no_two_settings_share_a_folder(own):
    names = [load_recipe("dann", [f"stages.0.epochs={n}"]).name for n in (5, 6)]
    names += [load_recipe("dann").name, load_recipe(own(MINIMAL, "x" * 100 + ".toml"), ["precision=bf16"]).name]
    assert len(set(names)) == 4
    assert all(len(name) <= 100 for name in names)
    assert load_recipe("dann", ["stages.0.epochs=5", "description=other"]).name == names[0]


def test_the_last_of_two_overrides_holds():
    assert load_recipe("dann", ["stages.0.epochs=5", "stages.0.epochs=6"]).stages[0].epochs == 6


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages.0.epochs", r'"stages\.0\.epochs": write it as key=value'),
        ("stages.2.epochs=1", r'there are stages 0 to 1, not "2"'),
        ("stages.-1.epochs=1", r'there are stages 0 to 1, not "-1"'),
        ("stages.first.epochs=1", r'there are stages 0 to 1, not "first"'),
        ("stages.0=1", r"name a field of the stage, for example stages\.0\.epochs"),
        ("precision.deep=1", r'precision: got ".*deep.*"; allowed: auto, bf16, float32'),
        ("description.a.b=1", r'"description" is a value, not a table'),
        ("stages.0.epochs=many", r"stages\.0\.epochs: expected `?int`?, got `?str"),
        ("stages.0.epochs=", r"stages\.0\.epochs: expected `?int`?, got `?str"),
        ("stages.1.options.treshold=1", r'unknown key "treshold"; did you mean "threshold"\?'),
        ("stages.0.options.threshold=1", r'stages\.0: options: unknown key "threshold"'),
        ("=5", 'unknown key ""'),
        ("epochs=5", r'unknown key "epochs"; did you mean "stages\.0\.epochs"\?'),
        ("stages.0.lr=1e-3", r'stages\.0: unknown key "lr"; did you mean "optim\.lr"\?'),
        ("precison=bf16", r'unknown key "precison"; did you mean "precision"\?'),
    ],
)
def test_a_malformed_override_says_what_is_wrong(override, message):
    with pytest.raises(MutualignError, match=message):
        load_recipe("mani", [override])


# Prefixes -------------------------------------------------------------------------------------------------------------


def test_dann_is_the_beginning_of_mani_and_mani_not_of_dann():
    dann, mani = load_recipe("dann"), load_recipe("mani")
    assert dann.is_prefix_of(mani)
    assert not mani.is_prefix_of(dann)
    assert mani.is_prefix_of(mani)
    assert not load_recipe("source_only").is_prefix_of(mani)


@pytest.mark.parametrize(
    "override",
    ["precision=float32", "stages.0.epochs=39", "stages.0.optim.lr=1e-3", "stages.0.options.reversal=ramp"],
)
def test_a_recipe_that_trains_otherwise_is_no_prefix(override):
    assert not load_recipe("dann", [override]).is_prefix_of(load_recipe("mani"))


def test_a_recipe_that_begins_with_other_weights_is_no_prefix():
    dann, mani = (load_recipe(name, ["backbone=timm:resnet18", "backbone_weights=a"]) for name in ("dann", "mani"))
    assert dann.is_prefix_of(mani)
    for other in ("", "b"):
        assert not dataclasses.replace(dann, backbone_weights=other).is_prefix_of(mani)


def test_names_and_descriptions_do_not_count():
    assert load_recipe("dann", ["name=other", "description=different"]).is_prefix_of(load_recipe("mani"))


def test_a_recipe_is_source_only_by_its_methods_and_not_by_its_name():
    renamed = dataclasses.replace(load_recipe("source_only"), name="baseline")
    assert renamed.is_source_only
    assert not dataclasses.replace(load_recipe("mani"), name="source_only").is_source_only


def test_the_reference_page_names_every_key_with_its_default_and_its_example_is_a_recipe(own):
    page = Path(__file__).parents[2].joinpath("docs", "reference", "recipes.md").read_text(encoding="utf-8")
    example = load_recipe(own(re.search(r"```toml.*?\n(.*?)```", page, re.DOTALL)[1], "mine.toml"))
    assert [stage.method for stage in example.stages] == ["dann", "mani"]
    sections = re.split(r"^## ", page, flags=re.MULTILINE)[1:]
    for part, section in zip((Recipe, Stage, OptimConfig), sections, strict=True):
        rows = dict(re.findall(r"^\| `(\w+)`(?:, `\w+`)* \| ([^|]*) \|", section, re.MULTILINE))
        keys = {one.name: one.default for one in dataclasses.fields(part)}
        keys.pop("backbone_weights_sha256", None)  # found when the recipe is read
        assert all(f"`{key}`" in section for key in keys), section
        for key, shown in rows.items():
            if re.fullmatch(r"`\S+`", shown):
                assert tomllib.loads(f"value = {shown[1:-1]}")["value"] == keys[key], key
