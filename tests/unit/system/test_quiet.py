"""Libraries are silenced for as long as a block runs, and speak again after it, however it ends."""

from __future__ import annotations

import logging
import os
import sys
import warnings

import pytest

from edgeprune.system.quiet import quiet_compiled_code, quiet_loggers, quiet_logging, quiet_streams


def test_loggers_speak_from_the_least_level_on_and_as_before_after_a_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    noisy = logging.getLogger("noisy_package")
    noisy.setLevel(logging.INFO)

    def fail() -> None:
        noisy.warning("noise")
        noisy.error("an error")
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"), quiet_loggers("noisy_package", least=logging.ERROR):
        fail()
    noisy.info("afterwards")
    assert [r.getMessage() for r in caplog.records] == ["an error", "afterwards"]


def test_nothing_is_logged_meanwhile(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        logging.getLogger("any").critical("noise")
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"), quiet_logging():
        fail()
    logging.getLogger("any").error("afterwards")
    assert [r.getMessage() for r in caplog.records] == ["afterwards"]


def test_only_the_streams_named_are_dropped_and_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with quiet_streams(stdout=True):
            print("noise")
            print("kept", file=sys.stderr)
            warnings.warn("noise", stacklevel=1)
        with quiet_streams(stderr=True):
            print("kept too")
            print("noise", file=sys.stderr)
        warnings.warn("afterwards", stacklevel=1)
    assert capsys.readouterr() == ("kept too\n", "kept\n")
    assert [str(w.message) for w in caught] == ["afterwards"]


def test_what_compiled_code_writes_is_debugging(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("compiled")  # not below edgeprune, whose records the command line prints
    with caplog.at_level(logging.DEBUG, logger="compiled"):
        with quiet_compiled_code(logger):
            os.write(2, b"WARNING: of its own workings\n")
        os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == "afterwards\n"
    assert [record.getMessage() for record in caplog.records] == ["WARNING: of its own workings"]
