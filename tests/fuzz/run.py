"""The fuzzer: changed files of every format, given to every command that reads them.

python tests/fuzz/run.py --minutes 60            # as make fuzz; writes docs/benchmarks/robustness.md
python tests/fuzz/run.py --case npz:quantize:17  # one case again
python tests/fuzz/run.py --minutes 0 --kills 20  # only runs that are killed and go on
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "benchmarks"), str(HERE.parents[1])]


def main() -> int:
    from fuzz_campaign import campaign
    from fuzz_cases import Case
    from fuzz_judge import documented_statuses
    from fuzz_runner import run_case, show
    from fuzz_seeds import make_seeds
    from killed import RUNS

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1, help="of the first case of every format and command")
    parser.add_argument("--case", action="append", help="FORMAT:COMMAND:SEED; may be given several times")
    parser.add_argument("--only", default="", help="FORMAT or FORMAT:COMMAND")
    parser.add_argument("--kills", type=int, default=100, help="points at which a run is killed, each kind")
    parser.add_argument("--run", action="append", choices=RUNS, help="that is killed (default: all)")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"), help="where inputs are kept")
    parser.add_argument("--seeds", type=Path, help="keeps the valid files (default: made for this run)")
    parser.add_argument("--page", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz-seeds-") as folder:
        seeds = make_seeds((options.seeds or Path(folder) / "seeds").resolve())
        if options.case:
            found = [
                run_case(Case.parsed(c), seeds, documented_statuses(), options.findings) for c in options.case
            ]
            for outcome in found:
                show(outcome)
            return int(any(outcome.faults for outcome in found))
        return campaign(options, seeds)


if __name__ == "__main__":
    sys.exit(main())
