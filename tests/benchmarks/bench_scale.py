"""Beyond one processor: ranking and recovery on a GPU.

Run as ``python tests/benchmarks/bench_scale.py --results FOLDER``; goes on where it stopped and writes
``docs/benchmarks/scale-PART.md``. Where there is no GPU a part is skipped with its reason.
"""

from __future__ import annotations

import scale_gpu
from common import Part, run_parts

PARTS = {
    "gpu": Part(
        title="Ranking and recovery on a GPU",
        jobs=scale_gpu.jobs,
        render=scale_gpu.render,
        lacks=scale_gpu.lacks,
    )
}

if __name__ == "__main__":
    run_parts("scale", __doc__, PARTS, threads=2)
