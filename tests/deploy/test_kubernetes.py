"""The manifests and the chart: rendered by the real kubectl and helm, held to Kubernetes' schemas,
and to what the mirror itself takes. No cluster runs here."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from referencing import Registry
from referencing.jsonschema import DRAFT7

from mirror import config
from mirror.app import GRACE

from ..e2e.programs import run, unavailable
from . import kubernetes_programs
from .checkout import copy_of_checkout

EVERYTHING = (
    "kind=DaemonSet,image.pullSecrets={ours},store.hostPath=/data/mirror,priorityClassName=high,"
    "service.annotations.a=b,podAnnotations.a=b,nodeSelector.disk=fast,tolerations[0].operator=Exists,"
    "monitoring.podMonitor=true,monitoring.prometheusRule=true,monitoring.dashboard=true,"
    "monitoring.labels.release=prometheus,nodes.enabled=true,nodes.registries={docker.io,ghcr.io}"
)
BALANCED = (
    "service.type=LoadBalancer,networkPolicy.enabled=false,store.storageClass=fast,replicas=2"
)
FLEET_OF_NODES = (
    "kind=DaemonSet,fleet.enabled=true,fleet.redis=rediss+sentinel://s1:26379\\,s2:26379/mirror/0,"
    "fleet.redisPassword=false,fleet.s3.bucket=ours,fleet.s3.endpoint=https://s3.corp.lan,"
    "fleet.s3.prefix=mirror/,serviceAccountAnnotations.role=ours"
)
WAYS = {
    "kustomize-statefulset": "statefulset",
    "kustomize-daemonset": "daemonset",
    "kustomize-fleet": "fleet",
    "kustomize-nodes": "nodes",
    "helm": "",
    "helm-fleet": "values-fleet.yaml",
    "helm-fleet-of-nodes": FLEET_OF_NODES,
    "helm-everything": EVERYTHING,
    "helm-balanced": BALANCED,
}
WORKLOADS = ("StatefulSet", "DaemonSet")

Object = dict[str, Any]


@pytest.fixture(scope="module")
def program() -> Callable[[str], str]:
    def find(name: str) -> str:
        try:
            return kubernetes_programs.program(name)
        except kubernetes_programs.NotAvailable as error:
            unavailable(str(error))
            raise

    return find


@pytest.fixture(scope="module")
def chart(deploy) -> Path:
    return deploy / "helm/registry-mirror"


@pytest.fixture(scope="module")
def rendered(deploy, chart, program) -> Callable[[str], list[Object]]:
    """The objects of one of WAYS."""
    seen: dict[str, list[Object]] = {}

    def render(way: str) -> list[Object]:
        if way not in seen:
            if way.startswith("helm"):
                words = [program("helm"), "template", "registry-mirror", chart]
                done = run(*words, "--namespace", "registry-mirror", *given(chart, WAYS[way]))
            else:
                done = run(program("kubectl"), "kustomize", deploy / "kubernetes" / WAYS[way])
            seen[way] = [each for each in yaml.safe_load_all(done.stdout) if each]
        return seen[way]

    return render


def given(chart: Path, values: str) -> list[str | Path]:
    """As words for helm: values, or the name of the chart's file of them."""
    if values.endswith(".yaml"):
        return ["--values", chart / values]
    return ["--set", values] if values else []


def only(objects: list[Object], *kinds: str) -> Object:
    (found,) = (each for each in objects if each["kind"] in kinds)
    return found


def mirror_of(objects: list[Object]) -> Object:
    """The workload whose pods are mirrors."""
    (found,) = (
        each
        for each in objects
        if each["kind"] in WORKLOADS and not each["metadata"]["name"].endswith("-nodes")
    )
    return found


def containers(pod: Object) -> Iterator[Object]:
    yield from (*pod.get("initContainers", []), *pod["containers"])


@pytest.mark.parametrize("way", WAYS)
def test_kubernetes_schemas_have_every_key(rendered, way):
    definitions = DRAFT7.create_resource(kubernetes_programs.definitions())
    registry = Registry().with_resource("_definitions.json", definitions)
    kinds = set()
    for each in rendered(way):
        kinds.add(each["kind"])
        if each["apiVersion"].startswith("monitoring.coreos.com/"):
            continue  # the operator's own
        schema = kubernetes_programs.schema(each["kind"], each["apiVersion"])
        jsonschema.Draft7Validator(schema, registry=registry).validate(each)
    assert kinds & set(WORKLOADS)


@pytest.mark.parametrize("way", WAYS)
def test_what_is_named_is_there(rendered, way):
    objects = rendered(way)
    maps = {each["metadata"]["name"] for each in objects if each["kind"] == "ConfigMap"}
    accounts = {each["metadata"]["name"] for each in objects if each["kind"] == "ServiceAccount"}
    for each in objects:
        if each["kind"] not in WORKLOADS:
            continue
        template = each["spec"]["template"]
        pod, labels = template["spec"], template["metadata"]["labels"]
        assert each["spec"]["selector"]["matchLabels"].items() <= labels.items()
        claims = [
            claim["metadata"]["name"] for claim in each["spec"].get("volumeClaimTemplates", [])
        ]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for container in containers(pod):
            for mount in container.get("volumeMounts", []):
                assert mount["name"] in (*volumes, *claims)
        named = {v["configMap"]["name"] for v in volumes.values() if "configMap" in v}
        assert named <= maps
        assert {pod["serviceAccountName"]} <= accounts if "serviceAccountName" in pod else True


@pytest.mark.parametrize("way", [way for way in WAYS if way != "kustomize-nodes"])
def test_a_service_and_a_policy_mean_the_mirror_s_pods(rendered, way):
    objects = rendered(way)
    template = mirror_of(objects)["spec"]["template"]
    labels = template["metadata"]["labels"].items()
    (container,) = template["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    services = [each["spec"] for each in objects if each["kind"] == "Service"]
    assert all(service["selector"].items() <= labels for service in services)
    targets = [port["targetPort"] for service in services for port in service["ports"]]
    assert sorted(targets) == sorted({*ports} - {"admin"})
    for each in objects:
        if each["kind"] == "NetworkPolicy":
            assert each["spec"]["podSelector"]["matchLabels"].items() <= labels
            from_where = {
                rule["ports"][0]["port"]: rule.get("from") for rule in each["spec"]["ingress"]
            }
            assert from_where["registry"] is None
            assert from_where["admin"]
            if "peers" in ports:
                (mirrors,) = from_where["peers"]
                assert mirrors["podSelector"]["matchLabels"].items() <= labels
        if each["kind"] == "PodDisruptionBudget":
            assert each["spec"]["selector"]["matchLabels"]
            assert each["spec"]["selector"]["matchLabels"].items() <= labels
        if each["kind"] == "PodMonitor":
            assert each["spec"]["selector"]["matchLabels"].items() <= labels
            assert {end["port"] for end in each["spec"]["podMetricsEndpoints"]} <= set(ports)
            # The job by which the alerts and the dashboard find it.
            assert dict(labels)[each["spec"]["jobLabel"]] == "registry-mirror"


def taken_of(
    objects: list[Object], container: Object, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[config.Config, str]:
    """The mirror's configuration, in the environment of its pod and with a Secret of its own, and
    its text."""
    maps = [each for each in objects if "mirror.yaml" in each.get("data", {})]
    text = maps[0]["data"]["mirror.yaml"]
    for name in ("secret", "s3", "redis"):
        (folder / name).write_text("x" * 64)
    for variable in container.get("env", []):
        value = variable.get("value", "10.1.2.3").replace("$(POD_IP)", "10.1.2.3")
        monkeypatch.setenv(variable["name"], value)
    (folder / "mirror.yaml").write_text(text.replace("/run/secrets/fleet", str(folder)))
    return config.load(folder / "mirror.yaml"), text


@pytest.mark.parametrize("way", [way for way in WAYS if way != "kustomize-nodes"])
def test_the_configuration_is_taken_and_listens_where_the_pod_is_asked(
    rendered, way, tmp_path, monkeypatch
):
    objects = rendered(way)
    pod = mirror_of(objects)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    taken, text = taken_of(objects, container, tmp_path, monkeypatch)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert [each.address.port for each in taken.listen] == [ports["registry"]]
    assert taken.admin.listen.port == ports["admin"]
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert str(taken.storage.path) in mounts
    assert "/run/secrets/registry-mirror" in mounts
    assert "password_file: /run/secrets/registry-mirror/hub" in text
    paths = {name: container[name]["httpGet"] for name in container if name.endswith("Probe")}
    assert {probe["port"] for probe in paths.values()} == {"admin"}
    assert paths["readinessProbe"]["path"] == "/readyz"
    assert paths["livenessProbe"]["path"] == paths["startupProbe"]["path"] == "/healthz"
    assert pod["terminationGracePeriodSeconds"] >= GRACE + 10


@pytest.mark.parametrize("way", [way for way in WAYS if "fleet" in way])
def test_the_mirrors_of_a_fleet_are_where_they_say_and_others_look(
    rendered, way, tmp_path, monkeypatch
):
    objects = rendered(way)
    found = mirror_of(objects)
    pod = found["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    taken, text = taken_of(objects, container, tmp_path, monkeypatch)
    assert taken.fleet is not None
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert taken.fleet.own_url == f"http://10.1.2.3:{ports['peers']}"
    (peers,) = (
        each for each in objects if each["kind"] == "Service" and "clusterIP" in each["spec"]
    )
    assert peers["spec"]["clusterIP"] == "None"
    assert peers["spec"]["publishNotReadyAddresses"] is True
    name = f"{peers['metadata']['name']}.registry-mirror.svc:{ports['peers']}"
    assert f"nodes: dns://{name}" in text
    (mount,) = (each for each in container["volumeMounts"] if each["name"] == "fleet")
    assert mount["mountPath"] == "/run/secrets/fleet"
    if found["kind"] == "StatefulSet":
        assert found["spec"]["replicas"] == 3
        assert only(objects, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


@pytest.mark.parametrize(
    "way", ["kustomize-statefulset", "kustomize-fleet", "helm", "helm-balanced", "helm-fleet"]
)
def test_a_stateful_set_keeps_the_restricted_pod_security_standard(rendered, way):
    pod = mirror_of(rendered(way))["spec"]["template"]["spec"]
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    allowed = {"configMap", "secret", "emptyDir", "persistentVolumeClaim", "projected"}
    assert all(set(volume) - {"name"} <= allowed for volume in pod["volumes"])
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["automountServiceAccountToken"] is False
    for container in containers(pod):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not any("hostPort" in port for port in container["ports"])


def test_a_daemon_set_is_reached_from_its_node_alone(rendered):
    for way in ("kustomize-daemonset", "helm-everything"):
        pod = mirror_of(rendered(way))["spec"]["template"]["spec"]
        published = [port for port in pod["containers"][0]["ports"] if "hostPort" in port]
        assert [(port["hostPort"], port["hostIP"]) for port in published] == [(5000, "127.0.0.1")]


@pytest.mark.parametrize("way", ["statefulset", "fleet"])
def test_the_chart_and_the_manifests_make_the_same_pods(rendered, way):
    def pods(way: str) -> Object:
        pod = json.loads(json.dumps(mirror_of(rendered(way))["spec"]["template"]["spec"]))
        for volume in pod["volumes"]:
            if "configMap" in volume:
                volume["configMap"]["name"] = re.sub(r"-\w{10}$", "", volume["configMap"]["name"])
        for spread in pod.get("topologySpreadConstraints", []):
            spread["labelSelector"]["matchLabels"].pop("app.kubernetes.io/instance", None)
        return pod

    assert pods("helm-fleet" if way == "fleet" else "helm") == pods(f"kustomize-{way}")


def test_another_configuration_rolls_the_pods(deploy, chart, program, tmp_path):
    shutil.copytree(deploy / "kubernetes", tmp_path / "kubernetes")
    base = tmp_path / "kubernetes/base/mirror.yaml"

    def names() -> str:
        done = run(program("kubectl"), "kustomize", tmp_path / "kubernetes/statefulset")
        pod = mirror_of([each for each in yaml.safe_load_all(done.stdout) if each])
        volumes = pod["spec"]["template"]["spec"]["volumes"]
        return next(v["configMap"]["name"] for v in volumes if "configMap" in v)

    def annotations(*more: str) -> Object:
        done = run(program("helm"), "template", "m", chart, *more)
        pod = mirror_of([each for each in yaml.safe_load_all(done.stdout) if each])
        return pod["spec"]["template"]["metadata"]["annotations"]

    before = names()
    base.write_text(base.read_text() + "offline: true\n")
    assert names() != before
    assert annotations() != annotations("--set-file", f"config={base}")


def test_alerts_and_dashboard_are_those_of_deploy(deploy, rendered, program, tmp_path):
    alerts = yaml.safe_load((deploy / "prometheus/alerts.yml").read_text())
    board = (deploy / "grafana/dashboards/registry-mirror.json").read_text()
    rule = yaml.safe_load(run("sh", deploy / "kubernetes/prometheus-rule.sh").stdout)
    assert rule["spec"] == alerts
    assert only(rendered("helm-everything"), "PrometheusRule")["spec"] == alerts

    copy_of_checkout(deploy.parent, tmp_path)
    ours = {
        "resources": ["../statefulset"],
        "components": ["../monitoring"],
    }
    (tmp_path / "deploy/kubernetes/ours").mkdir()
    (tmp_path / "deploy/kubernetes/ours/kustomization.yaml").write_text(json.dumps(ours))
    done = run(program("kubectl"), "kustomize", tmp_path / "deploy/kubernetes/ours")
    for objects in ([*yaml.safe_load_all(done.stdout)], rendered("helm-everything")):
        boards = [each for each in objects if "registry-mirror.json" in each.get("data", {})]
        assert [json.loads(each["data"]["registry-mirror.json"]) for each in boards] == [
            json.loads(board)
        ]
        assert boards[0]["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert only(objects, "PodMonitor")


def test_helm_finds_nothing_in_the_chart(chart, program):
    for way, values in WAYS.items():
        if way.startswith("helm"):
            run(program("helm"), "lint", "--strict", chart, *given(chart, values))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ("kind=Deployment", "/kind"),
        ("store.size=lots", "/store/size"),
        ("replica=2", "replica"),
        ("monitoring.podMonitor=please", "/monitoring/podMonitor"),
        ("nodes.enabled=true,service.type=ClusterIP", "nodes.url: write how nodes reach"),
        ("fleet.enabled=true", "fleet.redis: write which Redis the mirrors share"),
        ("fleet.redis=localhost", "/fleet/redis"),
    ],
)
def test_the_chart_says_what_is_wrong_with_values(chart, program, values, words):
    done = subprocess.run(
        [program("helm"), "template", "m", chart, "--set", values], capture_output=True, text=True
    )
    assert done.returncode != 0
    assert words in done.stderr


def test_every_value_has_a_rule_and_a_default(chart):
    def keys(values: Object, schema: Object) -> None:
        assert set(values) <= set(schema["properties"])
        assert set(schema["properties"]) - set(values) <= {"global"}
        for key, value in values.items():
            if "properties" in schema["properties"][key]:
                keys(value, schema["properties"][key])

    schema = json.loads((chart / "values.schema.json").read_text())
    keys(yaml.safe_load((chart / "values.yaml").read_text()), schema)


def test_the_chart_is_packed_whole(chart, program, root, tmp_path):
    """Files that it shares with the rest of deploy/ are links here, and files in the package."""
    version = re.search(r'^version = "(.*)"', (root / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    run(program("helm"), "package", chart, "--destination", tmp_path)
    # The chart, and the image that it takes, are of the program's own version.
    with tarfile.open(tmp_path / f"registry-mirror-{version[1]}.tgz") as package:
        for name in ("alerts.yml", "dashboard.json", "mirror.yaml"):
            member = package.getmember(f"registry-mirror/{name}")
            assert member.isreg()
            assert member.size == (chart / name).resolve().stat().st_size


def test_the_manifests_take_the_image_of_this_version(rendered, root):
    for way in WAYS:
        for each in rendered(way):
            if each["kind"] in WORKLOADS:
                for container in containers(each["spec"]["template"]["spec"]):
                    name, _, tag = container["image"].rpartition(":")
                    assert name == "registry-mirror"
                    assert f'version = "{tag}"' in (root / "pyproject.toml").read_text()


@pytest.mark.parametrize("way", ["kustomize-nodes", "helm-everything"])
def test_the_nodes_set_writes_what_containerd_reads(rendered, deploy, tmp_path, way):
    """Its command, run here below a folder."""
    (found,) = (
        each
        for each in rendered(way)
        if each["kind"] == "DaemonSet" and each["metadata"]["name"].endswith("-nodes")
    )
    (setup,) = found["spec"]["template"]["spec"]["initContainers"]
    node = tmp_path / "node"
    (node / "etc/containerd").mkdir(parents=True)
    words = [
        word.replace("/host", str(node)).replace(
            "/etc/registry-mirror/mirror.yaml", str(deploy / "kubernetes/nodes/mirror.yaml")
        )
        for word in setup["args"]
    ]
    run(sys.executable, "-m", "mirror", *words)
    url = next(word for word in words if word.startswith("--url=")).removeprefix("--url=")
    assert url in (node / "etc/containerd/certs.d/docker.io/hosts.toml").read_text()
    if way == "helm-everything":
        assert url in (node / "etc/containerd/certs.d/ghcr.io/hosts.toml").read_text()


def test_the_nodes_set_then_waits_and_ends_when_told(rendered):
    pod = only(rendered("kustomize-nodes"), "DaemonSet")["spec"]["template"]["spec"]
    program = pod["containers"][0]["command"][-1]
    told = program.replace("signal.sigwait", "print('waits', flush=True)\nsignal.sigwait")
    process = subprocess.Popen([sys.executable, "-c", told], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as output:
        assert output.readline() == "waits\n"
    process.terminate()
    assert process.wait(10) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder away: be root")
def test_the_folder_of_a_node_becomes_the_mirror_s(rendered, tmp_path):
    pod = mirror_of(rendered("kustomize-daemonset"))["spec"]["template"]["spec"]
    (owner,) = pod["initContainers"]
    _, *words = owner["command"]
    folder = tmp_path / "store"
    folder.mkdir(mode=0o755)
    run(sys.executable, *(word.replace("/store", str(folder)) for word in words))
    assert (folder.stat().st_uid, folder.stat().st_mode & 0o777) == (10001, 0o700)
    assert pod["securityContext"]["runAsUser"] == 10001
