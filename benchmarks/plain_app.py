"""What a user would write by hand: FastAPI, pandas, the pickled model. ``MODEL_DIRECTORY`` names the model folder."""

import io
import os
from pathlib import Path

import joblib
import pandas as pd
from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool

folder = Path(os.environ["MODEL_DIRECTORY"])
model = joblib.load(folder / "model.pkl") if (folder / "model.pkl").exists() else None
app = FastAPI()


def predict(body: bytes) -> dict[str, list[dict[str, float]]]:
    """Read the CSV, predict, return records."""
    data = pd.read_csv(io.BytesIO(body))
    if model is None:
        probabilities = [[0.5, 0.5]] * len(data)
    else:
        probabilities = model.predict_proba(data).tolist()
    return {"predictions": [{"1": positive, "0": negative} for negative, positive in probabilities]}


@app.post("/predict/")
async def predict_route(request: Request) -> dict[str, list[dict[str, float]]]:
    """Predict off the event loop, as the documentation recommends."""
    return await run_in_threadpool(predict, await request.body())
