"""Random numbers and hashes of the oracle: `documentation/sampling.md`, "Random numbers", "Order of the seeds"."""

from __future__ import annotations

from collections.abc import Sequence

GOLDEN, WORD = 0x9E3779B97F4A7C15, 2**64 - 1


def mix(w: int) -> int:
    w = (w ^ (w >> 30)) * 0xBF58476D1CE4E5B9 & WORD
    w = (w ^ (w >> 27)) * 0x94D049BB133111EB & WORD
    return w ^ (w >> 31)


def hash_words(domain: int, words: Sequence[int]) -> int:
    state = domain
    for word in words:
        state = mix(((state ^ word) + GOLDEN) & WORD)
    return state


class Rng:
    def __init__(self, state: int) -> None:
        self.state = state

    def next(self) -> int:
        self.state = (self.state + GOLDEN) & WORD
        return mix(self.state)

    def below(self, bound: int) -> int:
        while True:
            product = (self.next() >> 32) * bound
            if product % 2**32 >= 2**32 % bound:
                return product >> 32


def permute(idx: int, length: int, key: int) -> int:
    bits = 1
    while 4**bits < length:
        bits += 1
    mask = 2**bits - 1
    while True:
        left, right = idx >> bits, idx & mask
        for round_ in range(6):
            left, right = right, left ^ (mix(right ^ hash_words(2, [key, round_])) & mask)
        idx = left << bits | right
        if idx < length:
            return idx


def xxh3_64(data: bytes) -> int:
    """XXH3 of 4 to 16 bytes, seed 0; after the specification at github.com/Cyan4973/xxHash."""

    def word(start: int, size: int = 8) -> int:
        return int.from_bytes(data[start : start + size], "little")

    def secret(start: int) -> int:
        text = "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
        text += "cb79e64eccc0e578825ad07dccff7221b8084674f743248e"
        return int.from_bytes(bytes.fromhex(text)[start : start + 8], "little")

    size = len(data)
    if 4 <= size <= 8:
        h = (word(size - 4, 4) + (word(0, 4) << 32)) ^ (secret(8) ^ secret(16))
        h ^= (h << 49 | h >> 15) & WORD ^ (h << 24 | h >> 40) & WORD
        h = h * 0x9FB21C651E98DF25 & WORD
        h = (h ^ ((h >> 35) + size)) * 0x9FB21C651E98DF25 & WORD
        return h ^ (h >> 28)
    assert 9 <= size <= 16, "no more is needed here"
    low, high = word(0) ^ secret(24) ^ secret(32), word(size - 8) ^ secret(40) ^ secret(48)
    swapped = int.from_bytes(low.to_bytes(8, "little"), "big")
    product = low * high
    h = (size + swapped + high + ((product & WORD) ^ (product >> 64))) & WORD
    h = (h ^ (h >> 37)) * 0x165667919E3779F9 & WORD
    return h ^ (h >> 32)
