"""Reads ``/metrics`` as Prometheus does, with prometheus-client's own parsers."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.integration.load import request
from tests.serving import Server

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


class Page:
    """One page, read strictly: what is no metric is an error."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self.samples = list(samples)

    @property
    def names(self) -> set[str]:
        """The names of all samples."""
        return {sample.name for sample in self.samples}

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of all samples of this name that have these labels, 0 if there are none."""
        return sum(sample.value for sample in self.find(name, **labels))

    def find(self, name: str, **labels: str) -> list[Sample]:
        """Return the samples of this name that have these labels."""
        return [
            sample for sample in self.samples if sample.name == name and labels.items() <= dict(sample.labels).items()
        ]


def scrape(server: Server, path: str = "/metrics") -> Page:
    """Return the page in text format."""
    answer = request("GET", server.url + path)
    assert answer.status == 200, answer
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = text_string_to_metric_families(answer.body.decode())
    return Page(sample for family in families for sample in family.samples)


def scrape_openmetrics(server: Server) -> Page:
    """Return the page as OpenMetrics, whose parser is the stricter one."""
    answer = request("GET", server.url + "/metrics", headers={"Accept": OPENMETRICS})
    assert answer.status == 200, answer
    assert answer.headers["content-type"].startswith(OPENMETRICS)
    families = openmetrics.text_string_to_metric_families(answer.body.decode())  # type: ignore[no-untyped-call]
    return Page(sample for family in families for sample in family.samples)
