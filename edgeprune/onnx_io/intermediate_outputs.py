"""Sessions that give inner tensors of an ONNX model."""

from __future__ import annotations

from collections.abc import Iterable

import onnxruntime
from onnx import ModelProto, helper

from edgeprune.onnx_io.session import open_exact_session


def tapped_session(
    proto: ModelProto, names: Iterable[str], threads: int, timeout_s: float | None = None
) -> onnxruntime.InferenceSession:
    """A session whose outputs are the tensors of these names, in their order, each once.

    Raises:
        TooLongError: loading it took longer than ``timeout_s`` seconds.
        Exception: onnxruntime cannot load the model; its own exceptions share no other base.
    """
    tapped = ModelProto()
    tapped.CopyFrom(proto)
    del tapped.graph.output[:]
    for name in dict.fromkeys(names):
        tapped.graph.output.append(helper.make_empty_tensor_value_info(name))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what goes wrong is raised and told
    options.enable_cpu_mem_arena = False  # all that is asked for stays alive, and the arena would double it
    serialized = tapped.SerializeToString()
    del tapped  # its weights need not be there twice while onnxruntime reads them
    return open_exact_session(serialized, options, timeout_s=timeout_s)
