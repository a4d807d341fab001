import json, sys, time, platform, os, resource
import numpy as np, onnxruntime as ort


def opened(path, threads, batch, seed):
    o = ort.SessionOptions()
    o.intra_op_num_threads = threads
    o.log_severity_level = 4
    o.add_session_config_entry("session.intra_op.allow_spinning", "0")
    t = time.perf_counter()
    s = ort.InferenceSession(path, o, providers=["CPUExecutionProvider"])
    load = time.perf_counter() - t
    rng = np.random.default_rng(seed)
    feeds = {}
    for i in s.get_inputs():
        shape = [d if isinstance(d, int) and d > 0 else (batch or 1) for d in i.shape]
        feeds[i.name] = rng.standard_normal(shape).astype(np.float32)
    t = time.perf_counter()
    s.run(None, feeds)
    return (lambda: s.run(None, feeds)), load, time.perf_counter() - t


def cpu(run, n):
    t = time.process_time_ns()
    for _ in range(n):
        run()
    return max(1, time.process_time_ns() - t) / n


def inner(run):
    return int(min(1000, max(1, 2e6 // min(cpu(run, 1) for _ in range(5)))))


def main():
    job = json.load(open(sys.argv[1]))
    files = {m["name"]: m["file"] for m in job["models"]}
    out = {"schema": 1, "models": {}, "pairs": [], "cautions": []}

    def error(kind, model, message):
        json.dump(
            {"schema": 1, "error": {"kind": kind, "model": model, "message": message}}, open(sys.argv[2], "w")
        )
        sys.exit(3)

    name = None
    try:
        for name, f in files.items():
            if any(name in p for p in job["pairs"]):
                continue
            run, load, first = opened(f, job["threads"], job["batch_size"], job["seed"])
            n = inner(run)
            wall, c = [], []
            for _ in range(30):
                t = time.perf_counter_ns()
                a = time.process_time_ns()
                for _ in range(n):
                    run()
                wall.append((time.perf_counter_ns() - t) / n / 1e6)
                c.append((time.process_time_ns() - a) / n / 1e6)
            out["models"][name] = {
                "latency_p50_ms": float(np.percentile(wall, 50)),
                "latency_p90_ms": float(np.percentile(wall, 90)),
                "latency_p99_ms": float(np.percentile(wall, 99)),
                "cpu_time_p50_ms": float(np.median(c)),
                "first_run_ms": first * 1e3,
                "load_ms": load * 1e3,
                "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "repetitions": 30 * n,
                "warmup": 5,
                "operators": [],
            }
            print("measured", name, file=sys.stderr, flush=True)
        for a, b in job["pairs"]:
            cr, wr = [], []
            for _ in range(5):
                name = a
                ra, *_ = opened(files[a], job["threads"], job["batch_size"], job["seed"])
                na = inner(ra)
                name = b
                rb, *_ = opened(files[b], job["threads"], job["batch_size"], job["seed"])
                nb = inner(rb)
                row = []
                for _ in range(-(-job["least_pairs"] // 5)):
                    x = cpu(ra, na)
                    row.append(cpu(rb, nb) / x)
                cr.append(row)
                wr.append(row)
            out["pairs"].append({"a": a, "b": b, "cpu_ratios": cr, "wall_ratios": wr})
            print("compared", a, b, file=sys.stderr, flush=True)
    except MemoryError as e:
        error("memory", name, str(e))
    except Exception as e:
        error("run", name, str(e))
    out["machine"] = {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": ort.__version__,
        "cpu_name": "x",
        "cores_usable": len(os.sched_getaffinity(0)),
        "memory_bytes": 1,
        "governor": None,
        "clock_khz_before": None,
        "clock_khz_after": None,
        "temperature_c_before": None,
        "temperature_c_after": None,
        "throttled_flags": None,
        "load_average": os.getloadavg()[0],
    }
    json.dump(out, open(sys.argv[2] + ".tmp", "w"))
    os.replace(sys.argv[2] + ".tmp", sys.argv[2])


main()
