"""The published models: equal to the package that owns them, by a fixture it wrote; import of their weights.

`tests/python/data/published` holds random weights, contexts and the package's answers; it was made by
`python benches/published_parity.py --rival-python PYTHON --write-fixture tests/python/data/published`, which compares
full-size models as well.
"""

import dataclasses
import functools
import json
import math
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

import fake_database
from synthetic_batch import IDENTIFIER, database_arrays, synthetic_batch
from tributary.batch import Batch, DatabaseArrays
from tributary.cli import main
from tributary.config import PUBLISHED_KINDS, ConfigError, ModelConfig, RunConfig
from tributary.import_weights import WeightsError, import_weights
from tributary.model import build_model
from tributary.model.attention import Relations
from tributary.model.forward import describe_model
from tributary.model.published import MisfitError, check_fit, tensors_of, to_params
from tributary.model.published.block import log_num_keys, to_bfloat16
from tributary.model.published.cells import boolean_moments, log_odds_of_score
from tributary.prediction.predict import load_run, predict_split
from tributary.training.losses import Objective, objective_loss
from tributary.training.train import train

FIXTURE = Path(__file__).parent / "data/published"
SIZES = {"d_model": 16, "num_layers": 2, "num_heads": 2, "d_ff": 24}
EMBEDDING_DIM = 8


def tiny(kind: str, **options) -> ModelConfig:
    return ModelConfig.model_validate({"preset": kind, **SIZES, "attention": "dense", **options})


@dataclasses.dataclass(frozen=True)
class Case:
    """What the fixture holds of one model."""

    kind: str
    batch: Batch
    arrays: DatabaseArrays
    is_masked: np.ndarray
    expected: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]

    @functools.cached_property
    def forward(self):
        """batch -> outputs for all cells, compiled once."""
        config = tiny(self.kind)
        graphdef, _ = describe_model(config, EMBEDDING_DIM)
        params = to_params(config, EMBEDDING_DIM, self.weights)
        cells = np.broadcast_to(np.arange(self.batch.seq_len, dtype=np.int32), self.batch.cell_row.shape)
        run = jax.jit(lambda params, batch: nnx.merge(graphdef, params)(batch, self.arrays, cells, self.is_masked))
        return functools.partial(run, params)

    def answers(self, batch: Batch | None = None) -> dict[str, np.ndarray]:
        """Every head's answer for every cell, under the package's names."""
        found = self.forward(self.batch if batch is None else batch)
        scalars = {"number": found.number, "datetime": found.moment, "boolean": found.truth}
        return {"text": np.asarray(found.query), **{name: np.asarray(x)[..., None] for name, x in scalars.items()}}


@pytest.fixture(scope="module", params=PUBLISHED_KINDS)
def case(request) -> Case:
    kind = request.param
    held = load_file(FIXTURE / f"{kind}.case.safetensors")

    def part(prefix: str) -> dict[str, np.ndarray]:
        return {name.removeprefix(prefix): array for name, array in held.items() if name.startswith(prefix)}

    fields = part("batch.")
    sizes = {
        axis: size
        for name, array in fields.items()
        for axis, size in zip(Batch.spec()[name][1], array.shape, strict=True)
    }
    for name, (dtype, axes) in Batch.spec().items():  # host fields, and fields younger than the fixture
        fields.setdefault(name, np.zeros([sizes.get(axis, 0) for axis in axes], dtype))
    return Case(
        kind,
        Batch.from_arrays(fields).device_fields(),
        DatabaseArrays(**part("arrays.")),
        held["is_masked"],
        part("expected."),
        load_file(FIXTURE / f"{kind}.safetensors"),
    )


def exists(case: Case) -> np.ndarray:
    """Cells that the published models have."""
    hidden = case.is_masked | case.batch.cell_is_target
    is_left_out = (case.batch.cell_stype == IDENTIFIER) | (case.batch.cell_is_null & ~hidden)
    return ~case.batch.cell_is_padding & ~is_left_out


# --- Parity ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_answer_of_every_cell_is_that_of_the_package(case):
    found, cells = case.answers(), exists(case)
    assert cells.sum() > 50
    assert set(case.expected) == set(found) - ({"boolean"} if case.kind == "rt-j" else set())
    for head, expected in case.expected.items():
        assert expected[cells].std() > 0.1  # the fixture says something
        np.testing.assert_allclose(found[head][cells], expected[cells], atol=2e-5, rtol=0, err_msg=head)


def test_hidden_values_identifiers_and_missing_cells_change_nothing(case):
    found, cells = case.answers(), exists(case)
    hidden = case.is_masked | case.batch.cell_is_target
    silent = hidden | ~cells
    changed = dataclasses.replace(
        case.batch,
        cell_value=np.where(silent, 7.0, case.batch.cell_value).astype(np.float32),
        cell_vocab=np.where(silent, 3, case.batch.cell_vocab).astype(np.int32),
        cell_column=np.where(cells, case.batch.cell_column, 1).astype(np.int32),
    )
    for head, answers in case.answers(changed).items():
        np.testing.assert_array_equal(answers[cells], found[head][cells], err_msg=head)
    shown = dataclasses.replace(case.batch, cell_value=np.where(cells & ~hidden, 7.0, case.batch.cell_value))
    assert np.abs(case.answers(shown)["number"] - found["number"])[cells].max() > 1e-3


@pytest.mark.slow
def test_every_parameter_gets_a_finite_gradient(case):
    config = tiny(case.kind)
    graphdef, _ = describe_model(config, EMBEDDING_DIM)
    cells = np.broadcast_to(np.arange(case.batch.seq_len, dtype=np.int32), case.batch.cell_row.shape)

    def loss(params):
        out = nnx.merge(graphdef, params)(case.batch, case.arrays, cells, case.is_masked)
        heads = (out.number, out.moment, out.truth, jnp.sum(out.query, axis=-1))
        return sum(jnp.sum(jnp.where(exists(case), jnp.sin(head), 0.0)) for head in heads)

    gradients = jax.jit(jax.grad(loss))(jax.tree.map(jnp.asarray, to_params(config, EMBEDDING_DIM, case.weights)))
    still = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.isfinite(leaf).all(), path
        if not np.abs(leaf).max() > 0:
            still.append(jax.tree_util.keystr(path))
    # The older ones never hide words, so their mask for words is not used.
    assert still == ([] if case.kind == "rt-j" else ["['encoder']['text_mask']"])


def test_numbers_of_keys_are_rounded_as_torch_rounds_them():
    counts = np.arange(1, 5000)
    expected = np.log(counts.astype(ml_dtypes.bfloat16).astype(np.float32)).astype(ml_dtypes.bfloat16)

    found = jax.jit(lambda x: to_bfloat16(jnp.log(to_bfloat16(x))))(counts.astype(np.float32))
    np.testing.assert_array_equal(np.asarray(found), expected.astype(np.float32))
    relations = Relations.from_batch(synthetic_batch(0, seq_len=24))
    alone = np.asarray(log_num_keys("neighbor", relations))
    assert (alone[relations.row < 0] == 0).all()
    assert alone.max() > 0


def test_a_z_score_of_a_boolean_becomes_log_odds_in_order():
    offset = jnp.float32(-1.5)
    mean, std = boolean_moments(offset)
    shares = np.array([0.02, 0.2, float(mean), 0.9])
    found = log_odds_of_score((shares - mean) / std, offset)
    np.testing.assert_allclose(found, np.log(shares / (1 - shares)), atol=1e-4)
    line = np.asarray(log_odds_of_score(jnp.linspace(-3, 6, 200), offset))
    assert (np.diff(line) > 0).all()
    beyond = log_odds_of_score((np.array([0.01, 0.0, -1.0]) - mean) / std, offset)
    slope = 1 / (0.01 * 0.99)
    np.testing.assert_allclose(beyond, math.log(0.01 / 0.99) - slope * np.array([0, 0.01, 1.01]), rtol=1e-3)


# --- Fresh models ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_fresh_model_trains_by_the_common_objective():
    config = tiny("rt-j")
    model = build_model(config, 16, rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(model, nnx.Param)
    batch, arrays = synthetic_batch(0, seq_len=24).device_fields(), database_arrays(16)

    @jax.jit
    def step(params):
        def loss(params):
            return objective_loss(nnx.merge(graphdef, params), batch, arrays, Objective())[0]

        value, gradients = jax.value_and_grad(loss)(params)
        return value, jax.tree.map(lambda x, g: x - 0.05 * g, params, gradients)

    losses = []
    for _ in range(30):
        value, params = step(params)
        losses.append(float(value))
    assert losses[-1] < 0.8 * losses[0]


# --- Weights' files ----------------------------------------------------------------------------------------------


def random_weights(config: ModelConfig, embedding_dim: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {tensor.name: tensor.shape for tensor in tensors_of(config, embedding_dim)}
    return {name: rng.normal(scale=0.3, size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("kind", PUBLISHED_KINDS)
def test_parameters_of_a_file_are_those_of_the_model(kind):
    config = tiny(kind)
    _, params = describe_model(config, EMBEDDING_DIM)
    found = to_params(config, EMBEDDING_DIM, load_file(FIXTURE / f"{kind}.safetensors"))
    shapes = [
        {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (params, found)
    ]
    assert shapes[0] == shapes[1]


def test_every_misfit_of_a_file_is_listed():
    config = tiny("rt-j")
    shapes = {name: array.shape for name, array in random_weights(config, 8).items()}
    check_fit(config, 8, {**shapes, "enc_dict.boolean.weight": (16, 1)})  # the package itself leaves these out
    shapes["blocks.2.ffn.w1.weight"] = (24, 16)
    del shapes["norm_out.scale"]
    shapes["blocks.1.attns.nbr.scale"] = (1, 4, 1, 1)
    with pytest.raises(MisfitError) as caught:
        check_fit(config, 8, shapes)
    assert str(caught.value).splitlines() == [
        "3 tensors do not fit rt-j with num_layers 2, d_model 16, num_heads 2, d_ff 24, text vectors of 8:",
        "  missing norm_out.scale (16,)",
        "  unexpected blocks.2.ffn.w1.weight (24, 16)",
        "  blocks.1.attns.nbr.scale: expected (1, 2, 1, 1), found (1, 4, 1, 1)",
    ]


# --- The command -------------------------------------------------------------------------------------------------

OPTIONS = ["data.seq_len=24", "train.eval_batch_size=8", "model.attention=dense"]


def write_published(folder: Path, kind: str = "rt-j", **settings) -> Path:
    """Weights and config.json as the package writes them, for vectors of 16 numbers."""
    folder.mkdir()
    file = folder / "model.safetensors"
    save_file(random_weights(tiny(kind), fake_database.EMBEDDING_DIM), file)
    names = {"num_blocks": 2, "d_model": 16, "d_text": 16, "num_heads": 2, "d_ff": 24}
    (folder / "config.json").write_text(json.dumps({"model": {**names, **settings}, "embedder": "hash-16"}))
    return file


@pytest.fixture
def fakes(monkeypatch):
    fake_database.install(monkeypatch)


@pytest.mark.slow
def test_imported_weights_predict_and_can_be_trained_on(tmp_path, fakes):
    file = write_published(tmp_path / "hub", loss_fn="huber")
    out = tmp_path / "runs/published"
    training = ["train.steps=2", "train.batch_size=4", "train.eval_every=2", "train.eval_seeds=8"]
    done = import_weights(file, preset="rt-j", database="fake", out=out, overrides=[*OPTIONS, *training])
    assert done.run_dir == out
    assert done.num_parameters == sum(array.size for array in load_file(file).values())
    assert len(done.warnings) == 1  # the fake database's vectors are of another embedder
    run = load_run(out)
    assert run.step == 0
    np.testing.assert_array_equal(
        run.params["blocks"]["column_attention"]["q_kernel"][1], load_file(file)["blocks.1.attns.col.wq.weight"].T
    )
    for task in ("numerical", "boolean", "categorical", "timestamp"):
        table = predict_split(run, task, "test")
        assert table.num_rows == fake_database.NUM_SEEDS["test"]
        assert table["prediction"].null_count == 0
    with pytest.raises(ConfigError, match="holds a run already"):
        import_weights(file, preset="rt-j", database="fake", out=out)
    train(RunConfig.load(out / "config.yaml"), resume="auto")
    assert load_run(out, step="last").step == 2


def test_settings_beside_the_weights_are_followed(tmp_path, fakes):
    file = write_published(tmp_path / "hub", loss_fn="bce")
    done = import_weights(file, preset="rt-j", database="fake", out=tmp_path / "run", overrides=OPTIONS)
    config = RunConfig.load(done.run_dir / "config.yaml")
    assert config.model.number_output == "log-odds"
    assert (config.model.num_layers, config.model.d_model, config.optimizer.ema_decay) == (2, 16, None)
    assert "hash-16" in done.warnings[0]


def test_files_that_are_no_weights_are_named(tmp_path, fakes, capfd):
    def message(file: Path, *options: str) -> str:
        arguments = ["--preset", "rt-j", "--database", "fake", "--out", str(tmp_path / "run"), *options]
        with pytest.raises(SystemExit) as caught:
            main(["import-weights", str(file), *arguments])
        assert caught.value.code == 2
        return capfd.readouterr().err

    saved = tmp_path / "weights.pt"
    with zipfile.ZipFile(saved, "w") as archive:
        archive.writestr("weights/data.pkl", b"")
    assert "written by torch.save" in message(saved)
    assert f"torch.load('{saved}'" in message(saved)
    text = tmp_path / "README.md"
    text.write_text("# Weights, not\n" * 20)
    assert "expected a safetensors file" in message(text)
    assert "no such file" in message(tmp_path / "nowhere.safetensors")
    file = write_published(tmp_path / "hub")
    assert "missing blocks.2.attns.nbr.scale (1, 2, 1, 1)" in message(file, "--set", "model.num_layers=3")
    weights = load_file(file)
    weights["enc_dict.text.weight"] = np.zeros((16, 384), np.float32)
    save_file(weights, file)
    found = message(file)
    assert "reads text vectors of 384 numbers, those of fake have 16" in found
    assert "tributary embed fake --embedder endpoint --embedder-model hash-16 --dimension 384" in found
    weights = random_weights(tiny("rt-j"), 16)
    weights["norm_out.scale"][3] = np.nan
    save_file(weights, file)
    assert "norm_out.scale holds NaN" in message(file)
    (file.parent / "config.json").write_text("{")
    assert "config.json: expected JSON beside the weights" in message(file)
    assert not (tmp_path / "run").exists()


def test_weights_in_bfloat16_are_read_exactly(tmp_path, fakes):
    file = write_published(tmp_path / "hub")
    weights = {name: array.astype(ml_dtypes.bfloat16) for name, array in load_file(file).items()}
    save_file(weights, file)
    out = import_weights(file, preset="rt-j", database="fake", out=tmp_path / "run", overrides=OPTIONS).run_dir
    found = load_run(out).params["heads"]["norm"]["scale"]
    np.testing.assert_array_equal(found, weights["norm_out.scale"].astype(np.float32))


def test_real_weights_refuse_wrong_choice_of_preset(tmp_path, fakes):
    with pytest.raises(WeightsError, match=r"unexpected blocks\.0\.attns\.col\.k_norm\.scale"):
        import_weights(
            write_published(tmp_path / "hub"), preset="rt-v1", database="fake", out=tmp_path / "run", overrides=OPTIONS
        )
