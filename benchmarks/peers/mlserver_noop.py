"""MLServer's model that answers a constant."""

from mlserver import MLModel
from mlserver.types import InferenceResponse, ResponseOutput


class Noop(MLModel):
    """No model at all."""

    async def load(self):
        """Be ready."""
        return True

    async def predict(self, payload):
        """Answer for one row."""
        output = ResponseOutput(name="predict_proba", shape=[1, 1], datatype="FP64", data=[0.5])
        return InferenceResponse(model_name=self.name, outputs=[output])
