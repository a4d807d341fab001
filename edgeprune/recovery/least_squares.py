"""Ridge regression of a layer's kernel from streamed normal equations, group by group."""

from __future__ import annotations

import torch
from torch import Tensor


class NormalEquations:
    """Sums for min_W ||X W' + b - T||^2 + ridge ||W - W0||^2, one system for each convolution group.

    X is (rows, groups, d), T is (rows, groups, o). All sums are float64.
    """

    def __init__(self, groups: int, inputs: int, outputs: int) -> None:
        self._xx = torch.zeros(groups, inputs, inputs, dtype=torch.float64)
        self._xt = torch.zeros(groups, inputs, outputs, dtype=torch.float64)
        self._x = torch.zeros(groups, inputs, dtype=torch.float64)
        self._t = torch.zeros(groups, outputs, dtype=torch.float64)
        self._tt = torch.zeros(groups, outputs, dtype=torch.float64)
        self.rows = 0

    def add(self, x: Tensor, t: Tensor) -> None:
        """Add rows of inputs (rows, groups, d) and targets (rows, groups, o)."""
        by_group = x.permute(1, 2, 0)
        self._xx += torch.bmm(by_group, by_group.transpose(1, 2)).double()
        self._xt += torch.bmm(by_group, t.permute(1, 0, 2)).double()
        self._x += x.sum(0).double()
        self._t += t.sum(0).double()
        self._tt += t.double().square().sum(0)
        self.rows += x.shape[0]

    def _moments(self, intercept: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Second moments (G, C, power of T), centred where a bias is fitted."""
        xx, xt, tt = self._xx / self.rows, self._xt / self.rows, self._tt / self.rows
        if intercept:
            x, t = self._x / self.rows, self._t / self.rows
            xx = xx - x.unsqueeze(2) * x.unsqueeze(1)
            xt = xt - x.unsqueeze(2) * t.unsqueeze(1)
            tt = tt - t.square()
        return xx, xt, tt

    def solve(self, start: Tensor, *, ridge: float, intercept: bool) -> tuple[Tensor, Tensor]:
        """Weights (groups, d, o) and bias (groups, o); ``ridge`` is relative to the mean diagonal of X'X.

        Raises:
            torch.linalg.LinAlgError: the system is not positive definite even with the ridge.
        """
        xx, xt, _ = self._moments(intercept)
        diagonal = torch.diagonal(xx, dim1=1, dim2=2)
        weight = ridge * diagonal.mean(dim=1).clamp_min(1e-12)
        eye = torch.eye(xx.shape[1], dtype=torch.float64)
        system = xx + weight[:, None, None] * eye
        factor = torch.linalg.cholesky(system)
        solved = torch.cholesky_solve(xt + weight[:, None, None] * start.double(), factor)
        return solved, self.bias(solved, intercept)

    def bias(self, weights: Tensor, intercept: bool) -> Tensor:
        """The bias (groups, o) that fits best with these weights; zero without an intercept."""
        if not intercept:
            return torch.zeros_like(self._t)
        shift = torch.bmm(self._x.unsqueeze(1), weights.double()).squeeze(1)
        return (self._t - shift) / self.rows

    def relative_error(self, weights: Tensor, bias: Tensor) -> float:
        """||X W + b - T||^2 over the power of T about its mean."""
        w = weights.double()
        quadratic = (w * torch.bmm(self._xx, w)).sum(1)
        cross = (w * self._xt).sum(1)
        mean_fit = torch.bmm(self._x.unsqueeze(1), w).squeeze(1)
        residual = quadratic - 2 * cross + self._tt
        residual += self.rows * bias.square() + 2 * bias * (mean_fit - self._t)
        power = (self._tt - self._t.square() / self.rows).sum().clamp_min(1e-12)
        return float(residual.sum().clamp_min(0) / power)


def channel_map(kept: Tensor, wanted: Tensor, *, ridge: float) -> Tensor:
    """Linear map (wanted, kept) that best expresses the original channels by those that stay.

    Both are rows of centred activations (rows, channels) (ridge on channel Gram matrices, cf. GRAIL,
    arXiv 2602.23795).
    """
    kept = (kept - kept.mean(0)).double()
    wanted = (wanted - wanted.mean(0)).double()
    gram = kept.T @ kept
    gram += ridge * torch.diagonal(gram).mean().clamp_min(1e-12) * torch.eye(len(gram), dtype=torch.float64)
    mapping: Tensor = torch.linalg.solve(gram, kept.T @ wanted)
    return mapping.T
