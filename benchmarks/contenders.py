"""The contenders. To add one: a requirements file, a program under ``peers/`` if it needs one, and an entry here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

Format = Literal["csv", "records", "instances", "df", "split", "v2"]
Model = Literal["pipeline", "forest", "noop"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One way to serve the models.

    ``command`` starts it and ``prepare``, which is not timed, runs before. In both, ``{bin}`` is the ``bin`` folder of
    its environment, ``{model_python}`` the interpreter of the model's, ``{data}`` and ``{model}`` what ``prepare.py``
    has made, ``{peers}`` the programs, ``{work}`` a folder of its own that is kept, ``{port}``, ``{port2}`` and
    ``{port3}`` free ports. The programs find ``BENCH_DATA`` and ``BENCH_MODEL`` in their environment.
    """

    environment: str
    command: str
    body: Format = "records"
    path: str = "/predict"
    prepare: str = ""
    variables: Mapping[str, str] = dataclasses.field(default_factory=dict)
    ours: bool = False
    model_environment: str = "model"
    main: bool = False  # the best of its kind on the pipeline: what a short comparison needs
    interrupt: bool = False  # stopped with SIGINT, as it leaves processes behind otherwise

    @property
    def content_type(self) -> str:
        """The content type of its bodies."""
        return "text/csv" if self.body == "csv" else "application/json"


def _backline(flags: str = "", *, model_environment: str = "model", main: bool = False) -> Contender:
    command = "{bin}/backline serve {data}/{model} --python {model_python} --address 127.0.0.1:{port}"
    return Contender(
        environment="backline",
        command=f"{command} {flags}",
        body="csv",
        path="/predict/",
        ours=True,
        model_environment=model_environment,
        main=main,
    )


def _fastapi(workers: int, *, body: Format = "records", path: str = "/predict", main: bool = False) -> Contender:
    command = "{bin}/uvicorn plain_fastapi:app --host 127.0.0.1 --port {port} --no-access-log"
    return Contender(environment="plain", command=f"{command} --workers {workers}", body=body, path=path, main=main)


def _flask(flags: str, *, main: bool = False) -> Contender:
    command = "{bin}/gunicorn plain_flask:app --bind 127.0.0.1:{port} --timeout 120"
    return Contender(environment="plain", command=f"{command} {flags}", main=main)


def _mlserver(workers: int, *, batch: bool = False, main: bool = False) -> Contender:
    return Contender(
        environment="mlserver",
        prepare=(
            "{bin}/python {peers}/mlserver_repository.py {work}/repository {port} {port2} {port3} "
            f"{workers} {int(batch)}"
        ),
        command="{bin}/mlserver start {work}/repository",
        body="v2",
        path="/v2/models/model/infer",
        main=main,
    )


def _litserve(mode: str, *, main: bool = False) -> Contender:
    return Contender(
        environment="litserve", command=f"{{bin}}/python {{peers}}/litserve_app.py {{port}} {mode}", main=main
    )


def _bentoml(main: bool = False, **variables: str) -> Contender:
    return Contender(
        environment="bentoml",
        command="{bin}/bentoml serve bentoml_app:Service --port {port} --host 127.0.0.1",
        body="df",
        variables={"BENTOML_DO_NOT_TRACK": "True", **variables},
        main=main,
    )


def _ray(mode: str, *, main: bool = False) -> Contender:
    command = f"{{bin}}/python {{peers}}/ray_app.py {{port}} {mode}"
    return Contender(environment="ray", command=command, path="/", main=main, interrupt=True)


def _mlflow(environment: str, body: Format, *, main: bool = False) -> Contender:
    return Contender(
        environment=environment,
        prepare="{bin}/python {peers}/mlflow_save.py {work}/saved-{model}",
        command=(
            "{bin}/mlflow models serve --model-uri {work}/saved-{model} --port {port} --host 127.0.0.1 "
            "--env-manager local --workers 1"
        ),
        body=body,
        path="/invocations",
        variables={"MLFLOW_DISABLE_TELEMETRY": "true"},
        main=main,
    )


CONTENDERS: dict[str, Contender] = {
    # "backline" is what a user gets who sets nothing.
    "backline": _backline(main=True),
    "backline, 2 workers": _backline("--workers 2", main=True),
    "backline, batch off": _backline("--batch off", main=True),
    "backline, batch on": _backline("--batch on", main=True),  # for hooks, which share no calls by themselves
    "backline, pyarrow": _backline(model_environment="model-arrow"),  # where the model's environment has it
    "plain FastAPI": _fastapi(1),
    "plain FastAPI, 2 processes": _fastapi(2, main=True),
    "plain FastAPI, CSV": _fastapi(1, body="csv", path="/predict_csv", main=True),
    "Flask, gunicorn, 2 processes": _flask("--workers 2", main=True),
    "Flask, gunicorn, 2 gevent": _flask("--workers 2 --worker-class gevent"),
    "MLServer, in process": _mlserver(0, main=True),
    "MLServer, 1 worker": _mlserver(1),
    "MLServer, 2 workers": _mlserver(2),
    "MLServer, batching": _mlserver(1, batch=True, main=True),
    "LitServe": _litserve("w1"),
    "LitServe, 2 workers": _litserve("w2"),
    "LitServe, batching": _litserve("batch", main=True),
    "BentoML": _bentoml(),
    "BentoML, 2 workers": _bentoml(BENCH_WORKERS="2"),
    "BentoML, batching": _bentoml(BENCH_BATCH="1", main=True),
    "Ray Serve": _ray("plain"),
    "Ray Serve, batching": _ray("batch", main=True),
    "MLflow 3, FastAPI": _mlflow("mlflow3", "split", main=True),
    "MLflow 3, FastAPI, CSV": _mlflow("mlflow3", "csv"),
    "MLflow 2, Flask": _mlflow("mlflow2", "split", main=True),
    "KServe": Contender(
        environment="kserve",
        command="{bin}/python {peers}/kserve_app.py {port}",
        body="instances",
        path="/v1/models/model:predict",
        main=True,
    ),
}

BARE_LOOP = "bare loop"
"""Not a server: ``loop.py``, measured in turn with the contenders."""
