"""Names of the parts of a sweep, of which names of cells and files are made."""

from __future__ import annotations

import re
from typing import Annotated

from annotated_types import Predicate

from edgeprune.storage.tables import Expected

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,47}")

Name = Annotated[
    str,
    Predicate(lambda value: NAME.fullmatch(value) is not None),
    Expected(
        "a name of at most 48 letters (a to z, A to Z), digits, dots, + and -, that begins with a letter or "
        "digit,"
    ),
]
