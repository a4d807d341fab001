"""HTML pages from templates: one escape, one stylesheet, nothing asked of the network."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from edgeprune.reporting.drawing.words import visible

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, **values: Any) -> str:
    """The page of a template in this folder. Texts are escaped, and what cannot be shown is spelled out.

    Only what a template marks as ``safe`` goes in as it is: SVG and JSON of our own making.

    Raises:
        jinja2.UndefinedError: the template needs a value that was not given.
    """
    return _environment().get_template(template).render(**values).rstrip() + "\n"


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # needed by few commands

    return Environment(
        loader=PackageLoader(__name__, "."),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _shown(value: Any) -> Any:
    """Texts of others as they can be shown; markup of ours as it is."""
    return visible(value) if type(value) is str else value
