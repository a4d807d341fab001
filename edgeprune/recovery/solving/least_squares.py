"""Ridge regression of a layer's kernel from streamed normal equations, group by group."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from edgeprune.accelerator import CPU, exact, where_exact

_ROUNDING = 1e-10
"""Variance below this share of a square is what single precision leaves of a constant."""

_LEAST_PULL = 1e-6
"""Of the variance, in directions in which a metric has none."""


class NormalEquations:
    """Sums for min_W ||X W' + b - T||^2 + ridge ||W - W0||^2, one system for each convolution group.

    X is (rows, groups, d), T is (rows, groups, o). Products are taken in single precision about the means
    of the first rows, so that constant channels leave no noise; sums are float64.
    """

    def __init__(
        self, groups: int, inputs: int, outputs: int, *, solvable: bool = True, device: torch.device = CPU
    ) -> None:
        """``solvable``: false if only biases are needed, so that no products are accumulated."""
        self._solvable = solvable
        kept = inputs if solvable else 0
        nothing = torch.zeros(0, dtype=torch.float64, device=where_exact(device))
        self._xx = nothing.new_zeros(groups, kept, kept)
        self._xt = nothing.new_zeros(groups, kept, outputs)
        self._x = nothing.new_zeros(groups, inputs)
        self._t = nothing.new_zeros(groups, outputs)
        self._x_origin = torch.zeros(groups, inputs).to(device)
        self._t_origin = torch.zeros(groups, outputs).to(device)
        self.rows = 0

    def add(self, x: Tensor, t: Tensor) -> None:
        """Add rows of inputs (rows, groups, d) and targets (rows, groups, o)."""
        if self.rows == 0 and x.shape[0]:
            self._x_origin, self._t_origin = x.mean(0), t.mean(0)
        centred = x - self._x_origin
        if self._solvable:
            by_group = centred.permute(1, 2, 0)
            self._xx += exact(torch.bmm(by_group, by_group.transpose(1, 2)))
        self._x += exact(centred.sum(0))
        self.rows += x.shape[0]
        self.add_targets(x, t)

    def add_targets(self, x: Tensor, t: Tensor) -> None:
        """Add targets only, for inputs already added (see :meth:`with_same_inputs`)."""
        x, t = x - self._x_origin, t - self._t_origin
        if self._solvable:
            self._xt += exact(_across(x, t))
        self._t += exact(t.sum(0))

    def with_same_inputs(self) -> NormalEquations:
        """Equations with the same inputs and no targets yet."""
        again = copy.copy(self)
        again._xt, again._t = torch.zeros_like(self._xt), torch.zeros_like(self._t)
        return again

    def share_inputs(self, other: NormalEquations) -> None:
        """Take the input sums of ``other``, to which the same rows were added."""
        self._xx, self._x, self.rows = other._xx, other._x, other.rows

    def _moments(self, intercept: bool) -> tuple[Tensor, Tensor]:
        """Second moments (X'X, X'T): about the means where a bias is fitted, else about zero."""
        x, t = self._x / self.rows, self._t / self.rows
        xx, xt = self._xx / self.rows, self._xt / self.rows
        xx.baddbmm_(x.unsqueeze(2), x.unsqueeze(1), alpha=-1.0)
        xt.baddbmm_(x.unsqueeze(2), t.unsqueeze(1), alpha=-1.0)
        if not intercept:
            mean_x, mean_t = exact(self._x_origin) + x, exact(self._t_origin) + t
            xx.baddbmm_(mean_x.unsqueeze(2), mean_x.unsqueeze(1))
            xt.baddbmm_(mean_x.unsqueeze(2), mean_t.unsqueeze(1))
        return xx, xt

    def solve(
        self, start: Tensor, *, ridge: float, intercept: bool, metric: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Weights (groups, d, o) and bias (groups, o); ``ridge`` is relative to the mean diagonal of X'X.

        ``metric`` (d, d): penalty matrix of the distance to ``start``, of any scale; default: identity.

        Raises:
            ArithmeticError: the sums contain NaN or infinite values.
        """
        # In place: with 4,000 unknowns, such as of 3x3 kernels over 450 channels, each matrix is 128 MB.
        xx, xt = self._moments(intercept)
        diagonal = torch.diagonal(xx, dim1=1, dim2=2)
        variance = diagonal.mean(dim=1)
        square = variance + (exact(self._x_origin) + self._x / self.rows).square().mean(dim=1)
        weight = torch.maximum(ridge * variance, _ROUNDING * square).clamp_min(1e-12)
        start = exact(start)
        if metric is not None:
            pull = (weight / torch.diagonal(metric).mean().clamp_min(1e-12))[:, None, None] * metric
            xx.add_(pull)
            xt.baddbmm_(pull, start)
            weight = (_LEAST_PULL * variance).clamp_min(1e-12)
        xt.add_(weight[:, None, None] * start)
        diagonal.add_(weight[:, None])
        solved = torch.cholesky_solve(xt, _factor(xx))
        return solved, self.bias(solved, intercept)

    def bias(self, weights: Tensor, intercept: bool) -> Tensor:
        """Optimal bias (groups, o) for these weights; zero without an intercept."""
        if not intercept:
            return torch.zeros_like(self._t)
        mean_x = exact(self._x_origin) + self._x / self.rows
        return exact(self._t_origin) + self._t / self.rows - _times(mean_x, weights)


def _factor(system: Tensor) -> Tensor:
    """Cholesky factors (groups, d, d), the diagonal increased where rounding left a system indefinite.

    Single-precision noise is relative to the largest eigenvalue, far above the smallest one of many
    correlated unknowns. Solutions of such systems are evaluated like all others.
    """
    lift = _ROUNDING
    while True:
        factor, info = torch.linalg.cholesky_ex(system)
        if not info.any():
            return torch.as_tensor(factor)
        if lift > 1.0:
            raise ArithmeticError("normal equations with values that are no numbers")
        lift *= 100.0
        diagonal = torch.diagonal(system, dim1=1, dim2=2)
        failed = (info > 0).to(system.dtype)[:, None]
        system = system + torch.diag_embed(
            failed * lift * diagonal.abs().amax(1, keepdim=True).expand_as(diagonal)
        )


def _times(x: Tensor, weights: Tensor) -> Tensor:
    """Rows (groups, d) times weights (groups, d, o)."""
    return torch.bmm(x.unsqueeze(1), exact(weights)).squeeze(1)


def predicted(x: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
    """Outputs (rows, groups, o) for inputs (rows, groups, d), weights (groups, d, o), bias (groups, o)."""
    weights, bias = weights.to(x), bias.to(x)
    if weights.shape[2] == 1:
        return (x * weights[..., 0]).sum(2, keepdim=True) + bias
    return torch.bmm(x.transpose(0, 1), weights).transpose(0, 1) + bias


def _across(x: Tensor, t: Tensor) -> Tensor:
    """Products (groups, d, o) of rows (rows, groups, d) and (rows, groups, o), summed."""
    if t.shape[2] == 1:  # with a single output, bmm is slower than an elementwise product
        return (x * t).sum(0).unsqueeze(2)
    return torch.bmm(x.permute(1, 2, 0), t.permute(1, 0, 2))


class ChannelMoments:
    """Moments of kept and of all channels, from rows (rows, channels) of the pruned and the original network.

    Products are taken in single precision about the means of the first rows; sums are float64.
    """

    def __init__(self, kept: int, wanted: int, device: torch.device = CPU) -> None:
        nothing = torch.zeros(0, dtype=torch.float64, device=where_exact(device))
        self._square = nothing.new_zeros(kept, kept)
        self._across = nothing.new_zeros(kept, wanted)
        self._sums = (nothing.new_zeros(kept), nothing.new_zeros(wanted))
        self._origins: tuple[Tensor, Tensor] | None = None
        self._rows = 0

    def add(self, kept: Tensor, wanted: Tensor) -> None:
        """Add rows of both networks."""
        if self._origins is None:
            self._origins = kept.mean(0), wanted.mean(0)
        x, y = kept - self._origins[0], wanted - self._origins[1]
        self._square += exact(x.T @ x)
        self._across += exact(x.T @ y)
        self._sums[0].add_(exact(x.sum(0)))
        self._sums[1].add_(exact(y.sum(0)))
        self._rows += len(x)

    def covariance(self) -> Tensor:
        """Covariance (kept, kept) of the kept channels."""
        mean = self._sums[0] / max(1, self._rows)
        return self._square / max(1, self._rows) - mean[:, None] * mean

    def maps(self, ridges: Sequence[float]) -> list[Tensor]:
        """Linear maps (wanted, kept) that best predict all channels from the kept ones, one per ridge.

        Ridge regression on channel Gram matrices, cf. GRAIL, arXiv 2602.23795.
        """
        rows = max(1, self._rows)
        gram = self.covariance()
        across = self._across / rows - (self._sums[0] / rows)[:, None] * (self._sums[1] / rows)
        level = torch.diagonal(gram).mean().clamp_min(1e-12)
        eye = torch.eye(len(gram), dtype=torch.float64, device=gram.device)
        return [torch.linalg.solve(gram + ridge * level * eye, across).T for ridge in ridges]
