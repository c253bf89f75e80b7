from pathlib import Path

import pytest

from tributary.config import PRESETS, ConfigError, RunConfig

CONFIGS = Path(__file__).parents[2] / "configs"
MINIMAL = {"data": {"database": "db"}}


def test_a_preset_fills_what_is_not_given():
    config = RunConfig.from_mapping({**MINIMAL, "model": {"preset": "rt-22m", "num_layers": 4}})
    assert (config.model.num_layers, config.model.d_model, config.model.d_ff) == (4, 256, 1024)
    overridden = RunConfig.from_mapping(
        {**MINIMAL, "model": {"d_model": 32}}, ["model.num_layers=2", "model.preset=rt-22m"]
    )
    assert (overridden.model.d_model, overridden.model.num_layers) == (256, 2)


def test_yaml_round_trip(tmp_path):
    config = RunConfig.from_mapping(MINIMAL, ["train.time_limit_minutes=1.5", "data.tasks=[a, b]", "run.name=x"])
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml())
    assert RunConfig.load(path) == config
    assert config.run.path == Path("runs/x")


@pytest.mark.parametrize(
    ("values", "overrides", "message"),
    [
        ({"data": {}}, [], r"key `data.database` is required \(folder of the processed database\)"),
        ({**MINIMAL, "trian": {}}, [], "unknown key `trian`; did you mean `train`?"),
        ({**MINIMAL, "train": {"step": 3}}, [], "unknown key `train.step`; did you mean `steps`?"),
        ({**MINIMAL, "train": {"steps": "many"}}, [], "key `train.steps`: .*integer.* found 'many'"),
        ({**MINIMAL, "train": {"steps": 0}}, [], "key `train.steps`: .*greater than or equal to 1.* found 0"),
        ({**MINIMAL, "model": {"preset": "big"}}, [], "key `model.preset`: .*demo.*rt-22m"),
        (MINIMAL, ["model.kind=transfomer"], "key `model.kind`: .*found 'transfomer'; did you mean `transformer`?"),
        ({**MINIMAL, "model": {"d_model": 30, "num_heads": 4}}, [], "num_heads = 4 does not divide d_model = 30"),
        (MINIMAL, ["model.layers=3"], "unknown key `model.layers`; did you mean `num_layers`?"),
        (MINIMAL, ["modle.num_layers=3"], "unknown section `modle`; did you mean `model`?"),
        (MINIMAL, ["steps=3"], "expected `section.key=value`"),
        (MINIMAL, ["train.steps"], "expected `section.key=value`"),
        (MINIMAL, ["train.steps=[1"], "the value is not YAML"),
        (MINIMAL, ["optimizer.learning_rate=.inf"], "learning_rate"),
        (MINIMAL, ["model.positional=walk"], r"key `data.walk_features`: .*reads 8 steps.* found 0"),
        (MINIMAL, ["data.num_links=4"], r"`model.link_head`: data.num_links = 4 asks for links to be judged"),
        ([1], [], "expected a mapping"),
    ],
)
def test_mistakes_are_named(values, overrides, message):
    with pytest.raises(ConfigError, match=message):
        RunConfig.from_mapping(values, overrides)


def test_a_file_that_is_no_yaml_is_named(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("a: [")
    with pytest.raises(ConfigError, match=r"bad\.yaml: not YAML"):
        RunConfig.load(path)
    with pytest.raises(FileNotFoundError):
        RunConfig.load(tmp_path / "none.yaml")


def test_every_key_has_a_description():
    for name, section in RunConfig.model_fields.items():
        assert section.description, name
        for key, field in section.annotation.model_fields.items():
            assert field.description, f"{name}.{key}"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_checked_in_configs_load_and_are_headed(path):
    config = RunConfig.load(path)
    head = path.read_text().split("\nrun:")[0]
    assert all(f"# {word}:" in head for word in ("Command", "Hardware", "Time", "Metric")), head
    assert f"configs/{path.name}" in head
    assert config.model.preset in PRESETS
