"""``python -m edgeprune``."""

import sys

from edgeprune.cli import run

sys.exit(run())
