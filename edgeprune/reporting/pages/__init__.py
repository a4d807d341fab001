"""HTML pages from templates: one escaping, one stylesheet, no network access."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from edgeprune.reporting.drawing.words import visible

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, **values: Any) -> str:
    """Render a template of this folder. Texts are escaped, undisplayable characters included.

    Only values that a template marks as ``safe`` are inserted verbatim: our own SVG and JSON.

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
    """Displayable form of untrusted text; our own markup stays unchanged."""
    return visible(value) if type(value) is str else value
