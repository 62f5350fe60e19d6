"""What is pulled: images of layers, some of which they share. All of it follows from the seed."""

from __future__ import annotations

import math
import random
from array import array
from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate

from .inputs import DAY, Images

_P90 = 1.2815515655  # of the standard normal distribution


@dataclass(frozen=True, slots=True)
class Image:
    """Numbers of contents. `documents` are asked for one after the other, then all the others."""

    documents: tuple[int, ...]
    others: tuple[int, ...]


class Catalogue:
    """All images by popularity, and each of their versions. `sizes`: of every content, by number.

    Contents get their numbers as they are first asked for; another catalogue of the same seed
    gives the same versions of the same images the same sizes, and by `names` one knows which."""

    def __init__(self, images: Images, seed: int, wave: float = 500e6) -> None:
        self._images = images
        self._wave = wave
        self._seed = seed
        self.sizes = array("d")
        self.names: list[tuple[int, int, int]] = []
        self._versions: dict[tuple[int, int], Image] = {}
        self._bases: dict[int, list[int]] = {}
        self._weights = list(accumulate(n**-images.zipf for n in range(1, images.count + 1)))
        self._base_weights = list(accumulate(1 / n for n in range(1, images.bases + 1)))
        chance = random.Random(f"{seed} phases")
        self._phases = [chance.random() for _ in range(images.count)]

    def drawn(self, chance: random.Random) -> int:
        """The number of an image, by popularity."""
        return _drawn(self._weights, chance)

    def version(self, image: int, at: float) -> int:
        return math.floor(at / DAY * self._images.changes + self._phases[image % len(self._phases)])

    def image(self, image: int, version: int) -> Image:
        """An image beyond `Images.count` is one that was never pulled before: a wave's, of `wave`
        bytes."""
        key = (image, version)
        found = self._versions.get(key)
        if found is None:
            found = self._versions[key] = self._made(image, version)
        return found

    def _made(self, image: int, version: int) -> Image:
        size, parts = self._drawn_image(random.Random(f"{self._seed} image {image}"))
        if image >= self._images.count:
            size = self._wave
        chance = random.Random(f"{self._seed} image {image} version {version}")
        base = self._base(_drawn(self._base_weights, random.Random(f"{self._seed} base {image}")))
        shared = base[: min(round(len(parts) * self._images.shared), len(base))]
        own = [part * size * chance.uniform(0.9, 1.1) for part in parts[len(shared) :]]
        names = [self._content(each, image, version, n) for n, each in enumerate(own, 3)]
        index = self._content(self._images.manifest, image, version, 0)
        manifest = self._content(self._images.manifest, image, version, 1)
        config = self._content(self._images.config, image, version, 2)
        return Image((index, manifest), (config, *shared, *names))

    def _base(self, number: int) -> list[int]:
        found = self._bases.get(number)
        if found is None:
            size, parts = self._drawn_image(random.Random(f"{self._seed} base image {number}"))
            found = [self._content(part * size, -1 - number, 0, n) for n, part in enumerate(parts)]
            self._bases[number] = found
        return found

    def _drawn_image(self, chance: random.Random) -> tuple[float, list[float]]:
        """The size of an image, and what part of it each layer has."""
        images = self._images
        size = images.largest + 1
        while size > images.largest:
            size = lognormal(chance, images.median, images.p90)
        count = round(lognormal(chance, images.layers_median, images.layers_p90))
        count = max(1, min(count, images.layers_most))
        weights = [math.exp(chance.gauss(0, images.uneven)) for _ in range(count)]
        return size, [weight / sum(weights) for weight in weights]

    def _content(self, size: float, *name: int) -> int:
        self.sizes.append(max(32.0, size))
        self.names.append((name[0], name[1], name[2]))
        return len(self.sizes) - 1


def lognormal(chance: random.Random, median: float, p90: float) -> float:
    return median * math.exp(chance.gauss(0, math.log(p90 / median) / _P90))


def _drawn(weights: list[float], chance: random.Random) -> int:
    return bisect_left(weights, chance.random() * weights[-1])
