"""Compiled dense CRF on permutohedral lattices: pydensecrf's result in a fraction of its time.

Source: Krähenbühl, Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge
Potentials" (NeurIPS 2011). With Potts compatibility only differences of labels matter, and the
filter is linear. So L labels need L - 1 channels, Q_l - Q_0, which give logits relative to label 0.
Slice, softmax and the next splat are one pass over the pixels. Several unaries of an image share
the pass and its look-ups of vertices. With two labels, one pass per unary takes 1.3 times as long.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np

from slams_ray.refinement.crf.compilation import compiled
from slams_ray.refinement.crf.kernels import (
    Crf,
    CrfKernels,
    check_image,
    check_num_labels,
    check_unary,
)
from slams_ray.refinement.crf.lattice import Lattice, blur, build_lattice
from slams_ray.refinement.crf.lattice_points import kernel_points, relative_energy

BLOCK = 256
"""Pixels updated at a time. The softmax vectorises over them."""
UNROLLED = (8, 4, 3, 2, 1)
"""Numbers of channels with compiled code of their own."""
LOG2_E = np.float32(np.log2(np.e))
LN2 = np.log(2.0)
A1, A2, A3, A4, A5, A6 = (
    np.float32(c) for c in (LN2, LN2**2 / 2, LN2**3 / 6, LN2**4 / 24, LN2**5 / 120, LN2**6 / 720)
)

Pair = tuple[np.ndarray, np.ndarray]
Kernel = tuple[np.ndarray, np.ndarray, np.ndarray, np.float32, tuple[int, ...]]
"""Vertices, weights and neighbours of a `Lattice`, compatibility, and a tuple of d + 1 numbers. The
compiler knows its length."""


class LatticeCrf(Crf):
    """Mean-field inference on one image, whose lattices are built once.

    Args:
        image: (H, W, 3) uint8 RGB.
        num_labels: L >= 2; the lattices do not depend on it.
    """

    def __init__(self, image: np.ndarray, num_labels: int, kernels: CrfKernels) -> None:
        check_image(image)
        check_num_labels(num_labels)
        self._shape = (num_labels, *image.shape[:2])
        self._first, self._second = (
            _arrays(build_lattice(features), compat)
            for features, compat in kernel_points(image, kernels)
        )

    def infer_all(self, unaries: Iterable[np.ndarray], iterations: int) -> Iterator[np.ndarray]:
        """Yields the posterior of each energy. Holds as many energies as share a pass."""
        num_channels = self._shape[0] - 1
        waiting = iter(unaries)
        while group := list(islice(waiting, num_together(UNROLLED[0], num_channels))):
            while group:
                num_shared = num_together(len(group), num_channels)
                yield from self._infer_together(group[:num_shared], iterations)
                group = group[num_shared:]

    def _infer_together(self, unaries: Sequence[np.ndarray], iterations: int) -> np.ndarray:
        """Returns the (G, L, H, W) posteriors of G energies, computed in one pass."""
        for unary in unaries:
            check_unary(unary, self._shape)
        energy = np.concatenate([relative_energy(unary) for unary in unaries])
        num_channels = len(energy)
        unrolled = (0,) * num_channels if num_channels in UNROLLED else ()
        posterior = np.empty((len(unaries), self._shape[0], energy.shape[1]), np.float32)
        kernels = (self._first, self._second)
        values, spare = self._zeros(num_channels), self._zeros(num_channels)
        # Update 0 reads zeros from the lattices, so it is the softmax of the unary.
        for iteration in range(iterations + 1):
            if iteration > 0:
                for kernel, filled, other in zip(kernels, values, spare, strict=True):
                    blur(filled, other, kernel[2], unrolled, num_channels)
                    other[:] = 0
            _update(energy, posterior, kernels, values, spare, unrolled, iteration == iterations)
            values, spare = spare, values
        return posterior.reshape(-1, *self._shape)

    def _zeros(self, num_channels: int) -> Pair:
        sizes = [(k[2].shape[1] + 1) * num_channels for k in (self._first, self._second)]
        return np.zeros(sizes[0], np.float32), np.zeros(sizes[1], np.float32)


def num_together(num_unaries: int, num_channels: int) -> int:
    """Returns how many of the unaries share the next pass, at least 1."""
    fitting = (width // num_channels for width in UNROLLED if width % num_channels == 0)
    return next((number for number in fitting if number <= num_unaries), 1)


def _arrays(lattice: Lattice, compat: float) -> Kernel:
    corners = (0,) * lattice.vertices.shape[1]
    return lattice.vertices, lattice.weights, lattice.neighbours, np.float32(compat), corners


@compiled
def _update(
    energy: np.ndarray,
    posterior: np.ndarray,
    kernels: tuple[Kernel, Kernel],
    values: Pair,
    following: Pair,
    unrolled: tuple[int, ...],
    is_last: bool,
) -> None:
    """Updates all pixels in parallel: slice, softmax, and splat, or output in the last update.

    Args:
        energy: (G * C, N) float32 of G unaries, energy of label 0 minus energy of label 1..C.
        posterior: (G, C + 1, N) float32, filled by the last update.
        values: blurred values on both lattices, as in `blur`.
        following: zeros, filled with the new values by every update but the last.
        unrolled: G * C numbers, or none (see `blur`).
    """
    first, second = kernels
    num_channels, num_pixels = energy.shape
    num_unaries = len(posterior)
    own = num_channels // num_unaries
    # The rows of the channels come first, then a row of label 0 for each unary.
    state = np.empty((num_channels + num_unaries, BLOCK), np.float32)
    scratch = np.empty((2, BLOCK), np.float32)
    for start in range(0, num_pixels, BLOCK):
        stop = min(start + BLOCK, num_pixels)
        size = stop - start
        channels, zeroth = state[:num_channels], state[num_channels:]
        channels[:, :size] = energy[:, start:stop]
        _slice(channels, values[0], start, stop, first, unrolled)
        _slice(channels, values[1], start, stop, second, unrolled)
        for u in range(num_unaries):
            others = channels[u * own : (u + 1) * own]
            _softmax(others, zeroth[u], scratch, size)
            if is_last:
                posterior[u, 0, start:stop] = zeroth[u, :size]
                posterior[u, 1:, start:stop] = others[:, :size]
                continue
            for c in range(own):
                for b in range(size):
                    others[c, b] -= zeroth[u, b]
        if not is_last:
            _splat(following[0], channels, start, stop, first, unrolled)
            _splat(following[1], channels, start, stop, second, unrolled)


@compiled
def _slice(
    state: np.ndarray,
    values: np.ndarray,
    start: int,
    stop: int,
    kernel: Kernel,
    unrolled: tuple[int, ...],
) -> None:
    """Adds the filtered values of a lattice to the logits of the pixels."""
    vertices, weights, _, compat, corners = kernel
    channels = len(unrolled) if len(unrolled) else len(state)
    for n in range(start, stop):
        for k in range(len(corners)):
            vertex = np.uint64(vertices[n, k]) * np.uint64(channels)
            weight = compat * weights[n, k]
            for c in range(channels):
                state[c, n - start] += weight * values[vertex + np.uint64(c)]


@compiled
def _splat(
    values: np.ndarray,
    state: np.ndarray,
    start: int,
    stop: int,
    kernel: Kernel,
    unrolled: tuple[int, ...],
) -> None:
    """Spreads the pixels' channels over a lattice."""
    vertices, weights, _, _, corners = kernel
    channels = len(unrolled) if len(unrolled) else len(state)
    for n in range(start, stop):
        for k in range(len(corners)):
            vertex = np.uint64(vertices[n, k]) * np.uint64(channels)
            weight = weights[n, k]
            for c in range(channels):
                values[vertex + np.uint64(c)] += weight * state[c, n - start]


@compiled
def _softmax(state: np.ndarray, zeroth: np.ndarray, scratch: np.ndarray, size: int) -> None:
    """Turns logits relative to label 0 into probabilities. Fills zeroth with those of label 0."""
    top, total = scratch
    if len(state) == 1:
        _softmax_of_two(state[0], zeroth, total, size)
        return
    top[:size] = 0
    for c in range(len(state)):
        for b in range(size):
            top[b] = max(top[b], state[c, b])
    for b in range(size):
        zeroth[b] = -top[b]
    _exp(zeroth[:size])
    total[:size] = zeroth[:size]
    for c in range(len(state)):
        for b in range(size):
            state[c, b] -= top[b]
        _exp(state[c, :size])
        for b in range(size):
            total[b] += state[c, b]
    for b in range(size):
        zeroth[b] /= total[b]
    for c in range(len(state)):
        for b in range(size):
            state[c, b] /= total[b]


@compiled
def _softmax_of_two(logit: np.ndarray, zeroth: np.ndarray, scratch: np.ndarray, size: int) -> None:
    """Does the same for one channel, with one exponential for both labels."""
    for b in range(size):
        scratch[b] = -abs(logit[b])
    _exp(scratch[:size])
    for b in range(size):
        larger = np.float32(1) / (np.float32(1) + scratch[b])
        smaller = scratch[b] * larger
        positive = logit[b] > 0
        zeroth[b] = smaller if positive else larger
        logit[b] = larger if positive else smaller


@compiled
def _exp(x: np.ndarray) -> None:
    """Computes exp of numbers <= 0 in place, to a relative error of 2e-7.

    numba's own exp does not vectorise. Here exp is 2^(whole + rest): the whole part becomes the
    exponent bits of a float, and a power series gives 2^rest.
    """
    bits = np.empty(x.size, np.int32)
    power = bits.view(np.float32)
    for b in range(x.size):
        exponent = max(x[b], np.float32(-87)) * LOG2_E
        whole = np.rint(exponent)
        r = exponent - whole
        bits[b] = (np.int32(whole) + 127) << 23
        x[b] = np.float32(1) + r * (A1 + r * (A2 + r * (A3 + r * (A4 + r * (A5 + r * A6)))))
    for b in range(x.size):
        x[b] *= power[b]


def compile_ahead() -> None:
    """Fills numba's cache with the code for `UNROLLED`, so that no worker waits for compilation."""
    kernels = CrfKernels(
        gaussian_sxy_px=1.0,
        gaussian_compat=1.0,
        bilateral_sxy_px=1.0,
        bilateral_srgb=1.0,
        bilateral_compat=1.0,
    )
    image = np.zeros((2, 2, 3), np.uint8)
    for num_channels in UNROLLED:
        unary = np.zeros((num_channels + 1, 2, 2))
        LatticeCrf(image, num_channels + 1, kernels).infer(unary, 1)
