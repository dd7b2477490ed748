"""Writes MLServer's settings: ``mlserver_repository.py FOLDER HTTP_PORT GRPC_PORT METRICS_PORT WORKERS BATCH``."""

import json
import os
import sys
from pathlib import Path

folder = Path(sys.argv[1])
http_port, grpc_port, metrics_port, workers, batch = map(int, sys.argv[2:])
name, data = os.environ["BENCH_MODEL"], os.environ["BENCH_DATA"]
settings = {
    "host": "127.0.0.1",
    "http_port": http_port,
    "grpc_port": grpc_port,
    "metrics_port": metrics_port,
    "metrics_endpoint": None,
    "parallel_workers": workers,
    "debug": False,
}
model = {
    "name": "model",
    "implementation": "mlserver_noop.Noop" if name == "noop" else "mlserver_sklearn.SKLearnModel",
    # Its loader goes by the name: .joblib, not .pkl.
    "parameters": {"uri": f"{data}/{name}.joblib", "version": "1"},
}
if batch:
    model |= {"max_batch_size": 64, "max_batch_time": 0.002}
folder.mkdir(parents=True, exist_ok=True)
(folder / "settings.json").write_text(json.dumps(settings))
(folder / "model-settings.json").write_text(json.dumps(model))
