"""The forward pass of all-MiniLM-L6-v2 in JAX: a six-layer BERT, mean pooling, unit length.

Pure functions of parameters and token ids; files, batching and devices are the business of `local`.

Source: Wang et al., MiniLM, arXiv:2002.10957; Reimers and Gurevych, Sentence-BERT, arXiv:1908.10084, section 3 (mean
pooling). The layers are scanned rather than unrolled: one layer is compiled instead of six.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

WIDTH = 384
MAX_TOKENS = 256
_LAYERS = 6
_HEADS = 12
_EPSILON = 1e-12

Parameters = dict[str, Any]


def parameters_from(tensors: dict[str, npt.NDArray[np.float32]], projection: npt.NDArray[np.float32]) -> Parameters:
    """The parameters in the shapes that `sentence_vectors` reads.

    Args:
        tensors: What `model.safetensors` holds, by name.
        projection: float32 [384, D]; the pooled vector is multiplied by it.

    Returns:
        Arrays by name; those of the layers are stacked on a first axis of 6.
    """

    def stacked(name: str) -> npt.NDArray[np.float32]:
        return np.stack([tensors[f"encoder.layer.{idx}.{name}"] for idx in range(_LAYERS)])

    def dense(name: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        return stacked(f"{name}.weight").swapaxes(1, 2), stacked(f"{name}.bias")

    def norm(name: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        return stacked(f"{name}.LayerNorm.weight"), stacked(f"{name}.LayerNorm.bias")

    attention = [dense(f"attention.self.{part}") for part in ("query", "key", "value")]
    position = tensors["embeddings.position_embeddings.weight"][:MAX_TOKENS]
    return {
        "word": tensors["embeddings.word_embeddings.weight"],
        "position": position + tensors["embeddings.token_type_embeddings.weight"][0],
        "norm": (tensors["embeddings.LayerNorm.weight"], tensors["embeddings.LayerNorm.bias"]),
        "layers": {
            "qkv": tuple(np.concatenate(part, axis=-1) for part in zip(*attention, strict=True)),
            "attention_out": dense("attention.output.dense"),
            "attention_norm": (
                stacked("attention.output.LayerNorm.weight"),
                stacked("attention.output.LayerNorm.bias"),
            ),
            "up": dense("intermediate.dense"),
            "down": dense("output.dense"),
            "norm": norm("output"),
        },
        "projection": projection,
    }


def sentence_vectors(parameters: Parameters, ids: jax.Array, num_tokens: jax.Array) -> jax.Array:
    """The vectors of a batch of texts.

    Args:
        parameters: What `parameters_from` returns.
        ids: int32 [B, S], token ids; what follows the tokens of a text is ignored.
        num_tokens: int32 [B], tokens of each text, at least 1.

    Returns:
        float32 [B, D], every row of length one.
    """
    S = ids.shape[1]
    is_token = jnp.arange(S, dtype=jnp.int32) < num_tokens[:, None]
    x = _normalised(parameters["word"][ids] + parameters["position"][:S], *parameters["norm"])
    x, _ = jax.lax.scan(lambda x, layer: (_layer(layer, x, is_token), None), x, parameters["layers"])
    pooled = jnp.einsum("bsd,bs->bd", x, is_token.astype(x.dtype)) / num_tokens[:, None].astype(x.dtype)
    vectors = pooled @ parameters["projection"]
    unit: jax.Array = vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True)
    return unit


def _layer(layer: Parameters, x: jax.Array, is_token: jax.Array) -> jax.Array:
    B, S, _ = x.shape
    head_width = WIDTH // _HEADS
    q, k, v = jnp.moveaxis(_dense(layer["qkv"], x).reshape(B, S, 3, _HEADS, head_width), 2, 0)
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / np.float32(np.sqrt(head_width))
    scores = jnp.where(is_token[:, None, None, :], scores, np.float32(-1e30))
    mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores, axis=-1), v).reshape(B, S, WIDTH)
    x = _normalised(x + _dense(layer["attention_out"], mixed), *layer["attention_norm"])
    hidden = jax.nn.gelu(_dense(layer["up"], x), approximate=False)
    return _normalised(x + _dense(layer["down"], hidden), *layer["norm"])


def _dense(weights: tuple[jax.Array, jax.Array], x: jax.Array) -> jax.Array:
    return x @ weights[0] + weights[1]


def _normalised(x: jax.Array, scale: jax.Array, shift: jax.Array) -> jax.Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = jnp.square(centred).mean(axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(variance + np.float32(_EPSILON)) * scale + shift
