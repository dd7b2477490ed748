"""Every setting of Backline: one frozen tree.

The fields are the single source: flags, environment variables, ``backline.toml`` keys, ``backline config show`` and the
reference page are made from them. How values are found and which wins is in ``sources``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backline.config.backend_kinds import BACKEND_KINDS
from backline.config.kinds import (
    ADDRESS,
    ADMIN_ADDRESS,
    BACKEND_URL,
    COMMAND,
    DURATION,
    INTEGER,
    JSON_OBJECT,
    LABELS,
    NAMES,
    NUMBER,
    PATH,
    SIZE,
    SWITCH,
    TARGET_TYPE,
    TEXT,
    URL_PREFIX,
    choice,
)
from backline.config.option import Option, options_of, setting
from backline_worker.contract.target_types import TargetType

_KIB, _MIB, _GIB = 1024, 1024**2, 1024**3
_DAY = 86_400
_SERVE = ("serve",)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """Which model, and how its data is read."""

    code_dir: Path = setting(
        Path(),
        dataclasses.replace(PATH, metavar="DIR"),
        "The model directory; the same as the argument DIR.",
        flags=("--code-dir", "-cd"),
        twins=("CODE_DIR",),
        in_file=False,
    )
    target_type: TargetType | None = setting(
        None,
        TARGET_TYPE,
        "What the model predicts.",
        twins=("TARGET_TYPE",),
        show_none="not given",
    )
    target_name: str | None = setting(
        None,
        TEXT,
        "Name of the target column; text generation models answer in a column of this name.",
        twins=("TARGET_NAME",),
        show_none="not given",
    )
    positive_class_label: str | None = setting(
        None, TEXT, "Binary: the label of the positive class.", twins=("POSITIVE_CLASS_LABEL",), show_none="not given"
    )
    negative_class_label: str | None = setting(
        None, TEXT, "Binary: the label of the negative class.", twins=("NEGATIVE_CLASS_LABEL",), show_none="not given"
    )
    class_labels: tuple[str, ...] = setting(
        (),
        LABELS,
        "Multiclass: the labels, as several words (a b c) or one list (a,b,c).",
        twins=("CLASS_LABELS",),
    )
    class_labels_file: Path | None = setting(
        None, PATH, "Multiclass: a file with one label a line.", twins=("CLASS_LABELS_FILE",)
    )
    runtime_params_file: Path | None = setting(
        None,
        PATH,
        "A YAML file with the values of runtime parameters.",
        twins=("RUNTIME_PARAMS_FILE",),
    )
    example: Path | None = setting(None, PATH, "A file with rows that every worker predicts before it counts as ready.")
    unknown_columns: str = setting(
        "ignore", choice("ignore", "refuse"), "What to do with columns that the model was not fitted on."
    )
    strict_validation: bool = setting(
        True,
        SWITCH,
        "Check what the model returns: columns, row count, probabilities that sum to one.",
        flags=("--strict-validation",),
        off_flag="--disable-strict-validation",
    )
    read_input_data_as_path: bool = setting(
        False, SWITCH, "Hand read_input_data the path of a file, as folders from before 2020 expect, not bytes."
    )
    latitude_column: str = setting("latitude", TEXT, "Geo point: the column with the latitude that the model returns.")
    longitude_column: str = setting(
        "longitude", TEXT, "Geo point: the column with the longitude that the model returns."
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """The HTTP server."""

    host: str = setting(
        "127.0.0.1",
        TEXT,
        "The interface to listen on. Only this machine reaches the default; 0.0.0.0 lets everyone in who shows a "
        "key, where there is --api-keys-file, and else just everyone.",
        commands=_SERVE,
    )
    port: int = setting(
        8080, INTEGER, "The port to listen on; 0 takes any free one.", least=0, most=65535, commands=_SERVE
    )
    url_prefix: str = setting("", URL_PREFIX, "A path put before every route.", twins=("URL_PREFIX",), commands=_SERVE)
    with_error_server: bool = setting(
        False,
        SWITCH,
        "Where the model cannot be loaded, keep serving and answer 513 with the reason instead of exiting.",
        flags=("--with-error-server", "--force-start-internal"),
        twins=("WITH_ERROR_SERVER",),
        commands=_SERVE,
    )
    show_stacktrace: bool = setting(
        False,
        SWITCH,
        "Put the traceback of the model's own code into error answers and messages.",
        twins=("SHOW_STACKTRACE",),
    )
    drain_timeout: float = setting(
        299.0,
        DURATION,
        "On stop: how long accepted requests may take to finish.",
        twins=("DRUM_GUNICORN_GRACEFUL_TIMEOUT",),
        clamped={"DRUM_GUNICORN_GRACEFUL_TIMEOUT": (1, 3600)},
        least=0,
        most=_DAY,
        commands=_SERVE,
    )
    drain_delay: float = setting(
        0.0,
        DURATION,
        "On stop: how long requests are still accepted while the readiness probes already say no, so that load "
        "balancers can take the server out first.",
        least=0,
        most=3600,
        commands=_SERVE,
    )
    loop: str = setting(
        "auto",
        choice("auto", "uvloop", "asyncio"),
        "The event loop: uvloop, which has to be installed, or Python's own asyncio; auto is uvloop where it is there.",
        commands=_SERVE,
    )
    reload: bool = setting(
        False,
        SWITCH,
        "For development: load the model folder anew whenever a file in it changes. The server stays up where it does "
        "not load.",
        commands=_SERVE,
    )
    admin_address: str | None = setting(
        None,
        ADMIN_ADDRESS,
        "Where operators may ask for a reload, apart from the clients: unix:PATH, which only the server's user can "
        "open, or host:port with --admin-keys-file.",
        show_none="none",
        commands=_SERVE,
    )
    admin_keys_file: Path | None = setting(
        None,
        PATH,
        "A file with the keys that the admin address asks for, in the form of --api-keys-file.",
        show_none="none",
        commands=_SERVE,
    )
    allow_shutdown: bool = setting(
        False,
        SWITCH,
        "Let POST /shutdown/ stop the server; for development, as every client can then stop it.",
        commands=_SERVE,
    )
    custom_flask: bool = setting(
        True,
        SWITCH,
        "Run custom_flask.py of the model directory: its hooks before each request, its routes beside ours. It needs "
        "Flask and the extra flask-bridge; without them the server does not start, unless this is turned off.",
        commands=_SERVE,
    )
    stream_keep_alive: float = setting(
        15.0,
        DURATION,
        "After how long a silence of a streamed chat a comment is sent, so that nothing on the way closes the "
        "connection.",
        least=0.1,
        most=_DAY,
        zero="never",
        commands=_SERVE,
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """The processes that hold the model."""

    count: int = setting(
        1,
        INTEGER,
        "How many processes hold a copy of the model.",
        flags=("--workers", "--max-workers"),
        twins=("CUSTOM_MODEL_WORKERS", "MAX_WORKERS"),
        least=1,
        most=40,
    )
    preload: bool = setting(
        False,
        SWITCH,
        "Load the model once and fork the workers from that process: they share its memory, and one that dies is "
        "replaced in milliseconds. Linux only; a model that cannot be forked safely is refused with the reason.",
    )
    min_ready: int = setting(
        1,
        INTEGER,
        "How many workers must have the model loaded for the readiness probes to say yes; --workers if that is fewer.",
        least=1,
        most=40,
        commands=_SERVE,
    )
    python: str = setting(
        "current",
        dataclasses.replace(TEXT, metavar="PATH"),
        "The model's environment: current, which is the server's own; a path to a python, to an environment directory "
        "or to a packed conda environment (.tar.gz); or auto, built from what the model directory asks for.",
        flags=("--python", "--env"),
        twins=("BACKLINE_ENV",),
    )
    env_cache: Path | None = setting(
        None,
        dataclasses.replace(PATH, name="a directory", metavar="DIR", is_path=False),
        "Where environments that are built for models are kept; several servers may share it.",
        show_none="`backline/environments` in `$XDG_CACHE_HOME`, or in `~/.cache`",
    )
    env_timeout: float = setting(
        1800.0,
        DURATION,
        "How long building the model's environment may take, and waiting for another server that builds it.",
        least=1,
        most=_DAY,
    )
    start_timeout: float = setting(
        600.0, DURATION, "How long a worker may take to load the model.", least=0.1, most=_DAY
    )
    timeout: float = setting(
        600.0,
        DURATION,
        "How long a request may take, counted from its arrival.",
        flags=("--timeout", "--request-timeout"),
        twins=("DRUM_CLIENT_REQUEST_TIMEOUT",),
        least=0.001,
        most=_DAY,
        zero="no limit",
    )
    timeout_grace: float = setting(
        1.0, DURATION, "How long a worker may go on past the deadline before it is killed.", least=0, most=_DAY
    )
    cancel_grace: float = setting(
        10.0, DURATION, "How long a call may go on after its client has left.", least=0, most=_DAY
    )
    threads: int = setting(
        16,
        INTEGER,
        "How many chats a worker answers at a time where the chat hook is a plain function; 1 for a hook that must not "
        "run beside itself.",
        least=1,
        most=1000,
        commands=_SERVE,
    )
    chats: int = setting(
        1024,
        INTEGER,
        "How many chats a worker answers at a time where the chat hook is an async function.",
        least=1,
        most=100_000,
        commands=_SERVE,
    )
    stream_timeout: float = setting(
        3600.0,
        DURATION,
        "How long a stream may take in all, counted from the request's arrival; --timeout is for its first chunk.",
        least=0.001,
        most=_DAY,
        zero="no limit",
        commands=_SERVE,
    )
    memory_limit: int | None = setting(None, SIZE, "The most memory that one worker may use.", least=32 * _MIB)
    math_threads: int = setting(
        0,
        INTEGER,
        "How many threads the numeric libraries (BLAS, OpenMP) of one worker may use. Who sets OMP_NUM_THREADS himself "
        "is left alone.",
        least=1,
        most=1024,
        zero="the cores divided by the workers",
    )
    recycle_requests: int = setting(
        0,
        INTEGER,
        "After about how many requests a worker is replaced; its successor is ready first.",
        least=1,
        zero="never",
        commands=_SERVE,
    )
    recycle_age: float = setting(
        0.0,
        DURATION,
        "After about how long a worker is replaced; its successor is ready first.",
        least=1,
        zero="never",
        commands=_SERVE,
    )
    recycle_memory: int | None = setting(
        None,
        SIZE,
        "With how much memory of its own a worker is replaced, once its successor is ready.",
        least=1,
        show_none="nine tenths of --memory-limit, if that is given",
        commands=_SERVE,
    )
    heartbeat_interval: float = setting(
        10.0,
        DURATION,
        "After how long without a request a worker is asked for a sign of life.",
        least=0.1,
        most=_DAY,
        zero="never",
        commands=_SERVE,
    )
    heartbeat_timeout: float = setting(
        30.0,
        DURATION,
        "How long an idle worker may take for a sign of life until it is replaced.",
        least=0.1,
        most=_DAY,
        commands=_SERVE,
    )
    reload_mode: str = setting(
        "rolling",
        choice("rolling", "together"),
        "How a reload (SIGHUP, --reload, or asked for at the admin address) replaces the workers: rolling, one after "
        "another, which needs memory for one more copy of the model; or together, all in one moment once all new ones "
        "are ready, which needs twice the memory.",
        commands=_SERVE,
    )
    max_restarts: int = setting(
        5, INTEGER, "How many failed starts in a row make the model failed.", least=0, most=1000, commands=_SERVE
    )
    restart_backoff: float = setting(
        0.5,
        DURATION,
        "The wait before a second restart; it doubles with each further one, up to 30 s.",
        least=0,
        most=30,
        commands=_SERVE,
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BatchSettings:
    """How waiting requests share a call of the model."""

    mode: str = setting(
        "auto",
        choice("auto", "on", "off"),
        "Answer several waiting predictions with one call of the model: auto where rows are known to be independent "
        "(an artifact of a known library, without hooks), on for hooks that look at each row by itself. With on, score "
        "gives such hooks a file in chunks.",
        flags=("--batch",),
    )
    max_rows: int = setting(
        4096,
        INTEGER,
        "The most rows of a batch.",
        flags=("--max-batch-rows",),
        least=1,
        most=1_000_000,
        commands=_SERVE,
    )
    max_bytes: int = setting(
        _MIB, SIZE, "The most bytes of a batch.", flags=("--max-batch-bytes",), least=1, commands=_SERVE
    )
    delay: float = setting(
        0.0,
        DURATION,
        "How long a request may wait for others to share its call; without it only for a moment, and only where that "
        "is sure to pay.",
        flags=("--batch-delay",),
        least=0,
        most=60,
        commands=_SERVE,
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ScoreSettings:
    """How files are scored."""

    chunk_size: int = setting(
        4 * _MIB,
        SIZE,
        "How much of the input a worker reads at a time.",
        least=1024,
        most=256 * _MIB,
        commands=("score",),
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ValidateSettings:
    """How a model is validated."""

    allow: tuple[str, ...] = setting(
        (),
        NAMES,
        "Modules or names, besides those of the known libraries, that pickles in the directory may name, as a list "
        "(sktime,mypackage.models.Scaler).",
        commands=("validate",),
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    """What is refused rather than taken on."""

    max_body: int = setting(_GIB, SIZE, "The largest request body.", least=1)
    max_decompressed: int = setting(4 * _GIB, SIZE, "The largest body once it is decompressed or decoded.", least=1)
    queue: int = setting(
        1024, INTEGER, "How many requests may wait for a worker.", least=0, most=1_000_000, commands=_SERVE
    )
    max_wait: float = setting(
        5.0,
        DURATION,
        "How long a request may be expected to wait for a worker, by how many wait and how quickly the model has "
        "answered; one more is refused at once. 32 may wait, however long that takes.",
        least=0.001,
        most=_DAY,
        zero="no limit",
        commands=_SERVE,
    )
    max_bytes_in_flight: int = setting(
        4 * _GIB, SIZE, "The most bytes of request bodies held at a time.", least=1, commands=_SERVE
    )
    per_client: int = setting(
        0,
        INTEGER,
        "How many requests of one client, told by its address, may be under way at a time; one more is answered 429. "
        "Behind a proxy or load balancer all clients have its address.",
        flags=("--max-per-client",),
        least=1,
        most=1_000_000,
        zero="no limit",
        commands=_SERVE,
    )
    max_connections: int | None = setting(
        None,
        INTEGER,
        "How many connections there may be. Over it idle ones are closed, and only probes are answered on new ones.",
        least=1,
        most=1_000_000,
        show_none="10000, or what the limit on open files allows",
        commands=_SERVE,
    )
    max_head: int = setting(
        64 * _KIB, SIZE, "The largest request line and headers.", least=1024, most=_MIB, commands=_SERVE
    )
    head_timeout: float = setting(
        15.0,
        DURATION,
        "How long the headers of a request may take to come.",
        least=1,
        most=_DAY,
        zero="no limit",
        commands=_SERVE,
    )
    body_timeout: float = setting(
        20.0,
        DURATION,
        "How long the body of a request to the model may take to come, not counting a second for every "
        "limits.min_body_rate bytes of it.",
        least=1,
        most=_DAY,
        zero="no limit",
        commands=_SERVE,
    )
    min_body_rate: int = setting(
        500,
        SIZE,
        "How many bytes of a body buy it a further second, see limits.body_timeout.",
        least=1,
        commands=_SERVE,
    )
    send_timeout: float = setting(
        60.0,
        DURATION,
        "How long a client may leave its answer unread, once the system's buffers are full of it.",
        least=1,
        most=_DAY,
        zero="no limit",
        commands=_SERVE,
    )
    max_parts: int = setting(32, INTEGER, "The most parts of a multipart body.", least=1, most=10_000, commands=_SERVE)
    max_part_headers: int = setting(
        16 * _KIB, SIZE, "The largest headers of one multipart part.", least=256, most=_MIB, commands=_SERVE
    )
    poison_time: float = setting(
        300.0,
        DURATION,
        "How long a body that has killed two workers is refused.",
        least=0,
        most=_DAY,
        commands=_SERVE,
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BackendSettings:
    """The LLM backend that ``/directAccess``, ``/nim`` and, where no hook answers them, the OpenAI routes lead to."""

    url: str | None = setting(
        None,
        BACKEND_URL,
        "The address of an LLM backend (NIM, vLLM, any HTTP server): /directAccess/... and /nim/... are passed on to "
        "it, and so are the OpenAI routes that no hook answers. Without DIR nothing else is served.",
        flags=("--backend",),
        show_none="none",
        commands=_SERVE,
    )
    kind: str | None = setting(
        None,
        choice(*BACKEND_KINDS),
        "What the backend is: sets the paths that say whether it is ready, and the port where neither --backend nor "
        "{port} in --backend-command says it.",
        flags=("--backend-kind", "--gpu-predictor"),
        show_none="not given",
        commands=_SERVE,
    )
    command: tuple[str, ...] | None = setting(
        None,
        COMMAND,
        "A command that starts the backend: Backline runs it, without a shell, restarts it when it dies and stops it "
        "at its own end. {port} in it becomes the port of --backend, or a free one.",
        flags=("--backend-command",),
        commands=_SERVE,
    )
    start_timeout: float = setting(
        1800.0,
        DURATION,
        "With --backend-command: how long the backend may take from its start until it is ready.",
        flags=("--backend-start-timeout",),
        least=0.1,
        most=_DAY,
        commands=_SERVE,
    )
    stop_timeout: float = setting(
        20.0,
        DURATION,
        "With --backend-command: how long the backend may take to stop before it is killed.",
        flags=("--backend-stop-timeout",),
        least=0,
        most=_DAY,
        commands=_SERVE,
    )
    max_restarts: int = setting(
        5,
        INTEGER,
        "With --backend-command: how many failed starts in a row make the backend failed.",
        flags=("--backend-max-restarts",),
        least=0,
        most=1000,
        commands=_SERVE,
    )
    restart_backoff: float = setting(
        0.5,
        DURATION,
        "With --backend-command: the wait before a second restart; it doubles with each further one, up to 30 s.",
        flags=("--backend-restart-backoff",),
        least=0,
        most=30,
        commands=_SERVE,
    )
    sidecar: bool = setting(
        False,
        SWITCH,
        "Only pass requests on to the backend, and start no model even where there is a DIR. Without --backend the "
        "backend is http://localhost:8000.",
        flags=("--sidecar",),
        twins=("SIDECAR",),
        commands=_SERVE,
    )
    ready_path: str | None = setting(
        None,
        TEXT,
        "The path that the backend answers with 2xx when it is ready, below the path of --backend. Without one, that "
        "of --backend-kind; without that, any answer below 500 to GET / will do.",
        flags=("--backend-ready-path",),
        show_none="none",
        commands=_SERVE,
    )
    api_key_variable: str | None = setting(
        None,
        TEXT,
        "The environment variable with a key for the backend, such as OPENAI_API_KEY. It is sent by the OpenAI routes "
        "and with rows, where a request brings no Authorization header of its own, and when the backend is asked "
        "whether it is ready; never by direct access.",
        flags=("--backend-api-key-variable",),
        show_none="none",
        commands=_SERVE,
    )
    client: str = setting(
        "auto",
        choice("auto", "http1", "aiohttp", "httpx2", "httpx"),
        "The HTTP client that talks to the backend: our own (http1, which needs httptools), or a library, which then "
        "has to be installed. With auto the first of these that can be used.",
        flags=("--backend-client",),
        commands=_SERVE,
    )
    connections: int = setting(
        1024,
        INTEGER,
        "How many requests may be under way to the backend at a time; each has a connection to itself.",
        flags=("--backend-connections",),
        least=1,
        most=100_000,
        commands=_SERVE,
    )
    connect_timeout: float = setting(
        5.0,
        DURATION,
        "How long connecting to the backend may take.",
        flags=("--backend-connect-timeout",),
        least=0.01,
        most=_DAY,
        commands=_SERVE,
    )
    timeout: float = setting(
        600.0,
        DURATION,
        "How long the backend may take to begin its answer, counted from when it has the request.",
        flags=("--backend-timeout",),
        twins=("NIM_DIRECT_ACCESS_REQUEST_TIMEOUT",),
        least=0.01,
        most=_DAY,
        zero="no limit",
        commands=_SERVE,
    )
    idle_timeout: float = setting(
        300.0,
        DURATION,
        "How long an answer that has begun, or a request's body, may stand still. There is no limit on the whole.",
        flags=("--backend-idle-timeout",),
        least=0.01,
        most=_DAY,
        zero="no limit",
        commands=_SERVE,
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GenerationSettings:
    """How rows are answered by the backend, for a text-generation model without hooks that would do it."""

    prompt_column: str = setting("promptText", TEXT, "The column that holds the prompts.", commands=_SERVE)
    model: str | None = setting(
        None,
        TEXT,
        "The model that the backend is asked for. Without one, the first that it lists.",
        flags=("--generation-model",),
        show_none="the backend's first",
        commands=_SERVE,
    )
    system_prompt: str | None = setting(
        None, TEXT, "A system message that goes before every prompt.", show_none="none", commands=_SERVE
    )
    max_tokens: int | None = setting(
        None, INTEGER, "The most tokens of a text.", least=1, show_none="the backend's own", commands=_SERVE
    )
    temperature: float | None = setting(
        None, NUMBER, "The sampling temperature.", least=0, most=100, show_none="the backend's own", commands=_SERVE
    )
    parameters: Mapping[str, Any] | None = setting(
        None,
        JSON_OBJECT,
        'Further fields of each request to the backend, as a JSON object, such as {"top_p": 0.9}.',
        flags=("--generation-parameters",),
        commands=_SERVE,
    )
    concurrency: int = setting(
        8,
        INTEGER,
        "How many rows of a request are asked for at a time.",
        flags=("--generation-concurrency",),
        least=1,
        most=1000,
        commands=_SERVE,
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SecuritySettings:
    """Who may ask, and what the model may do."""

    api_keys_file: Path | None = setting(
        None,
        PATH,
        "A file with the keys that callers must show (Authorization: Bearer KEY, or X-API-Key: KEY), one a line, each "
        "with a name before it if you like; sha256: and a digest does as well as a key. Probes need none. The file is "
        "read again when it changes.",
        commands=_SERVE,
    )
    tls: bool = setting(
        True,
        SWITCH,
        "Serve HTTPS where there is a certificate; without, plain HTTP whatever the other settings say, as on a port "
        "of this machine that only a test asks.",
        commands=_SERVE,
    )
    tls_cert: Path | None = setting(
        None,
        PATH,
        "Serve HTTPS with this certificate chain (PEM); read again when it changes.",
        commands=_SERVE,
    )
    tls_key: Path | None = setting(
        None, PATH, "The certificate's private key, where it is not in the same file.", commands=_SERVE
    )
    tls_client_ca: Path | None = setting(
        None,
        PATH,
        "Take only clients with a certificate that one of these authorities has signed.",
        commands=_SERVE,
    )
    cors_origins: str | None = setting(
        None,
        TEXT,
        "The web pages that may call this server from a browser, such as https://app.example.com; several with commas "
        "between them, * for all.",
        flags=("--cors-origins",),
        commands=_SERVE,
    )
    worker_user: str | None = setting(
        None,
        TEXT,
        "Run the model as this user, who then can write no file of the server's; the server has to run as root for it.",
        flags=("--worker-user",),
        show_none="the server's own",
        commands=_SERVE,
    )
    worker_network: bool = setting(
        True,
        SWITCH,
        "Let the model reach the network. Without, it has none at all, not even this machine's (Linux; unshare of "
        "util-linux does it, as root or where the system lets users make namespaces).",
        flags=("--worker-network",),
        commands=_SERVE,
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ShadowSettings:
    """A second server or model that is asked the same, and whose answers nobody waits for."""

    target: str | None = setting(
        None,
        dataclasses.replace(TEXT, metavar="URL|DIR"),
        "Mirror predictions and chats to a server that runs, or to a model directory that is then served beside this "
        "one, with processor time that nobody else wants. Callers get their answers before; what differs is counted.",
        flags=("--shadow",),
        show_none="none",
        commands=_SERVE,
    )
    sample: float = setting(
        1.0,
        NUMBER,
        "The share of requests that are mirrored, from 0 to 1.",
        flags=("--shadow-sample",),
        least=0,
        most=1,
        commands=_SERVE,
    )
    python: str | None = setting(
        None,
        dataclasses.replace(TEXT, metavar="PATH"),
        "The interpreter of the shadow's environment, where it is a directory; else what its backline.toml says.",
        flags=("--shadow-python",),
        show_none="not given",
        commands=_SERVE,
    )
    store: Path = setting(
        Path("shadow.sqlite"),
        dataclasses.replace(PATH, metavar="FILE", is_path=False),  # not one that has to be there
        "The file that keeps requests, both answers and verdicts; backline parity report reads it.",
        flags=("--shadow-store",),
        commands=_SERVE,
    )
    max_size: int = setting(
        1024 * _MIB,
        SIZE,
        "The most that this file may hold; then the oldest are dropped.",
        flags=("--shadow-max-size",),
        least=_MIB,
        commands=_SERVE,
    )
    timeout: float = setting(
        60.0,
        DURATION,
        "How long the shadow may take to answer.",
        flags=("--shadow-timeout",),
        least=0.01,
        most=_DAY,
        commands=_SERVE,
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """Logs, which go to standard error."""

    level: str = setting(
        "info",
        choice("noset", "debug", "info", "warn", "warning", "error", "critical"),
        "The least level that is written; --verbose is short for debug.",
        flags=("--logging-level", "--log-level"),
        twins=("LOGGING_LEVEL",),
    )
    format: str = setting(
        "auto",
        choice("auto", "text", "json"),
        "Text for people, or one JSON object a line for programs; auto is text on a terminal and in backline score, "
        "JSON elsewhere.",
        flags=("--log-format",),
    )
    access: str = setting(
        "errors",
        choice("off", "errors", "all"),
        "Which requests get a line of their own when they are answered: those answered with 400 and above, or all, "
        "with the time that each stage took. Faults (500 and above) are logged whatever it is.",
        flags=("--access-log",),
        commands=_SERVE,
    )
    worker_lines_per_second: int = setting(
        1000,
        INTEGER,
        "How many lines a second of a worker's output are logged; what is over is counted.",
        least=1,
        most=1_000_000,
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole tree."""

    model: ModelSettings = ModelSettings()
    server: ServerSettings = ServerSettings()
    workers: WorkerSettings = WorkerSettings()
    batch: BatchSettings = BatchSettings()
    score: ScoreSettings = ScoreSettings()
    validate: ValidateSettings = ValidateSettings()
    limits: LimitSettings = LimitSettings()
    backend: BackendSettings = BackendSettings()
    generation: GenerationSettings = GenerationSettings()
    security: SecuritySettings = SecuritySettings()
    shadow: ShadowSettings = ShadowSettings()
    log: LogSettings = LogSettings()


SECTIONS: dict[str, type] = {
    "model": ModelSettings,
    "server": ServerSettings,
    "workers": WorkerSettings,
    "batch": BatchSettings,
    "score": ScoreSettings,
    "validate": ValidateSettings,
    "limits": LimitSettings,
    "backend": BackendSettings,
    "generation": GenerationSettings,
    "security": SecuritySettings,
    "shadow": ShadowSettings,
    "log": LogSettings,
}
"""The dataclass of each section, in the order of the tree."""

OPTIONS: tuple[Option, ...] = tuple(
    option for section, settings_class in SECTIONS.items() for option in options_of(section, settings_class)
)
"""Every setting, in order."""

ADDRESS_OPTION = Option(
    section="server",
    name="address",
    kind=ADDRESS,
    help="Host and port in one. The default, 127.0.0.1:8080, is reached from this machine only. Without "
    "--api-keys-file nothing asks a caller who he is, so 0.0.0.0 (every interface) is yours to choose.",
    default=None,
    flags=("--address",),
    twins=("ADDRESS",),
    commands=_SERVE,
)
"""Sets ``server.host`` and ``server.port`` at once; where one source has both, the single ones win."""
