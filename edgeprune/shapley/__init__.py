"""Shapley values of cooperative games, in numpy alone: one estimator a file, one result type.

A game is a ``CoalitionGame`` of any function of coalitions (``game``); ``CountedGame`` counts, keeps and
limits its evaluations. ``hybrid.hybrid`` values the players by whatever fits the limit and
``hybrid.choose_removal`` says whom to remove. Behind them, each usable alone: ``exact`` (and
``exact.CoalitionTable`` for sub-games, trajectories and oracles), ``permutation``, ``least_squares``,
``semivalue``, ``partial``, ``racing``, ``refine``; ``multilinear`` for games that know their gradient; and
``thesis``, the published procedure that this project grew from.
"""
