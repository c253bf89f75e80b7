"""Makes the frozen projection of the local model: `python scripts/make_projection.py [FILE]`.

Writes a corpus of generic phrases, embeds it at full width and keeps the 256 strongest directions of its uncentred
principal component analysis. The corpus takes its words from the model's own vocabulary, so it favours no database:
single words, names, "column is value", "column of table", and word salads up to the length of a review.

The file in the repository was made once and is frozen: its sha256 is recorded in every database. Another file makes
another embedding space.
"""

import json
import random
import sys
from pathlib import Path

import numpy as np

from tributary.embed.local import LocalEmbedder
from tributary.embed.projection import FILE, FULL_WIDTH, MAX_DIMENSION
from tributary.embed.weights import find_weights

_TEXTS = 6000
_GLUE = ["the", "of", "and", "in", "to", "a", "with", "for", "is", "on", "was", "not", "by", "very"]


def _words() -> list[str]:
    tokenizer = json.loads((find_weights() / "tokenizer.json").read_text(encoding="utf-8"))
    tokens = tokenizer["model"]["vocab"]
    return [word for word in sorted(tokens) if word.isascii() and word.isalpha() and len(word) > 2]


def _corpus(words: list[str], rng: random.Random) -> list[str]:
    def salad(size: int) -> str:
        return " ".join(rng.choice(_GLUE) if rng.random() < 0.4 else rng.choice(words) for _ in range(size))

    makers = [
        lambda: rng.choice(words),
        lambda: f"{rng.choice(words).title()} {rng.choice(words).title()}",
        lambda: f"{rng.choice(words)} is {rng.choice(words)}",
        lambda: f"{rng.choice(words)} is {rng.choice(words)} {rng.choice(words)}",
        lambda: f"{rng.choice(words)} is {rng.randrange(10 ** rng.randrange(1, 6))}",
        lambda: f"{rng.choice(words)} {rng.choice(words)} of {rng.choice(words)}",
        lambda: salad(rng.randrange(5, 12)),
        lambda: salad(rng.randrange(12, 30)),
    ]
    return [makers[idx % len(makers)]() for idx in range(_TEXTS)]


def main() -> None:
    """Writes the projection."""
    default = Path(__file__).resolve().parent.parent / "python" / "tributary" / "embed" / FILE
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    texts = _corpus(_words(), random.Random(20))
    vectors = LocalEmbedder(FULL_WIDTH).embed(texts).astype(np.float64)
    strengths, directions = np.linalg.eigh(vectors.T @ vectors / len(vectors))
    strongest = directions[:, ::-1][:, :MAX_DIMENSION]
    strongest *= np.sign(strongest[np.abs(strongest).argmax(axis=0), np.arange(MAX_DIMENSION)])
    np.save(target, strongest.astype(np.float16))
    kept = strengths[::-1][:MAX_DIMENSION].sum() / strengths.sum()
    print(f"{target}: {len(texts):,} texts, {kept:.2%} of their length kept in {MAX_DIMENSION} dimensions")


if __name__ == "__main__":
    main()
