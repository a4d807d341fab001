"""This machine as a device: measuring jobs in fresh processes."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from edgeprune.devices.connection import JOB_NAME, RESULT_NAME, SCRIPT_NAME, Ended, check_ended
from edgeprune.storage.files import scratch_folder
from edgeprune.system.progress import task

STARTED_BY = "EDGEPRUNE_STARTED_BY"
"""Variable with the process whose end ends the script."""
_LOG = logging.getLogger("edgeprune.devices")


class HostDevice:
    """Runs measuring jobs here, by the same script as on a device."""

    name = "this host"

    def measure(self, job: bytes, files: Mapping[str, Path], *, time_limit_s: float) -> bytes:
        """Run a job in processes that end with it.

        Raises:
            DeviceError: no memory, or longer than ``time_limit_s``.
        """
        script = resources.files("edgeprune.devices").joinpath("script", SCRIPT_NAME)
        with scratch_folder() as folder, resources.as_file(script) as path, task("measuring", 1):
            for name, given in files.items():
                (folder / name).symlink_to(given.resolve())
            (folder / JOB_NAME).write_bytes(job)
            command = [sys.executable, str(path), JOB_NAME, RESULT_NAME]
            ended = _run(command, folder, time_limit_s)
            check_ended(ended, self.name, time_limit_s=time_limit_s)
            return (folder / RESULT_NAME).read_bytes()


def _run(command: list[str], folder: Path, time_limit_s: float) -> Ended:
    """Run in a group of its own, of which nothing is left."""
    process = subprocess.Popen(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", start_new_session=True, env={**os.environ, STARTED_BY: str(os.getpid())},
    )  # fmt: skip
    try:
        said, _ = process.communicate(timeout=time_limit_s)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        return Ended(status=-signal.SIGKILL, timed_out=True, lines=tuple(said.splitlines()))
    for line in said.splitlines():
        _LOG.debug("%s", line)
    return Ended(status=process.returncode, timed_out=False, lines=tuple(said.splitlines()))
