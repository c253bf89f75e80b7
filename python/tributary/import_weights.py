"""Weights of a published Relational Transformer become a run that predicts, without training.

The file is read and checked here; which tensor belongs where is the business of `tributary.model.published`. The run
is an ordinary one at step 0. Described in `documentation/published_models.md`.
"""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors

from tributary.config import ConfigError, PublishedKind, RunConfig
from tributary.data import Database
from tributary.model.published import MisfitError, check_fit, to_params
from tributary.model.published.names import is_ignored
from tributary.runs.checkpoint import Checkpoints, Progress
from tributary.runs.retention import Retention
from tributary.training.cost import CostMeter
from tributary.training.databases import open_sources
from tributary.training.journal import Journal, Position
from tributary.training.mixture import training_mixture
from tributary.training.optim import init_state

DEFAULTS: dict[str, dict[str, Any]] = {"data": {"seq_len": 1024}, "optimizer": {"ema_decay": None}}
"""What a run of published weights is told besides database and model: the context they were trained on, no average."""

EMBEDDER = "all-MiniLM-L12-v2"
"""The sentence encoder whose vectors the published weights read, unless their `config.json` names another."""

SIZES = {"num_blocks": "num_layers", "d_model": "d_model", "num_heads": "num_heads", "d_ff": "d_ff"}
"""Sizes in the `config.json` beside published weights, and our names of them."""


class WeightsError(ValueError):
    """The file does not hold the weights of the model; the message says what would."""


@dataclasses.dataclass(frozen=True)
class Imported:
    """What became of a file of weights."""

    run_dir: Path
    """Folder of the run."""
    num_parameters: int
    """Numbers that were read."""
    warnings: tuple[str, ...]
    """What the user should know before trusting the predictions."""


@dataclasses.dataclass(frozen=True)
class Header:
    """What a file says of itself before its tensors are read."""

    shapes: dict[str, tuple[int, ...]]
    """Shape of every tensor."""
    settings: dict[str, Any]
    """The `config.json` beside it; empty where there is none."""


def import_weights(
    file: str | Path, *, preset: PublishedKind, database: str | Path, out: str | Path, overrides: Iterable[str] = ()
) -> Imported:
    """Makes a run of published weights.

    Args:
        file: safetensors file; a `config.json` beside it gives sizes and embedder, as the package writes them.
        preset: which of the published models.
        database: processed database, embedded as the weights want it.
        out: folder of the run, which must not hold one yet.
        overrides: `section.key=value` texts, stronger than everything else.

    Returns:
        Where the run is, and what to know about it.

    Raises:
        WeightsError: the file cannot be read, or its tensors are not those of the model; all misfits are listed.
        ConfigError: the folder holds a run, or an override is wrong.
    """
    file, out = Path(file), Path(out)
    header = read_header(file)
    config = _configuration(header, preset, str(database), out, overrides)
    if (out / "config.yaml").exists():
        raise ConfigError(f"{out} holds a run already: choose another --out")
    opened = Database(str(database), in_memory=config.data.in_memory)
    manifest = json.loads(opened.manifest)
    embedding_dim = opened.embeddings("column").shape[1]
    _check_width(file, header, manifest, str(database), embedding_dim)
    try:
        check_fit(config.model, embedding_dim, header.shapes)
    except MisfitError as error:
        raise WeightsError(f"{file}: {error}") from None
    params = to_params(config.model, embedding_dim, _read_tensors(file, config))
    num_parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    _write_run(config, opened, manifest, params, num_parameters)
    return Imported(out, num_parameters, tuple(_warnings(header, preset, manifest["embedder"])))


def read_header(file: Path) -> Header:
    """Names and shapes of a safetensors file, and the settings beside it.

    Raises:
        WeightsError: it is no safetensors file; one that torch wrote is told how to become one.
        FileNotFoundError: there is no such file.
    """
    if not file.is_file():
        raise FileNotFoundError(2, "no such file", str(file))
    with file.open("rb") as opened:
        start = opened.read(2)
    if zipfile.is_zipfile(file) or start == b"\x80\x02":  # torch's archive, and its older pickle
        target = file.with_suffix(".safetensors")
        raise WeightsError(
            f"{file} was written by torch.save; loading it would run code from it, so convert it where torch is:\n"
            f'  python -c "import torch, safetensors.torch as s; '
            f"d = torch.load('{file}', map_location='cpu', weights_only=True); "
            f"s.save_file({{k: v.contiguous() for k, v in d.get('model', d).items()}}, '{target}')\""
        )
    try:
        with safetensors.safe_open(file, framework="numpy") as tensors:
            shapes = {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise WeightsError(f"{file}: expected a safetensors file, found something else ({error})") from None
    settings_file = file.with_name("config.json")
    if not settings_file.is_file():
        return Header(shapes, {})
    try:
        settings = json.loads(settings_file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise WeightsError(f"{settings_file}: expected JSON beside the weights, found ({error})") from None
    if not isinstance(settings, dict) or not isinstance(settings.get("model", {}), dict):
        raise WeightsError(f"{settings_file}: expected a mapping with the sizes under `model`")
    return Header(shapes, settings)


def _configuration(
    header: Header, preset: PublishedKind, database: str, out: Path, overrides: Iterable[str]
) -> RunConfig:
    """The run's configuration: preset, then `config.json`, then overrides."""
    published = header.settings.get("model", {})
    model = {"preset": preset, **{ours: published[theirs] for theirs, ours in SIZES.items() if theirs in published}}
    if preset == "rt-j" and published.get("loss_fn") == "bce":
        model["number_output"] = "log-odds"
    values = {
        **DEFAULTS,
        "run": {"name": out.name, "dir": str(out.parent)},
        "data": {**DEFAULTS["data"], "database": database},
        "model": model,
    }
    return RunConfig.from_mapping(values, overrides, source="import-weights")


def _check_width(file: Path, header: Header, manifest: dict[str, Any], database: str, embedding_dim: int) -> None:
    """Raises `WeightsError` where text vectors of another width are expected: the commonest misfit, said plainly."""
    shape = header.shapes.get("enc_dict.text.weight")
    if shape is not None and len(shape) == 2 and shape[1] != embedding_dim:
        found = json.dumps(manifest["embedder"])
        raise WeightsError(
            f"{file}: reads text vectors of {shape[1]} numbers, those of {database} have {embedding_dim} ({found}); "
            f"embed it as the weights need it: tributary embed {database} --embedder endpoint --embedder-model "
            f"{_embedder(header)} --dimension {shape[1]}"
        )


def _embedder(header: Header) -> str:
    """Name of the sentence encoder that the weights were trained with."""
    named = header.settings.get("embedder") or header.settings.get("embedding_model")
    return str(named) if named else EMBEDDER


def _read_tensors(file: Path, config: RunConfig) -> dict[str, np.ndarray]:
    """The tensors that the model uses.

    Raises:
        WeightsError: a tensor holds a number that is not finite, or none at all.
    """
    tensors = {}
    with safetensors.safe_open(file, framework="numpy") as opened:
        for name in opened.keys():  # noqa: SIM118
            if is_ignored(config.model, name):
                continue
            array = opened.get_tensor(name)
            if not np.isfinite(array.astype(np.float32)).all():
                raise WeightsError(f"{file}: tensor {name} holds NaN or infinity")
            tensors[name] = array
    return tensors


def _write_run(
    config: RunConfig, database: Database, manifest: dict[str, Any], params: Any, num_parameters: int
) -> None:
    """Writes the folder of the run: configuration, journal without a line, checkpoint of step 0."""
    named = set(config.data.tasks or ())
    tasks = [task for task in manifest["tasks"] if not named or task["name"] in named]
    state = init_state(params, config.optimizer)
    builds = {str(config.data.database): database.build_id}
    position = Position()
    progress = Progress(
        **dataclasses.asdict(position),
        metric=None,
        sampler_state=_sampler_state(config, tasks),
        config=config.model_dump(mode="json"),
        builds=builds,
        embedder=manifest["embedder"],
    )
    run_dir = config.run.path
    with Checkpoints(run_dir, Retention(keep_last=config.train.keep_last)) as checkpoints:
        checkpoints.save("last", state, progress)
    Journal(run_dir, config, [task["name"] for task in tasks], num_parameters, position, CostMeter({})).close()


def _sampler_state(config: RunConfig, tasks: list[dict[str, Any]]) -> str:
    """Where training would begin, so that a run can be fine-tuned; empty where there is nothing to train on."""
    if not tasks or any(task["splits"]["train"] == 0 for task in tasks):
        return ""
    with training_mixture(open_sources(config.data), config) as mixture:
        return mixture.get_state()


def _warnings(header: Header, preset: str, embedder: dict[str, Any]) -> Iterable[str]:
    """What does not forbid predictions and may spoil them."""
    wanted = _embedder(header)
    if wanted not in str(embedder.get("model", "")):
        yield (
            f"the weights read vectors of {wanted}, the database has those of {json.dumps(embedder)}: of equal width, "
            f"but another space; predictions will be poor until it is embedded with {wanted}"
        )
    elsewhere = header.settings.get("model", {}).get("loss_fn")
    if preset == "rt-j" and elsewhere is None:
        yield (
            "no config.json with model.loss_fn beside the weights: booleans are read as z-scores; for weights that "
            "were trained with cross-entropy give --set model.number_output=log-odds"
        )
