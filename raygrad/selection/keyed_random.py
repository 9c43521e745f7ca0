"""Random numbers that belong to examples: functions of (seed, key) and of nothing else."""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def key_hashes(keys: Iterable[str]) -> NDArray[np.uint64]:
    """Returns a stable 64-bit hash of each key: blake2b of its UTF-8 bytes, little endian.

    The same on every machine and in every version; the index stores it.
    """
    blake2b = hashlib.blake2b
    digests = b"".join(blake2b(key.encode(), digest_size=8).digest() for key in keys)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def random_bits(seed: int, hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Returns 64 random bits for each key hash, a function of (seed, hash) alone.

    Two rounds of the SplitMix64 finaliser, the first over the seed: counter-based, so that any
    worker computes any example's number without the others'.
    """
    with np.errstate(over="ignore"):
        start = _mix(np.array([seed % 2**64], np.uint64) + _GOLDEN)
        return _mix(_mix(hashes ^ start) + _GOLDEN)


def random_uniform(seed: int, hashes: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Returns a uniform number in (0, 1) for each key hash; never 0 or 1."""
    return ((random_bits(seed, hashes) >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
