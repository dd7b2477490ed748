"""What a user would write by hand with FastAPI."""

import io

import pandas as pd
from common import predict, predict_frame
from fastapi import FastAPI, Request
from pydantic import BaseModel

app = FastAPI()


class Rows(BaseModel):
    """The body of a request."""

    rows: list[dict]


@app.post("/predict")
def predict_json(body: Rows):
    """Predict in FastAPI's thread pool, where a plain ``def`` runs."""
    return {"predictions": predict(body.rows)}


@app.post("/predict_csv")
async def predict_csv(request: Request):
    """Predict on the event loop, which the documentation advises against and many do; it is the quicker of the two."""
    return {"predictions": predict_frame(pd.read_csv(io.BytesIO(await request.body())))}
