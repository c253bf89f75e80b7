"""`tributary config show|docs`: they say what the models say, and the page is what they print."""

from pathlib import Path

import pytest

from tributary.config import ConfigError, RunConfig
from tributary.config.keys import documented_keys, find_keys, resolved_settings, to_markdown

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_what_the_models_say():
    page = (ROOT / "documentation" / "config.md").read_text(encoding="utf-8")
    assert page == to_markdown(), "run: tributary config docs --markdown > documentation/config.md"


def test_every_key_of_a_resolved_run_is_documented():
    config = RunConfig.from_mapping({"data": {"database": "db"}})
    names = {f"{section}.{key}" for section, values in config.model_dump().items() for key in values}
    keys = [key for keys in documented_keys().values() for key in keys]
    assert {key.name for key in keys if "<name>" not in key.name} == names
    assert all(key.description and key.type for key in keys)


def test_a_key_says_values_default_and_meaning():
    (key,) = find_keys("train.keep_every")
    assert (key.type, key.default) == ("whole number (at least 1) or null", "null")
    assert "multiples of this step" in key.description
    assert find_keys("keep_every") == [key]
    assert {one.name.split(".")[0] for one in find_keys("optimizer")} == {"optimizer"}
    with pytest.raises(ConfigError, match=r"did you mean `train\.keep_every`"):
        find_keys("train.keep_evry")


def test_where_a_value_comes_from(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("data: {database: db, seq_len: 64}\nmodel: {preset: demo, d_ff: 7}\n")

    def settings(*overrides):
        return {each.name: (each.value, each.origin) for each in resolved_settings(path, overrides)}

    found = settings("train.steps=3")
    assert found["train.steps"] == (3, "--set")
    assert found["data.seq_len"] == (64, str(path))
    assert found["model.d_ff"] == (7, str(path))
    assert found["model.d_model"] == (64, "preset demo")
    assert found["run.seed"] == (0, "default")
    # A preset of the command line replaces the sizes of the file.
    assert settings("model.preset=rt-22m")["model.d_ff"] == (1024, "preset rt-22m")
    with pytest.raises(ConfigError, match=r"unknown key `train.stepz`"):
        settings("train.stepz=3")


def test_the_commands(tributary_command, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("data: {database: db}\n")
    shown = tributary_command("config", "show", path, "--set", "train.steps=3")
    (line,) = [line for line in shown.stdout.splitlines() if line.startswith("train.steps ")]
    assert line.split() == ["train.steps", "3", "--set"]
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(tributary_command("config", "show", path, "--yaml").stdout)
    assert RunConfig.load(resolved) == RunConfig.load(path)
    assert "steps between checkpoints" in tributary_command("config", "docs", "checkpoint_every").stdout
    wrong = tributary_command("config", "docs", "nothing-like-it")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: no section or key")
