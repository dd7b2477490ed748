"""Fits the transformer and writes model.pkl and example.csv beside this file."""

import pickle
from pathlib import Path

from sklearn.compose import make_column_transformer
from sklearn.datasets import load_wine
from sklearn.preprocessing import MinMaxScaler, StandardScaler

here = Path(__file__).resolve().parent
wines = load_wine(as_frame=True).data

transformer = make_column_transformer(
    (MinMaxScaler(), ["magnesium", "proline"]), remainder=StandardScaler(), verbose_feature_names_out=False
)
transformer.set_output(transform="pandas").fit(wines)
print(f"fitted on {len(wines)} wines")

(here / "model.pkl").write_bytes(pickle.dumps(transformer))
wines.iloc[[0, 60, 140]].to_csv(here / "example.csv", index=False)
