"""The manifests of ``deploy/kubernetes``: Kubernetes takes them, and they say what the server does."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from backline.api.app import probe_paths
from backline.config import units
from backline.config.settings import ServerSettings, WorkerSettings
from backline.observe.families import FAMILIES

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
MANIFESTS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(FOLDER.glob("*.yaml"))}
# Of others than Kubernetes itself, which has no schema for them.
FOREIGN = ("kustomization", "pod-monitor")
OLDEST_AND_NEWEST = ("1.28", "1.37")


def pod() -> dict[str, Any]:
    spec: dict[str, Any] = MANIFESTS["deployment"]["spec"]["template"]["spec"]
    return spec


def server() -> dict[str, Any]:
    (container,) = pod()["containers"]
    assert isinstance(container, dict)
    return container


def validate(python: Path, version: str, *files: Path) -> subprocess.CompletedProcess[str]:
    command = [str(python.parent / "kubernetes-validate"), "--strict", "--kubernetes-version", version]
    return subprocess.run([*command, *map(str, files)], capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("version", OLDEST_AND_NEWEST)
def test_kubernetes_takes_the_manifests(version: str, environment: Callable[[str], Path], tmp_path: Path) -> None:
    python = environment("kubernetes")
    ours = [FOLDER / f"{name}.yaml" for name in MANIFESTS if name not in FOREIGN]
    checked = validate(python, version, *ours)
    said = checked.stdout + checked.stderr
    assert checked.returncode == 0, said
    assert said.count(" passed for resource ") == len(ours), said
    assert "WARN" not in said, said
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text((FOLDER / "deployment.yaml").read_text().replace("periodSeconds: 10", "periodSecond: 10"))
    assert validate(python, version, wrong).returncode != 0


def test_the_kustomization_names_every_manifest_that_is_there() -> None:
    lines = (FOLDER / "kustomization.yaml").read_text().splitlines()
    named = {line.strip(" #-").removesuffix(".yaml") for line in lines if line.endswith(".yaml")}
    assert named == set(MANIFESTS) - {"kustomization"}
    (image,) = MANIFESTS["kustomization"]["images"]
    assert image["name"] == server()["image"]


def test_everything_selects_the_pods_of_the_deployment() -> None:
    template = MANIFESTS["deployment"]["spec"]["template"]["metadata"]["labels"]
    assert MANIFESTS["service"]["spec"]["selector"] == template
    for name in ("deployment", "disruption-budget", "pod-monitor"):
        assert MANIFESTS[name]["spec"]["selector"]["matchLabels"] == template
    assert MANIFESTS["autoscaler"]["spec"]["scaleTargetRef"]["name"] == MANIFESTS["deployment"]["metadata"]["name"]


def test_ports_and_paths_are_those_of_the_server() -> None:
    (port,) = server()["ports"]
    assert port["containerPort"] == ServerSettings().port
    assert MANIFESTS["service"]["spec"]["ports"][0]["targetPort"] == port["name"]
    (scraped,) = MANIFESTS["pod-monitor"]["spec"]["podMetricsEndpoints"]
    assert (scraped["port"], scraped["path"]) == (port["name"], "/metrics")
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = server()[probe]["httpGet"]
        assert asked["port"] == port["name"]
        assert asked["path"] in probe_paths("")
    assert server()["livenessProbe"]["httpGet"]["path"] == "/livez"


def test_the_pod_may_take_as_long_as_the_server_does() -> None:
    settings = {entry["name"]: entry["value"] for entry in server()["env"]}
    delay, drain = (units.parse_duration(settings[name]) for name in ("BACKLINE_DRAIN_DELAY", "BACKLINE_DRAIN_TIMEOUT"))
    assert drain == ServerSettings().drain_timeout
    assert pod()["terminationGracePeriodSeconds"] >= delay + drain + 10
    readiness = server()["readinessProbe"]
    assert delay > readiness["periodSeconds"] * readiness["failureThreshold"], "taken out before requests are refused"
    startup = server()["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= WorkerSettings().start_timeout


def test_the_pod_can_write_where_the_server_does_and_nowhere_else() -> None:
    assert server()["securityContext"]["readOnlyRootFilesystem"]
    mounted = {mount["mountPath"]: mount["name"] for mount in server()["volumeMounts"]}
    volumes = {volume["name"]: volume["emptyDir"] for volume in pod()["volumes"]}
    assert set(mounted) == {"/tmp", "/dev/shm"}
    assert volumes[mounted["/dev/shm"]]["medium"] == "Memory"
    assert all("sizeLimit" in volume for volume in volumes.values())


def test_the_autoscaler_goes_by_a_metric_that_there_is() -> None:
    (metric,) = MANIFESTS["autoscaler"]["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] in {family.name for family in FAMILIES}
