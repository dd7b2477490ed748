"""KServe's own model class in the server's process: ``kserve_app.py PORT``."""

import sys

import kserve


class Model(kserve.Model):
    """The model."""

    def load(self):
        """Load it."""
        from common import predict

        self.predict_rows, self.ready = predict, True

    def predict(self, payload, headers=None):
        """Answer a request."""
        return {"predictions": self.predict_rows(payload["instances"])}


if __name__ == "__main__":
    model = Model("model")
    model.load()
    server = kserve.ModelServer(
        http_port=int(sys.argv[1]), enable_grpc=False, enable_latency_logging=False, workers=1, access_log_format=None
    )
    server.start([model])
