"""What a user would write by hand with Flask."""

from common import predict
from flask import Flask, jsonify, request

app = Flask(__name__)


@app.post("/predict")
def predict_json():
    """Predict the rows of a JSON body."""
    return jsonify(predictions=predict(request.get_json()["rows"]))
