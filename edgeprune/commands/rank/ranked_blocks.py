"""Residual blocks as players: their Shapley values, and the quality of the network without each."""

from __future__ import annotations

import contextlib
import math

import numpy as np
from numpy.typing import NDArray

from edgeprune import parity
from edgeprune.artifacts.quality import AccuracyKind
from edgeprune.commands.rank.removal_curves import without_a_part
from edgeprune.commands.run.scoring import original_outputs
from edgeprune.commands.run.state import Prepared, Run
from edgeprune.errors import UsageError
from edgeprune.games.block_game import BlockGame, ResidualBlock, block_module, find_blocks
from edgeprune.games.masked_game import MaskedGame
from edgeprune.importance.journals import Journals
from edgeprune.reporting.ranking.facts import BlockRanking, BlockScore
from edgeprune.shapley.estimate import Estimate
from edgeprune.shapley.estimators.hybrid import hybrid
from edgeprune.shapley.game import Game
from edgeprune.system import progress

MOST_EXACT = 14
_EVALUATIONS_PER_BLOCK = 20
_WORK_MACS = 8e12
_FEWEST_IMAGES = 32
_IMAGES_AT_ONCE = 128


def rank_blocks(
    run: Run,
    prepared: Prepared,
    *,
    max_evaluations: int | None,
    memory_limit_bytes: int,
    journals: Journals | None,
) -> tuple[BlockRanking, str]:
    """Shapley values of the blocks and the quality without each; also the loss of which v(S) is the negative.

    Evaluates all coalitions of up to 14 blocks if ``max_evaluations`` (batch passes) allows; otherwise those
    that ``shapley.hybrid`` chooses.

    Raises:
        UsageError: there are no residual blocks, or the limit is below leave-one-out.
    """
    blocks = find_blocks(prepared.captured)
    if not blocks:
        raise UsageError(
            "--players blocks was given, but the network has no residual blocks; accepted are networks that "
            "add a branch to a shortcut around it: leave --players out to rank channels"
        )
    fitting = prepared.calibration.fitting
    images, coalitions = block_effort(len(blocks), prepared, max_evaluations)
    if images < len(fitting):
        run.note(f"block values are means over the first {images} of {len(fitting)} images")
    with run.stage("rank blocks"):
        batch = fitting.first(images)
        game = BlockGame(
            prepared.running,
            batch,
            original_outputs(prepared.running, batch),
            blocks=blocks,
            memory_limit_bytes=memory_limit_bytes,
        )
        kept = None if journals is None else journals.open(game, f"blocks-of-{images}-images")
        with kept or contextlib.nullcontext(game) as asked:
            estimate = _values(run, asked, coalitions)
    passes = math.ceil(images / _IMAGES_AT_ONCE)
    return _judged(run, prepared, blocks, estimate, images, passes), game.loss_description


def block_effort(blocks: int, prepared: Prepared, max_evaluations: int | None) -> tuple[int, int]:
    """Number of images, and maximum number of coalitions."""
    every = len(prepared.calibration.fitting)
    wanted = 2**blocks if blocks <= MOST_EXACT else _EVALUATIONS_PER_BLOCK * blocks
    if max_evaluations is None:
        work = wanted * max(1, prepared.coupling.total_macs())
        images = min(every, max(_FEWEST_IMAGES, int(_WORK_MACS // work)))
        if _IMAGES_AT_ONCE < images < every:
            images -= images % _IMAGES_AT_ONCE
        return images, wanted
    least = blocks + 2 if blocks > 2 else 2**blocks
    if max_evaluations < least:
        raise UsageError(
            f"--max-evaluations {max_evaluations} is too few: {blocks} residual blocks need at least {least}"
        )
    images = min(every, max(1, max_evaluations // wanted) * _IMAGES_AT_ONCE)
    allowed = max_evaluations // math.ceil(images / _IMAGES_AT_ONCE)
    return images, min(wanted, allowed) if blocks <= MOST_EXACT else allowed


def _values(run: Run, game: Game, coalitions: int) -> Estimate:
    rng = np.random.default_rng([run.options.seed, 1])
    with progress.task("valuing residual blocks", coalitions) as advance:
        return hybrid(game, max_evaluations=coalitions, rng=rng, advance=advance)


def _judged(
    run: Run,
    prepared: Prepared,
    blocks: tuple[ResidualBlock, ...],
    estimate: Estimate,
    images: int,
    passes: int,
) -> BlockRanking:
    assert estimate.empty_value is not None
    assert estimate.grand_value is not None
    with (
        run.stage("networks without a block"),
        progress.task("leaving out blocks on held-out images", len(blocks) + 1) as advance,
    ):
        judge = _Judge(prepared, blocks)
        ranks = np.empty(len(blocks), dtype=np.int64)
        ranks[np.argsort(-estimate.values, kind="stable")] = np.arange(1, len(blocks) + 1)
        advance(1)
        scores = []
        for index in range(len(blocks)):
            scores.append(judge.score(index, estimate, int(ranks[index])))
            advance(1)
    quality, losses = judge.whole
    return BlockRanking(
        choice=estimate.choice,
        evaluations=estimate.evaluations * passes,
        images=images,
        empty_value=estimate.empty_value,
        whole_value=estimate.grand_value,
        quality_kind=judge.kind,
        held_out_images=len(prepared.calibration.held_out),
        quality=None if quality is None else float(quality.mean()),
        loss=float(losses.mean()),
        blocks=tuple(scores),
    )


class _Judge:
    """Quality and loss on the held-out images, of the whole network and without one block."""

    def __init__(self, prepared: Prepared, blocks: tuple[ResidualBlock, ...]) -> None:
        held = prepared.calibration.held_out
        labels = None if held.labels is None else held.labels.numpy()
        reference = original_outputs(prepared.running, held)
        self._blocks = blocks
        self._game = MaskedGame(block_module(prepared.running, blocks), len(blocks), held, reference)
        outputs, values = self._game.outcome(np.ones(len(blocks), dtype=bool))
        self.kind = parity.accuracy_kind(outputs, labels is not None)
        self._classes = None
        if self.kind is not AccuracyKind.RELATIVE_ERROR:
            self._classes = labels if labels is not None else outputs[0].argmax(1)
        self.whole = self._hits(outputs), -values

    def score(self, index: int, estimate: Estimate, rank: int) -> BlockScore:
        """Value of the block ``index``, and quality and loss of the network without it."""
        outputs, values = self._game.outcome(np.arange(len(self._blocks)) != index)
        return BlockScore(
            name=self._blocks[index].name,
            addition=self._blocks[index].add,
            value=float(estimate.values[index]),
            standard_error=float(estimate.standard_errors[index]),
            rank=rank,
            **vars(without_a_part(self._hits(outputs), -values)),
        )

    def _hits(self, outputs: parity.Outputs) -> NDArray[np.bool_] | None:
        return None if self._classes is None else outputs[0].argmax(1) == self._classes
