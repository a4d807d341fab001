"""Shapley values of cooperative games, in numpy alone: one estimator per file, one result type.

A game is a ``CoalitionGame`` of any function of coalitions (``game``); ``CountedGame`` counts, caches and
limits its evaluations, ``JournaledGame`` stores them on disk across runs. ``hybrid`` values the players by
the estimator that fits the limit and ``choose_removal`` selects players to remove. Behind them, each
usable alone: ``exact`` (and ``CoalitionTable`` for sub-games, trajectories and oracles), ``permutation``,
``adjusted``, ``least_squares``, ``semivalue``, ``partial``, ``race``, ``refine``, ``beam_removal``;
``multilinear`` and ``corrected`` for differentiable games; and ``thesis_hybrid``, the published procedure
that this project started from.
"""

from edgeprune.artifacts.pruning import Aggregate
from edgeprune.shapley.checkpoint import FileCheckpoint
from edgeprune.shapley.estimate import Estimate, Method
from edgeprune.shapley.estimators.adjusted import adjusted
from edgeprune.shapley.estimators.correction import corrected
from edgeprune.shapley.estimators.exact import CoalitionTable, Trajectory, exact, exact_estimate
from edgeprune.shapley.estimators.hybrid import Removal, choose_removal, hybrid
from edgeprune.shapley.estimators.least_squares import SizeSampling, least_squares
from edgeprune.shapley.estimators.multilinear import DerivativeWeights, multilinear
from edgeprune.shapley.estimators.partial import partial
from edgeprune.shapley.estimators.permutation import Orders, permutation
from edgeprune.shapley.estimators.racing import Race, race
from edgeprune.shapley.estimators.refine import BeamRun, Refinement, beam_removal, refine
from edgeprune.shapley.estimators.semivalue import (
    SHAPLEY,
    BanzhafLaw,
    BetaLaw,
    CoalitionLaw,
    KeptSizeLaw,
    semivalue,
)
from edgeprune.shapley.estimators.thesis import ThesisRun, thesis_hybrid
from edgeprune.shapley.game import CoalitionGame, CountedGame, DifferentiableGame, Game, all_coalitions
from edgeprune.shapley.journal import JournaledGame
from edgeprune.shapley.subgame import RemainingGame, SubGame

__all__ = [
    "SHAPLEY",
    "Aggregate",
    "BanzhafLaw",
    "BeamRun",
    "BetaLaw",
    "CoalitionGame",
    "CoalitionLaw",
    "CoalitionTable",
    "CountedGame",
    "DerivativeWeights",
    "DifferentiableGame",
    "Estimate",
    "FileCheckpoint",
    "Game",
    "JournaledGame",
    "KeptSizeLaw",
    "Method",
    "Orders",
    "Race",
    "Refinement",
    "RemainingGame",
    "Removal",
    "SizeSampling",
    "SubGame",
    "ThesisRun",
    "Trajectory",
    "adjusted",
    "all_coalitions",
    "beam_removal",
    "choose_removal",
    "corrected",
    "exact",
    "exact_estimate",
    "hybrid",
    "least_squares",
    "multilinear",
    "partial",
    "permutation",
    "race",
    "refine",
    "semivalue",
    "thesis_hybrid",
]
