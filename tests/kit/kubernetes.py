"""Kubernetes manifests: rendered by kubectl, checked against the schemas of one version and against each other."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from aligner_svc.config import Settings
from aligner_svc.config.engine import EngineSettings
from aligner_svc.engines.ray_serve.app import Options
from tests import PROJECT

VERSION = "1.37"
CUSTOM = {
    ("cert-manager.io/v1", "Certificate"),
    ("external-secrets.io/v1", "ExternalSecret"),
    ("keda.sh/v1alpha1", "ScaledObject"),
    ("monitoring.coreos.com/v1", "ServiceMonitor"),
}
"""Kinds of operators; Kubernetes has no schema for them."""
_RAY_SERVICE = json.loads((PROJECT / "tests" / "deploy" / "rayservice.json").read_text())
"""The spec of a RayService, from KubeRay's CRD of August 2026, without descriptions, pods, and parts that are not used here."""
_STOP_SECONDS = 2 + 3
"""Beyond the drain's delay and grace: until no new calls come, and to close."""

Manifest = dict[str, Any]


def render(overlay: Path) -> list[Manifest]:
    """Everything that `kubectl apply -k` would send."""
    kubectl = shutil.which("kubectl") or shutil.which(PROJECT / ".venv" / "bin" / "kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed (make test installs it)")
    made = subprocess.run([kubectl, "kustomize", overlay], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    return [manifest for manifest in yaml.safe_load_all(made.stdout) if manifest]


def faults(manifests: Sequence[Manifest]) -> list[str]:
    """What the API server would refuse, and what it would accept and would not work."""
    return [*_schema(manifests), *_selectors(manifests), *_scaling(manifests), *_pods(manifests)]


def _schema(manifests: Sequence[Manifest]) -> Iterator[str]:
    for manifest in manifests:
        if (manifest["apiVersion"], manifest["kind"]) in CUSTOM:
            continue
        if manifest["kind"] == "RayService":
            yield from _ray_schema(manifest)
            continue
        try:
            kubernetes_validate.validate(manifest, VERSION, strict=True)
        except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
            yield f"{_name(manifest)}: {getattr(error, 'message', error)}"


def _ray_schema(service: Manifest) -> Iterator[str]:
    for error in jsonschema.Draft202012Validator(_RAY_SERVICE).iter_errors(service["spec"]):
        yield f"{_name(service)}: {'/'.join(map(str, error.path))}: {error.message[:200]}"
    for template in _ray_templates(service):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"] | {"name": "ray"}, "spec": template["spec"]}
        yield from _schema([pod])


def _ray_templates(service: Manifest) -> list[Manifest]:
    cluster = service["spec"]["rayClusterConfig"]
    return [group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def _selectors(manifests: Sequence[Manifest]) -> Iterator[str]:
    """A selector that matches no pod is valid, and then a service has no addresses and a budget protects nothing."""
    templates = [deployment["spec"]["template"] for deployment in _of(manifests, "Deployment")]
    templates += [template for service in _of(manifests, "RayService") for template in _ray_templates(service)]
    pods = [template["metadata"]["labels"] for template in templates]
    for kind, path in {
        "Service": ["selector"],
        "PodDisruptionBudget": ["selector", "matchLabels"],
        "NetworkPolicy": ["podSelector", "matchLabels"],
    }.items():
        for manifest in _of(manifests, kind):
            selector: Mapping[str, str] = manifest["spec"]
            for key in path:
                selector = selector.get(key) or {}  # type: ignore[assignment]
            if not selector or not any(selector.items() <= labels.items() for labels in pods):
                yield f"{_name(manifest)} selects no pod"
    for monitor in _of(manifests, "ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        if not any(wanted <= service["metadata"].get("labels", {}).items() for service in _of(manifests, "Service")):
            yield f"{_name(monitor)} selects no service"


def _scaling(manifests: Sequence[Manifest]) -> Iterator[str]:
    for deployment in _of(manifests, "Deployment"):
        scalers = [
            (scaler, scaler["spec"])
            for kind in ("HorizontalPodAutoscaler", "ScaledObject")
            for scaler in _of(manifests, kind)
            if scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
        ]
        if len(scalers) != 1:
            yield f"{_name(deployment)} has {len(scalers)} autoscalers, not one"
        for scaler, spec in scalers:
            least = spec.get("minReplicas", spec.get("minReplicaCount"))
            most = spec.get("maxReplicas", spec.get("maxReplicaCount"))
            if (least, most) != (2, 20):
                yield f"{_name(scaler)} scales from {least} to {most}"
        if "replicas" in deployment["spec"]:
            yield f"{_name(deployment)} sets replicas, which are the autoscaler's"


def _pods(manifests: Sequence[Manifest]) -> Iterator[str]:
    for deployment in _of(manifests, "Deployment"):
        name, pod = _name(deployment), deployment["spec"]["template"]["spec"]
        if pod.get("automountServiceAccountToken") is not False:
            yield f"{name} gets a token of the cluster"
        yield from _confined(name, pod)
        for container in (one for one in pod["containers"] if one["name"] == "aligner"):
            ports = {port["name"]: port["containerPort"] for port in container["ports"]}
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                if container[probe]["httpGet"]["port"] not in ports:
                    yield f"{name}: {probe} has no port"
            settings = settings_of(manifests)
            if "api_key" in settings.auth.methods and "ALIGNER_KEYS__PEPPER" not in {one["name"] for one in container["env"]}:
                yield f"{name} has no pepper, without which a server with API keys does not start"
            for key, port in {"grpc": settings.server.listen, "metrics": settings.metrics.listen}.items():
                if ports.get(key) != int(port.rpartition(":")[2]):
                    yield f"{name}: port {key} is not that of the settings"
            if settings.connections.age is None:
                yield f"{name} keeps its connections for ever, and new pods get no calls"
            drain = settings.server.drain_delay + settings.server.drain_grace + _STOP_SECONDS
            if pod.get("terminationGracePeriodSeconds", 30) < drain:
                yield f"{name} is killed before its drain of {drain} s ends"

    for service in _of(manifests, "RayService"):
        for template in _ray_templates(service):
            yield from _confined(_name(service), template["spec"])
        for one in yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]:
            options = Options(**one["args"])
            if (options.min_replicas, options.max_replicas) != (2, 20):
                yield f"{_name(service)} scales from {options.min_replicas} to {options.max_replicas}"
            EngineSettings.model_validate(options.engine)


def _confined(name: str, pod: Mapping[str, Any]) -> Iterator[str]:
    volumes = {volume["name"] for volume in pod["volumes"]}
    if not (pod["securityContext"].get("runAsNonRoot") and pod["securityContext"].get("seccompProfile")):
        yield f"{name} may run as root or without seccomp"
    for container in (*pod["containers"], *pod.get("initContainers", ())):
        context = container["securityContext"]
        locked = context.get("readOnlyRootFilesystem") and context.get("allowPrivilegeEscalation") is False
        if not locked or context.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{name} may write its image or gain privileges"
        if missing := {mount["name"] for mount in container["volumeMounts"]} - volumes:
            yield f"{name} mounts {missing}, which are no volumes"


def settings_of(manifests: Sequence[Manifest]) -> Settings:
    """What the server makes of the ConfigMap."""
    (config,) = (one for one in _of(manifests, "ConfigMap") if "aligner.toml" in one["data"])
    return Settings(**tomllib.loads(config["data"]["aligner.toml"]), keys={"database": "postgresql+asyncpg://u:p@db/aligner"})


def metrics_queried(manifests: Sequence[Manifest]) -> set[str]:
    """Names of the metrics that a ScaledObject asks Prometheus for."""
    queries = [
        trigger["metadata"]["query"]
        for scaled in _of(manifests, "ScaledObject")
        for trigger in scaled["spec"]["triggers"]
        if trigger["type"] == "prometheus"
    ]
    return {name for query in queries for name in re.findall(r"\baligner_\w+", query)}


def _of(manifests: Sequence[Manifest], kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def _name(manifest: Manifest) -> str:
    return f"{manifest['kind']}/{manifest['metadata']['name']}"
