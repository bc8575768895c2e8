"""Powers of a transition matrix from few products with it, by a Chebyshev series.

x^t = sum over k = t, t - 2, ... >= 0 of c_k T_k(x) with c_k = 2^(1 - t) binom(t, (t - k) / 2), the
one of k = 0 halved (Mason, Handscomb, "Chebyshev Polynomials", 2002, section 2.3.1). All c_k are
positive, their sum is 1, and |T_k| <= 1 on [-1, 1], where the eigenvalues of a random walk lie. So
the series can end where the sum of the rest is small: 1e-8 after 6 sqrt(t) terms. The T_k do not
depend on t: one recurrence gives any number of powers.
"""

from collections.abc import Callable, Sequence
from math import exp, lgamma, log
from typing import Any, TypeVar

import numpy as np

Array = TypeVar("Array", bound=Any)
"""Of numpy or torch."""


def power_coefficients(num_steps: int) -> np.ndarray:
    """(t + 1,) float64 coefficients c_k of x^t in T_0 ... T_t."""
    t = num_steps
    coefficients = np.zeros(t + 1)
    for k in range(t, -1, -2):
        low, high = (t - k) // 2, (t + k) // 2
        binomial = lgamma(t + 1) - lgamma(low + 1) - lgamma(high + 1)
        coefficients[k] = exp(binomial + (1 - t) * log(2)) / (2 if k == 0 else 1)
    return coefficients


def truncated_coefficients(num_steps: int, tail: float) -> np.ndarray:
    """The leading coefficients of x^t; the sum of those left out is at most `tail`."""
    coefficients = power_coefficients(num_steps)
    rest = np.cumsum(coefficients[::-1])[::-1]
    return coefficients[: max(1, int((rest > tail).sum()))]


def powers(
    multiply: Callable[[Array], Array], start: Array, steps: Sequence[int], tail: float
) -> list[Array]:
    """start T^t for each t of `steps`.

    Args:
        multiply: gives x T of an x like `start`. T has real eigenvalues in [-1, 1].
        tail: bound of the error, for every row vector x of `start`. For T = A D^-1 with a symmetric
            A it holds in the norm sqrt(sum_j d_j x_j^2): the error is at most `tail` times that of
            x.
    """
    series = [truncated_coefficients(t, tail).tolist() for t in steps]
    totals = [start * coefficients[0] for coefficients in series]
    previous, current = start, start
    for k in range(1, max(map(len, series), default=0)):
        product = multiply(current)
        previous, current = current, product if k == 1 else product + product - previous
        for total, coefficients in zip(totals, series, strict=True):
            if k < len(coefficients) and coefficients[k] > 0:
                total += coefficients[k] * current
    return totals
