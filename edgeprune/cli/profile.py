"""``edgeprune profile``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from edgeprune.cli.process.session import Session, check_page, quiet_libraries, show, show_json
from edgeprune.cli.shared import options as opt
from edgeprune.cli.shared.arguments import SpokenArguments, TimeoutArguments, command, joined
from edgeprune.cli.shared.device_options import DeviceArguments
from edgeprune.options.project_file import parse_input_shape
from edgeprune.options.runs import ProfileOptions
from edgeprune.showing import for_people

OnnxModel = Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The ONNX file to profile.")]


@dataclass(frozen=True, kw_only=True)
class FileArguments:
    """The file, its target and baseline, and how to measure."""

    model: OnnxModel
    input_shape: opt.ImageSize = None
    target: opt.Target = None
    threads: opt.Threads = None
    html: opt.Html = None


@dataclass(frozen=True, kw_only=True)
class ProfileArguments(SpokenArguments, TimeoutArguments, DeviceArguments, FileArguments):
    """All arguments of ``profile``."""


@command(ProfileArguments, ProfileOptions)
def profile(session: Session, given: ProfileArguments) -> None:
    """Measure an ONNX file on this host or on a device, or predict its latency on a target."""
    from edgeprune.targets import load_target

    target = "host" if given.target is None else given.target
    load_target(target)
    options = joined(
        ProfileOptions,
        given,
        given.model,
        input_shape=None if given.input_shape is None else parse_input_shape(given.input_shape),
        target=target,
        device=given.device_for(given.target),
        seed=0,
    )

    from edgeprune.api import files

    quiet_libraries(session)
    check_page(given.html)
    result = files.profile_file(options)
    if given.html is not None:
        from edgeprune.results.pages import profile_page

        session.write_page(given.html, profile_page(result))
    if given.as_json:
        show_json(result)
    else:
        show(for_people(result).render())
