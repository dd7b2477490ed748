from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backline.config.problems import SettingError
from backline.config.settings import ADDRESS_OPTION, OPTIONS, Settings
from backline.config.sources import Resolved, load_settings
from backline_worker.contract.target_types import TargetType


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    return path


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def load(folder: Path | None, flags: dict[str, Any] | None = None, environ: dict[str, str] | None = None) -> Resolved:
    return load_settings(folder, flags or {}, environ or {})


def refused(
    folder: Path | None, flags: dict[str, Any] | None = None, environ: dict[str, str] | None = None
) -> SettingError:
    with pytest.raises(SettingError) as caught:
        load(folder, flags, environ)
    return caught.value


def test_nothing_given_gives_the_defaults(folder: Path) -> None:
    resolved = load(folder)
    assert resolved.settings.workers == Settings().workers
    assert resolved.settings.server == Settings().server
    assert resolved.settings.model.code_dir == folder
    assert {str(source) for source in resolved.sources.values()} == {"default", "argument DIR"}
    assert resolved.warnings == ()


def test_each_source_gives_way_to_the_one_above_it(folder: Path) -> None:
    write(
        folder,
        "model-metadata.yaml",
        "name: m\nruntimeParameterDefinitions:\n"
        "- fieldName: CUSTOM_MODEL_WORKERS\n  type: numeric\n  defaultValue: 2\n",
    )
    seen = []

    def look(flags: dict[str, Any], environ: dict[str, str]) -> None:
        resolved = load(folder, flags, environ)
        seen.append((resolved.settings.workers.count, str(resolved.sources["workers.count"]).replace(f"{folder}/", "")))

    environ: dict[str, str] = {}
    flags: dict[str, Any] = {}
    look(flags, environ)
    write(folder, "backline.toml", "# a comment\n[workers]\ncount = 3\n")
    look(flags, environ)
    environ["MLOPS_RUNTIME_PARAM_CUSTOM_MODEL_WORKERS"] = '{"type": "numeric", "payload": 4}'
    look(flags, environ)
    flags["model.runtime_params_file"] = str(write(folder, "params.yaml", "OTHER: 1\nCUSTOM_MODEL_WORKERS: 5\n"))
    look(flags, environ)
    environ["MAX_WORKERS"] = "6"
    look(flags, environ)
    environ["CUSTOM_MODEL_WORKERS"] = "7"
    look(flags, environ)
    environ["BACKLINE_WORKERS"] = "8"
    look(flags, environ)
    flags["workers.count"] = "9"
    look(flags, environ)
    assert seen == [
        (2, "model-metadata.yaml:5 CUSTOM_MODEL_WORKERS"),
        (3, "backline.toml:3"),
        (4, "environment MLOPS_RUNTIME_PARAM_CUSTOM_MODEL_WORKERS"),
        (5, "params.yaml:2 CUSTOM_MODEL_WORKERS"),
        (6, "environment MAX_WORKERS"),
        (7, "environment CUSTOM_MODEL_WORKERS"),
        (8, "environment BACKLINE_WORKERS"),
        (9, "flag --workers"),
    ]


def test_an_empty_variable_counts_as_not_set(folder: Path) -> None:
    assert load(folder, environ={"BACKLINE_WORKERS": " ", "MAX_WORKERS": "3"}).settings.workers.count == 3


@pytest.mark.parametrize("option", [*OPTIONS, ADDRESS_OPTION], ids=lambda option: option.dotted)
def test_every_setting_says_how_it_is_given(option: Any) -> None:
    assert option.help.endswith(".")
    assert option.flags
    assert option.variables[0].startswith("BACKLINE_")
    assert option.default is None or option.show(option.default)


def test_no_two_settings_share_a_flag_or_a_variable() -> None:
    flags = [flag for option in (*OPTIONS, ADDRESS_OPTION) for flag in option.flags]
    variables = [variable for option in (*OPTIONS, ADDRESS_OPTION) for variable in option.variables]
    assert len(set(flags)) == len(flags)
    assert len(set(variables)) == len(variables)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("0.0.0.0:80", "0.0.0.0", 80), ("localhost:6789", "localhost", 6789), ("[::1]:0", "::1", 0)],
)
def test_address_sets_host_and_port(folder: Path, text: str, host: str, port: int) -> None:
    server = load(folder, environ={"ADDRESS": text}).settings.server
    assert (server.host, server.port) == (host, port)


def test_a_single_port_wins_over_the_address_of_the_same_source(folder: Path) -> None:
    resolved = load(folder, {"server.address": "0.0.0.0:80", "server.port": "81"})
    assert (resolved.settings.server.host, resolved.settings.server.port) == ("0.0.0.0", 81)
    # and an address in the environment does not undo a port given as a flag
    resolved = load(folder, {"server.port": "81"}, {"ADDRESS": "0.0.0.0:80"})
    assert (resolved.settings.server.host, resolved.settings.server.port) == ("0.0.0.0", 81)


@pytest.mark.parametrize(
    "text", ["8080", ":8080", "host", "host:port", "host:99999", "::1:80", "http://host:80", "h:-1", "h:١"]
)
def test_what_is_no_address_is_refused(folder: Path, text: str) -> None:
    error = refused(folder, {"server.address": text})
    assert error.usage
    assert error.where == "flag --address"


@pytest.mark.parametrize(("text", "prefix"), [("", ""), ("/", ""), ("x/y", "/x/y"), ("/x/y/", "/x/y")])
def test_url_prefix_has_a_slash_before_and_none_behind(folder: Path, text: str, prefix: str) -> None:
    assert load(folder, {"server.url_prefix": text}).settings.server.url_prefix == prefix


@pytest.mark.parametrize("text", ["/a b", "/a?b", "//a//b", "/a%20b"])
def test_what_is_no_url_prefix_is_refused(folder: Path, text: str) -> None:
    assert "plain path" in refused(folder, {"server.url_prefix": text}).mend


@pytest.mark.parametrize(
    ("name", "value", "mend"),
    [
        ("workers.count", "0", "from 1 to 40"),
        ("workers.count", "41", "from 1 to 40"),
        ("workers.count", "many", "whole number"),
        ("workers.timeout", "-1", "seconds"),
        ("workers.timeout", "2h30", "seconds"),
        ("workers.memory_limit", "1MiB", "at least 32 MiB"),
        ("limits.max_body", "lots", "64KiB"),
        ("server.port", "70000", "from 0 to 65535"),
        ("model.target_type", "regresion", "regression"),
        ("log.level", "wran", "warn"),
        ("server.show_stacktrace", "maybe", "true or false"),
        ("model.target_name", "", "give a text"),
    ],
)
def test_a_wrong_value_is_refused_with_the_flag_and_the_mend(folder: Path, name: str, value: str, mend: str) -> None:
    error = refused(folder, {name: value})
    assert error.where.startswith("flag --")
    assert mend in error.mend
    assert error.usage


def test_timeout_0_is_no_limit(folder: Path) -> None:
    assert load(folder, environ={"DRUM_CLIENT_REQUEST_TIMEOUT": "0"}).settings.workers.timeout == 0


@pytest.mark.parametrize(("text", "seconds"), [("0", 1), ("20", 20), ("9999", 3600)])
def test_the_documented_drain_variable_is_clamped(folder: Path, text: str, seconds: float) -> None:
    resolved = load(folder, environ={"DRUM_GUNICORN_GRACEFUL_TIMEOUT": text})
    assert resolved.settings.server.drain_timeout == seconds
    assert len(resolved.warnings) == (0 if text == "20" else 1)


def test_our_own_drain_variable_is_not_clamped(folder: Path) -> None:
    assert load(folder, environ={"BACKLINE_DRAIN_TIMEOUT": "0"}).settings.server.drain_timeout == 0


def test_an_unknown_variable_of_ours_is_told_with_the_nearest(folder: Path) -> None:
    (warning,) = load(folder, environ={"BACKLINE_WORKRES": "3", "WORKRES": "3"}).warnings
    assert "BACKLINE_WORKRES" in warning
    assert "did you mean BACKLINE_WORKERS?" in warning


@pytest.mark.parametrize(
    ("text", "what", "mend", "line"),
    [
        ("[workers]\n\ncuont = 2\n", "unknown key workers.cuont", "did you mean count?", 3),
        ("[workers]\nqueue = 2\n", "unknown key workers.queue", "did you mean limits.queue?", 2),
        ("[workers]\nmax_workers = 2\n", "unknown key workers.max_workers", "did you mean workers.count?", 2),
        ("[worker]\ncount = 2\n", "unknown section worker", "did you mean workers?", 1),
        ("count = 2\n", "the key count stands outside a section", "put it under [workers] count", 1),
        ("[workers]\ncount = '2'\n", "workers.count: expected a whole number, found a string", "whole number", 2),
        ("[workers]\ncount = true\n", "workers.count: expected a whole number, found a boolean", "whole number", 2),
        ("[limits]\nmax_body = '2 parsecs'\n", "limits.max_body: 'parsecs' is no unit of bytes", "64KiB", 2),
        ("[workers]\ncount = 0\n", "0 is out of range for workers.count", "from 1 to 40", 2),
        ("[model]\ncode_dir = 'x'\n", "model.code_dir cannot be set in this file", "remove it", 2),
        ("model = 3\n", "model is a section, not a key", "[model]", 1),
    ],
)
def test_a_mistake_in_backline_toml_is_told_with_its_line(
    folder: Path, text: str, what: str, mend: str, line: int
) -> None:
    path = write(folder, "backline.toml", text)
    error = refused(folder)
    assert error.what == what
    assert mend in error.mend
    assert error.where == f"{path}:{line}"
    assert not error.usage


def test_broken_toml_is_told_with_line_and_column(folder: Path) -> None:
    path = write(folder, "backline.toml", "[workers]\npython = python3\n")
    error = refused(folder)
    assert error.where == f"{path}:2:10"
    assert error.mend == "put quotes around text"


def test_sizes_and_durations_may_be_strings_in_backline_toml(folder: Path) -> None:
    write(
        folder,
        "backline.toml",
        "[limits]\nmax_body = '2 MiB'\nqueue = 7\n[workers]\ntimeout = '2m'\nstart_timeout = 5\n",
    )
    settings = load(folder).settings
    assert (settings.limits.max_body, settings.limits.queue) == (2 * 1024**2, 7)
    assert (settings.workers.timeout, settings.workers.start_timeout) == (120.0, 5.0)


def test_a_path_is_taken_from_where_it_was_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, "rows.csv", "a\n1\n")
    write(folder, "backline.toml", "[model]\nexample = 'rows.csv'\n")
    write(folder.parent, "rows.csv", "a\n2\n")
    monkeypatch.chdir(folder.parent)
    assert load(Path("model")).settings.model.example == folder / "rows.csv"
    assert load(Path("model"), {"model.example": "rows.csv"}).settings.model.example == folder.parent / "rows.csv"


def test_a_file_that_is_not_there_is_usage_only_where_it_was_called_for(folder: Path) -> None:
    assert refused(folder, {"model.example": "nowhere.csv"}).usage
    write(folder, "backline.toml", "[model]\nexample = 'nowhere.csv'\n")
    error = refused(folder)
    assert "there is no file" in error.what
    assert not error.usage


def test_the_model_directory_comes_from_the_argument_the_flag_or_the_variable(folder: Path) -> None:
    assert load(None, {"model.code_dir": str(folder)}).settings.model.code_dir == folder
    assert load(None, environ={"CODE_DIR": str(folder)}).settings.model.code_dir == folder
    assert "no model directory" in refused(None).what


def test_a_wrong_model_directory_is_usage_with_the_mend(folder: Path) -> None:
    missing = refused(folder.parent / "modle")
    assert missing.usage
    assert missing.mend == f"did you mean {folder}?"
    file = refused(write(folder, "custom.py", ""))
    assert file.mend == f"name the directory it lies in: {folder}"


def test_metadata_gives_target_name_and_labels(folder: Path) -> None:
    write(
        folder,
        "model-metadata.yaml",
        "name: m\ntargetType: binary\ninferenceModel:\n  targetName: 2024\n"
        "  positiveClassLabel: yes\n  negativeClassLabel: 007\n",
    )
    model = load(folder).settings.model
    assert model.target_type is TargetType.BINARY
    # as written: YAML alone would make 2024, True and 7 of them
    assert (model.target_name, model.positive_class_label, model.negative_class_label) == ("2024", "yes", "007")


@pytest.mark.parametrize(
    ("words", "labels"),
    [
        (("a", "b", "c"), ("a", "b", "c")),
        (("a,b,c",), ("a", "b", "c")),
        (("a b c",), ("a", "b", "c")),
        (("a,", "b,", "c"), ("a", "b", "c")),
        (("big dog", "small dog"), ("big dog", "small dog")),
        (("big dog, small dog",), ("big dog", "small dog")),
    ],
)
def test_class_labels_as_words_or_as_one_list(folder: Path, words: tuple[str, ...], labels: tuple[str, ...]) -> None:
    resolved = load(folder, {"model.class_labels": words})
    assert resolved.settings.model.class_labels == labels
    assert resolved.settings.model.target_type is TargetType.MULTICLASS


@pytest.mark.parametrize("words", [("a",), ("a", "a"), (",",)])
def test_fewer_than_two_labels_or_one_twice_is_refused(folder: Path, words: tuple[str, ...]) -> None:
    assert refused(folder, {"model.class_labels": words}).where == "flag --class-labels"


def test_a_class_labels_file_of_a_stronger_source_wins_over_labels(folder: Path) -> None:
    write(folder, "model-metadata.yaml", "name: m\ntargetType: multiclass\ninferenceModel:\n  classLabels: [a, no]\n")
    assert load(folder).settings.model.class_labels == ("a", "no")
    path = write(folder, "labels.txt", "one\n\ntwo three\n")
    resolved = load(folder, {"model.class_labels_file": str(path)})
    assert resolved.settings.model.class_labels == ("one", "two three")
    assert str(resolved.sources["model.class_labels"]) == f"{path} (flag --class-labels-file)"


def test_labels_and_labels_file_from_one_source_are_refused(folder: Path) -> None:
    path = write(folder, "labels.txt", "a\nb\n")
    error = refused(folder, {"model.class_labels": ("a", "b"), "model.class_labels_file": str(path)})
    assert error.where == "flag --class-labels and flag --class-labels-file"


def test_two_labels_alone_mean_binary(folder: Path) -> None:
    resolved = load(folder, {"model.positive_class_label": "1", "model.negative_class_label": "0"})
    assert resolved.settings.model.target_type is TargetType.BINARY
    assert "the two class labels" in str(resolved.sources["model.target_type"])


def test_the_same_label_twice_is_refused(folder: Path) -> None:
    error = refused(folder, {"model.positive_class_label": "1", "model.negative_class_label": "1"})
    assert "both '1'" in error.what


def test_labels_that_mean_nothing_for_the_target_type_are_told(folder: Path) -> None:
    flags = {"model.target_type": "regression", "model.class_labels": ("a", "b")}
    (warning,) = load(folder, flags).warnings
    assert "class labels (flag --class-labels) has no meaning for the target type regression" in warning


@pytest.mark.parametrize("payload", ["3", '{"payload": "x"}', "[]", '{"type": "numeric"}', '{"payload": 1.5}'])
def test_a_broken_workers_parameter_is_refused(folder: Path, payload: str) -> None:
    error = refused(folder, environ={"MLOPS_RUNTIME_PARAM_CUSTOM_MODEL_WORKERS": payload})
    assert error.where == "environment MLOPS_RUNTIME_PARAM_CUSTOM_MODEL_WORKERS"


def test_a_workers_parameter_out_of_range_is_refused_where_it_stands(folder: Path) -> None:
    path = write(folder, "params.yaml", "CUSTOM_MODEL_WORKERS: 41\n")
    error = refused(folder, {"model.runtime_params_file": str(path)})
    assert error.where == f"{path}:1 CUSTOM_MODEL_WORKERS"


# The backend


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        (" https://LLM.example.com/team/ ", "https://llm.example.com/team"),
        ("http://[::1]:8000/", "http://[::1]:8000"),
    ],
)
def test_a_backend_is_a_url_without_a_slash_at_its_end(folder: Path, text: str, url: str) -> None:
    assert load(folder, {"backend.url": text}).settings.backend.url == url
    assert load(folder, {}, {"BACKLINE_BACKEND": text}).settings.backend.url == url


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1:8000", "localhost", "ftp://x", "http://", "http://a b", "http://a:99999", "http://a:0", "http://a?b=1",
        "http://a#b", "http://a/../b", "http://a/%2e%2e/b", "http://a\\b", "http://ä.example", "http://[::1",
    ],
)  # fmt: skip
def test_what_is_no_backend_is_refused_with_an_example(folder: Path, text: str) -> None:
    problem = refused(folder, {"backend.url": text})
    assert str(problem).startswith("flag --backend: ")
    assert problem.usage


def test_a_password_in_a_backends_url_is_not_repeated(folder: Path) -> None:
    problem = refused(folder, {}, {"BACKLINE_BACKEND": "http://me:secret@host"})
    assert "secret" not in str(problem)
    assert "Authorization" in problem.mend


def test_a_backend_needs_no_directory_and_nothing_in_ours_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "backline.toml", "[server]\nport = 1\n")
    write(tmp_path, "model-metadata.yaml", "targetType: nonsense\n")
    monkeypatch.chdir(tmp_path)
    resolved = load(None, {"backend.url": "http://a"})
    assert resolved.settings.backend.sidecar
    assert str(resolved.sources["backend.sidecar"]) == "no model directory"
    assert resolved.settings.server.port == 8080


def test_a_backend_beside_a_directory_leaves_the_model_in_place(folder: Path) -> None:
    write(folder, "backline.toml", '[backend]\nurl = "http://a:1"\ntimeout = "5 s"\n')
    backend = load(folder).settings.backend
    assert (backend.url, backend.timeout, backend.sidecar) == ("http://a:1", 5.0, False)


def test_a_sidecar_without_a_backend_has_the_documented_one(folder: Path) -> None:
    for resolved in (load(folder, {"backend.sidecar": True}), load(None, {}, {"SIDECAR": "1"})):
        assert resolved.settings.backend.url == "http://localhost:8000"
        assert str(resolved.sources["backend.url"]) == "--sidecar"


def test_the_documented_variable_is_the_time_to_the_first_byte(folder: Path) -> None:
    backend = load(folder, {}, {"NIM_DIRECT_ACCESS_REQUEST_TIMEOUT": "3600"}).settings.backend
    assert backend.timeout == 3600.0


def test_without_a_backend_a_directory_is_needed() -> None:
    assert refused(None, {"backend.sidecar": False}).what == "no model directory"
