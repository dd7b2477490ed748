"""Saves the model in the format of this environment's MLflow, once: ``mlflow_save.py FOLDER``."""

import os
import sys
from pathlib import Path

folder, name = Path(sys.argv[1]), os.environ["BENCH_MODEL"]
if not (folder / "MLmodel").exists():
    import joblib
    import mlflow
    import numpy as np

    class Noop(mlflow.pyfunc.PythonModel):
        """Answers a constant."""

        def predict(self, context, model_input, params=None):
            """Answer for each row."""
            return np.full(len(model_input), 0.5)

    if name == "noop":
        mlflow.pyfunc.save_model(folder, python_model=Noop(), pip_requirements=[])
    else:
        mlflow.sklearn.save_model(
            joblib.load(f"{os.environ['BENCH_DATA']}/{name}/model.pkl"),
            folder,
            pyfunc_predict_fn="predict_proba",
            pip_requirements=[],
            serialization_format="cloudpickle",
        )
