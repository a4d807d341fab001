"""Run an ONNX file once on stored inputs: ``python run_once.py MODEL INPUTS.npz OUTPUTS.npz``.

Python 3.9 and later with numpy and onnxruntime. Inputs are arrays by name, outputs by position.
"""

import sys
from typing import Any

import numpy
import onnxruntime


def main(model: str, inputs: str, outputs: str) -> None:
    """Write the outputs of every input's first dimension, one run each."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    given = numpy.load(inputs)
    count = min(len(given[name]) for name in given.files)
    batch = session.get_inputs()[0].shape[0]
    step = batch if isinstance(batch, int) else 1
    parts = []
    for start in range(0, count - count % step, step):
        parts.append(session.run(None, {name: given[name][start : start + step] for name in given.files}))
        print(f"{start + step} of {count}", file=sys.stderr, flush=True)
    joined = [numpy.concatenate(each) for each in zip(*parts)]  # noqa: B905 - Python 3.9
    named: dict[str, Any] = {f"output_{place}": value for place, value in enumerate(joined)}
    numpy.savez(outputs, **named)


if __name__ == "__main__":
    main(*sys.argv[1:])
