"""LitServe: ``litserve_app.py PORT w1|w2|batch``."""

import sys

import litserve as ls


class Api(ls.LitAPI):
    """One request at a time."""

    def setup(self, device):
        """Load the model in the worker."""
        from common import predict

        self.predict_rows = predict

    def decode_request(self, request):
        """Take the rows out of the body."""
        return request["rows"]

    def predict(self, x):
        """Predict rows."""
        return self.predict_rows(x)

    def encode_response(self, output):
        """Make the answer."""
        return {"predictions": output}


class BatchedApi(Api):
    """Joins the rows of the requests that LitServe has put together."""

    def batch(self, inputs):
        """Make one list of rows."""
        self.sizes = [len(rows) for rows in inputs]
        return [row for rows in inputs for row in rows]

    def unbatch(self, output):
        """Give each request its own part."""
        start, parts = 0, []
        for size in self.sizes:
            parts.append(output[start : start + size])
            start += size
        return parts


if __name__ == "__main__":
    port, mode = int(sys.argv[1]), sys.argv[2]
    api = BatchedApi(max_batch_size=64, batch_timeout=0.002) if mode == "batch" else Api()
    workers = 1 if mode == "batch" else int(mode.removeprefix("w"))
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=workers, timeout=120)
    server.run(host="127.0.0.1", port=port, num_api_servers=1, log_level="warning", generate_client_file=False)
