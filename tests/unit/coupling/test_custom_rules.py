"""Rules for ops of other packages: by decorator, by entry point, and what happens without one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import metadata

import networks as nets
import pytest
import torch
from networks import Network, conv_bn, head, make_case
from torch import Tensor
from torch.fx import Node

from edgeprune.coupling import plugins
from edgeprune.coupling.context import Context, Labelling
from edgeprune.coupling.rules.table import RULES, rule
from edgeprune.errors import UsageError


@torch.library.custom_op("edgeprune_tests::blur", mutates_args=())
def blur(x: Tensor) -> Tensor:
    return (x + x.roll(1, -1)) / 2


@blur.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def blurred() -> torch.nn.Module:
    return Network(lambda m, x: m.head(blur(m.stem(x))), stem=conv_bn(3, 8), head=head(8))


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """No rule of a test outlives it."""
    before = dict(RULES)
    plugins.load_rule_plugins.cache_clear()
    yield
    RULES.clear()
    RULES.update(before)
    plugins.load_rule_plugins.cache_clear()


def channelwise(context: Context, node: Node) -> Labelling:
    source = node.args[0]
    labels = dict(context.labels(source))
    channels = {1: labels.pop(1)} if 1 in labels else {}
    context.freeze(node, labels, "blurred over")
    return channels


def test_without_a_rule_the_op_is_listed_with_its_namespace_and_holds_its_channels() -> None:
    case = make_case(blurred())
    assert [name.split()[0] for name in case.coupling.unruled_ops] == ["edgeprune_tests::blur"]
    assert case.coupling.num_players == 0


def test_a_rule_by_decorator_frees_the_channels_and_pruning_is_exact() -> None:
    rule("edgeprune_tests::blur")(channelwise)
    case = make_case(blurred())
    assert case.coupling.unruled_ops == ()
    assert case.coupling.num_players == 8
    for row in nets.compare(case, case.removals()):
        assert row.deviation < 1e-10
        assert row.effect > 1e-6


def entry(name: str, module: str) -> metadata.EntryPoint:
    return metadata.EntryPoint(name=name, value=module, group=plugins.ENTRY_POINT_GROUP)


def test_a_rule_by_entry_point_is_found(tmp_path, monkeypatch) -> None:
    (tmp_path / "their_rules.py").write_text(
        "from edgeprune.coupling.rules.table import rule\n"
        "@rule('edgeprune_tests::blur')\n"
        "def blur(context, node):\n"
        "    return {1: context.labels(node.args[0])[1]}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "their_rules", raising=False)
    monkeypatch.setattr(plugins.metadata, "entry_points", lambda group: [entry("theirs", "their_rules")])
    assert plugins.load_rule_plugins() == ("theirs",)
    assert make_case(blurred()).coupling.num_players == 8


def test_a_plugin_that_cannot_be_imported_is_named(monkeypatch) -> None:
    monkeypatch.setattr(plugins.metadata, "entry_points", lambda group: [entry("broken", "no_such_module_x")])
    with pytest.raises(UsageError, match=r"'broken' .*no_such_module_x.*uninstall"):
        plugins.load_rule_plugins()
