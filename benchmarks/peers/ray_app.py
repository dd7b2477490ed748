"""Ray Serve: ``ray_app.py PORT plain|batch``."""

import os
import sys

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import ray
from ray import serve
from ray.serve.schema import LoggingConfig
from starlette.requests import Request

LOGGING = LoggingConfig(enable_access_log=False, log_level="WARNING")


@serve.deployment(max_ongoing_requests=1024, logging_config=LOGGING)
class Plain:
    """One request at a time."""

    def __init__(self):
        """Load the model."""
        from common import predict

        self.predict_rows = predict

    async def __call__(self, request: Request):
        """Answer a request."""
        return {"predictions": self.predict_rows((await request.json())["rows"])}


@serve.deployment(max_ongoing_requests=1024, logging_config=LOGGING)
class Batched(Plain.func_or_class):
    """Joins the rows of the requests that wait."""

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.002)
    async def predict_many(self, inputs):
        """Predict the rows of several requests."""
        output, start, parts = self.predict_rows([row for rows in inputs for row in rows]), 0, []
        for rows in inputs:
            parts.append(output[start : start + len(rows)])
            start += len(rows)
        return parts

    async def __call__(self, request: Request):
        """Answer a request."""
        return {"predictions": await self.predict_many((await request.json())["rows"])}


if __name__ == "__main__":
    handed_on = {name: os.environ[name] for name in ("PYTHONPATH", "BENCH_MODEL", "BENCH_DATA")}
    # Two, however many cores there are: the deployment and the proxy. The same as everybody's one model process.
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": handed_on})
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])}, logging_config=LOGGING)
    serve.run((Batched if sys.argv[2] == "batch" else Plain).bind(), blocking=True)
