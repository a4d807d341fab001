"""A process that asks a cache for one result: FOLDER COUNTED SECONDS."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from edgeprune.caching.keys import Key, Stage
from edgeprune.caching.store import Store


def main() -> None:
    """Print what the cache gave; every computing appends a letter to the file COUNTED."""
    folder, counted, pause_s = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])

    def make() -> str:
        with counted.open("a") as stream:
            stream.write("x")
        time.sleep(pause_s)
        return "the result"

    key = Key(stage=Stage.RANKING, decided_by={"what": "child"})
    found = Store(folder).get(
        key,
        make,
        lambda place, made: (place / "value").write_text(made),
        lambda place: (place / "value").read_text(),
    )
    print(found)


if __name__ == "__main__":
    main()
