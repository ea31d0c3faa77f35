"""The manifests are what Kubernetes 1.37 accepts, fit together, and fit the server that they start."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache

import pytest

from aligner_svc.engines.ray_serve.credentials import COMMON
from tests import PROJECT
from tests.kit.kubernetes import Manifest, faults, metrics_queried, render

OVERLAYS = sorted(path.parent for path in (PROJECT / "deploy" / "kubernetes" / "overlays").glob("*/kustomization.yaml"))
rendered = cache(render)


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_an_overlay_has_no_faults(overlay) -> None:
    assert faults(rendered(overlay)) == []


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_the_autoscaler_asks_for_metrics_that_exist(overlay) -> None:
    reference = (PROJECT / "docs" / "metrics.md").read_text()
    for name in metrics_queried(rendered(overlay)):
        assert f"`{name.removesuffix('_sum').removesuffix('_count')}`" in reference


def _one(manifests: list[Manifest], kind: str) -> Manifest:
    return next(manifest for manifest in manifests if manifest["kind"] == kind)


def _container(manifests: list[Manifest]) -> Manifest:
    return _one(manifests, "Deployment")["spec"]["template"]["spec"]["containers"][0]


def _ray_pod(spec: Manifest) -> Manifest:
    return spec["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]


RAY_WRONG: dict[str, Callable[[Manifest], object]] = {
    "a misspelled field": lambda spec: spec.update(serveConfigv2=""),
    "a misspelled field of a pod": lambda spec: _ray_pod(spec).update(volume=[]),
    "a mode of authentication that is none": lambda spec: spec["rayClusterConfig"]["authOptions"].update(mode="basic"),
    "a pod that may write its image": lambda spec: _ray_pod(spec)["containers"][0].update(securityContext={}),
}


def _settings(manifests: list[Manifest]) -> Manifest:
    return next(one["data"] for one in manifests if "aligner.toml" in one.get("data", {}))


WRONG: dict[str, Callable[[list[Manifest]], object]] = {
    "a misspelled field": lambda all_: _container(all_).update(redinessProbe={}),
    "a kind nobody knows": lambda all_: _one(all_, "Service").update(kind="Servise"),
    "a value of the wrong type": lambda all_: _one(all_, "Service")["spec"]["ports"][0].update(port="50051"),
    "a service that selects nothing": lambda all_: _one(all_, "Service")["spec"].update(selector={"app": "other"}),
    "a probe without its port": lambda all_: _container(all_)["readinessProbe"]["httpGet"].update(port="health"),
    "a port that is not the server's": lambda all_: _container(all_)["ports"][0].update(containerPort=50052),
    "a second autoscaler": lambda all_: all_.append(copy.deepcopy(_one(all_, "HorizontalPodAutoscaler"))),
    "fewer replicas at most than at least": lambda all_: _one(all_, "HorizontalPodAutoscaler")["spec"].update(maxReplicas=1),
    "a pod that is killed while it drains": lambda all_: _one(all_, "Deployment")["spec"]["template"]["spec"].update(
        terminationGracePeriodSeconds=30
    ),
    "API keys without a pepper": lambda all_: _container(all_)["env"].pop(1),
    "connections that are never renewed": lambda all_: _settings(all_).update(
        {"aligner.toml": _settings(all_)["aligner.toml"].replace("age = 600", "")}
    ),
    "a root filesystem that is writable": lambda all_: _container(all_)["securityContext"].update(readOnlyRootFilesystem=False),
}


@pytest.mark.parametrize("spoil", WRONG.values(), ids=WRONG)
def test_a_wrong_manifest_is_found(spoil: Callable[[list[Manifest]], object]) -> None:
    manifests = copy.deepcopy(rendered(PROJECT / "deploy" / "kubernetes" / "overlays" / "cpu"))
    spoil(manifests)
    assert len(faults(manifests)) >= 1


def test_the_nodes_of_ray_have_the_variables_of_those_that_the_service_starts() -> None:
    spec = _one(rendered(PROJECT / "deploy" / "kubernetes" / "overlays" / "ray"), "RayService")["spec"]["rayClusterConfig"]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        for container in group["template"]["spec"]["containers"]:
            assert COMMON.items() <= {one["name"]: one.get("value") for one in container["env"]}.items()


@pytest.mark.parametrize("spoil", RAY_WRONG.values(), ids=RAY_WRONG)
def test_a_wrong_ray_service_is_found(spoil: Callable[[Manifest], object]) -> None:
    manifests = copy.deepcopy(rendered(PROJECT / "deploy" / "kubernetes" / "overlays" / "ray"))
    spoil(_one(manifests, "RayService")["spec"])
    assert len(faults(manifests)) >= 1
