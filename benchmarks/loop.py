"""The yardstick: ``python loop.py FOLDER SECONDS`` reads, predicts and writes one row, in a loop, in one process.

No server can answer one client sooner than this and a way there and back.
"""

import io
import json
import sys
import time
from pathlib import Path

import joblib
import pandas as pd


def main(folder: Path, seconds: float) -> dict[str, float]:
    """Run for ``seconds`` and return what was measured."""
    model = joblib.load(folder / "pipeline" / "model.pkl")
    body = (folder / "bodies" / "pipeline-csv-1").read_bytes()
    labels = ["0", "1"]
    took: dict[str, list[float]] = {"decode": [], "predict": [], "encode": []}

    def answer() -> str:
        started = time.perf_counter()
        data = pd.read_csv(io.BytesIO(body))
        decoded = time.perf_counter()
        probabilities = model.predict_proba(data)
        predicted = time.perf_counter()
        text: str = pd.DataFrame(probabilities, columns=labels).to_json(orient="records", double_precision=15)
        encoded = time.perf_counter()
        took["decode"].append(decoded - started)
        took["predict"].append(predicted - decoded)
        took["encode"].append(encoded - predicted)
        return text

    warm = time.perf_counter() + 0.5
    while time.perf_counter() < warm:
        answer()
    for stage in took.values():
        stage.clear()
    started = time.perf_counter()
    while time.perf_counter() < started + seconds:
        answer()
    elapsed = time.perf_counter() - started
    count = len(took["decode"])
    whole = sorted(map(sum, zip(*took.values(), strict=True)))
    return {
        "requests": count,
        "per_second": count / elapsed,
        "p50_ms": 1e3 * whole[count // 2],
        "p99_ms": 1e3 * whole[int(count * 0.99)],
        "bad": 0,
        **{f"{stage}_ms": 1e3 * sorted(times)[count // 2] for stage, times in took.items()},
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), float(sys.argv[2]))))
