"""BentoML: ``BENCH_BATCH=1`` for adaptive batching, ``BENCH_WORKERS`` for more than one worker."""

import os

import bentoml
import numpy as np
import pandas as pd
from common import predict, predict_frame

WORKERS = int(os.environ.get("BENCH_WORKERS", "1"))


@bentoml.service(workers=WORKERS, logging={"access": {"enabled": False}}, traffic={"timeout": 120})
class Service:
    """One model."""

    if os.environ.get("BENCH_BATCH") == "1":
        # A list: with a DataFrame BentoML 1.4 reads the size of a batch from a shape, and every request hangs or is
        # answered 503.
        @bentoml.api(batchable=True, max_batch_size=200_000, max_latency_ms=60_000)
        def predict(self, df: list[dict]) -> list[float]:
            """Predict the rows of several requests."""
            return predict(df)
    else:

        @bentoml.api
        def predict(self, df: pd.DataFrame) -> np.ndarray:
            """Predict the rows of one request."""
            return np.asarray(predict_frame(df))
