"""Where names of images are read: lists, compose files, Kubernetes manifests, folders of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mirror.sync import kubernetes
from mirror.sync.documents import read_documents
from mirror.sync.sources import Gathered, Gathering, Wish


def gathered(*arguments: str | Path, given: bytes = b"", **variables: str) -> Gathered:
    gathering = Gathering(variables, lambda: given)
    for argument in arguments:
        gathering.argument(str(argument))
    return gathering.found


def names(found: Gathered) -> list[str]:
    return [wish.image for wish in found.wishes]


def test_a_list_has_comments_empty_lines_and_any_line_ends(tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_bytes(b"\xef\xbb\xbf# ours\r\nredis:7\r\n\r\n  alpine # small\r\nredis:7\nredis#7\n")
    found = gathered(f"@{file}")
    assert names(found) == ["redis:7", "alpine"]
    assert [words.partition(" ")[0] for words in found.mistakes] == [f"{file}:6:"]


def test_each_mistake_has_its_line(tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_text("redis:7\nRedis\ntwo words\nhttps://redis\n")
    found = gathered(f"@{file}", "@nowhere.txt")
    lines = [words.split(": ")[0] for words in found.mistakes]
    assert lines == [f"{file}:2", f"{file}:3", f"{file}:4", "nowhere.txt"]


COMPOSE = """
x-base: &base
  image: "redis:${TAG:-7}"
services:
  cache: {<<: *base, restart: always}
  built: {build: .}
  app:
    image: ghcr.io/acme/app:${APP_TAG}
    platform: linux/arm64
  again: {extends: {service: cache}}
  web: {extends: {file: base.yml, service: web}}
  deep: {image: "alpine:${A:-${B:-3}}"}
  local: {image: acme/local, build: ., pull_policy: build}
include: [more.yml]
"""


@pytest.fixture
def compose(tmp_path: Path) -> Path:
    file = tmp_path / "docker-compose.yml"
    file.write_text(COMPOSE)
    (tmp_path / "base.yml").write_text("services: {web: {image: 'nginx:1'}}\n")
    (tmp_path / "more.yml").write_text("services: {db: {image: 'postgres:16'}}\n")
    return file


def test_a_compose_file_names_images_by_variables_anchors_extends_and_include(
    compose: Path,
) -> None:
    found = gathered(compose, APP_TAG="v1")
    assert found.mistakes == []
    assert list(found.wishes) == [
        Wish("redis:7"),
        Wish("ghcr.io/acme/app:v1", "linux/arm64"),
        Wish("nginx:1"),
        Wish("alpine:3"),
        Wish("postgres:16"),
    ]
    assert [note.partition(" passed over: ")[2][:6] for note in found.notes] == ["built:", "local:"]


def test_a_variable_without_a_value_is_told_with_its_line(compose: Path) -> None:
    found = gathered(compose)
    assert found.mistakes == [
        f"{compose}:8: app: the variable APP_TAG is not set: set it, or write ${{APP_TAG:-…}}"
    ]
    (compose.parent / ".env").write_text("# of compose\nAPP_TAG='v2'\nTAG=6 # older\n")
    found = gathered(compose)
    assert names(found)[:2] == ["redis:6", "ghcr.io/acme/app:v2"]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("redis:$TAG", "redis:7"),
        ("redis:${TAG}", "redis:7"),
        ("redis:${EMPTY:-8}", "redis:8"),
        ("redis:${TAG:+9}", "redis:9"),
        ("redis:${NONE-8}", "redis:8"),
    ],
)
def test_variables_are_those_of_compose(tmp_path: Path, text: str, meant: str) -> None:
    file = tmp_path / "any.yml"
    file.write_text(f"services: {{one: {{image: '{text}'}}}}\n")
    assert names(gathered(file, TAG="7", EMPTY="")) == [meant]


def test_services_that_extend_each_other_in_a_circle_are_told(tmp_path: Path) -> None:
    file = tmp_path / "any.yml"
    file.write_text("services: {a: {extends: b}, b: {extends: a}}\n")
    found = gathered(file)
    assert names(found) == []
    assert len(found.mistakes) == 2


MANIFESTS = """\
apiVersion: batch/v1
kind: CronJob
spec:
  jobTemplate: {spec: {template: {spec: {
    initContainers: [{image: busybox}], containers: [{image: "postgres:16"}]}}}}
---
# a comment only
---
apiVersion: v1
kind: List
items:
  - apiVersion: v1
    kind: Pod
    spec:
      containers: [{image: auto}, {image: "redis:7"}]
      ephemeralContainers: [{image: "debug:1"}]
      volumes: [{name: model, image: {reference: "quay.io/models/m:1"}}]
---
apiVersion: v1
kind: ConfigMap
data: {image: "not/an:image", containers: "none"}
"""


def test_kubernetes_objects_name_the_images_of_all_their_containers(tmp_path: Path) -> None:
    file = tmp_path / "all.yaml"
    file.write_text(MANIFESTS)
    wanted = ["postgres:16", "busybox", "redis:7", "debug:1", "quay.io/models/m:1"]
    assert names(gathered(file)) == wanted
    assert names(gathered("-", given=MANIFESTS.encode())) == wanted


def test_a_folder_is_read_with_what_is_below_it(tmp_path: Path) -> None:
    (tmp_path / "apps" / ".git").mkdir(parents=True)
    (tmp_path / "apps" / "all.yaml").write_text(MANIFESTS)
    (tmp_path / "apps" / ".git" / "other.yaml").write_text(MANIFESTS.replace("redis", "hidden"))
    (tmp_path / "apps" / "values.yml").write_text("replicas: 3\n")
    (tmp_path / "apps" / "templates.yaml").write_text("image: {{ .Values.image }}\n  x: [\n")
    found = gathered(tmp_path)
    assert "redis:7" in names(found)
    assert "hidden:7" not in names(found)
    assert len(found.notes) == 1
    [mistake] = found.mistakes
    assert mistake.startswith(f"{tmp_path}/apps/templates.yaml:")
    assert "helm template" in mistake


def test_standard_input_may_be_a_list() -> None:
    assert names(gathered("-", given=b"redis:7\n# more\nalpine:3\n")) == ["redis:7", "alpine:3"]


def bomb(merges: bool) -> str:
    """Ten to the ninth values, if each alias were what it stands for."""
    lines = ["a0: &a0 {x: {image: 'redis:7'}}"]
    for level in range(1, 10):
        below = ", ".join([f"*a{level - 1}"] * 10)
        lines.append(f"a{level}: &a{level} " + (f"{{<<: [{below}]}}" if merges else f"[{below}]"))
    return "\n".join(lines)


@pytest.mark.parametrize("merges", [True, False])
def test_aliases_of_aliases_cost_no_more_than_their_text(tmp_path: Path, merges: bool) -> None:
    file = tmp_path / "bomb.yaml"
    file.write_text(
        f"kind: List\napiVersion: v1\n{bomb(merges)}\ncontainers: [{{image: alpine}}]\n"
    )
    assert names(gathered(file)) == ["alpine"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: &a [*a]", "what it stands in"),
        ("a: *b", "what stands nowhere before it"),
        ("[" * 100, "levels"),
        ("a: [1, 2", "no YAML"),
        ("a: \x07", "unprintable"),
        ("<<: 3", "no mapping"),
        ("replicas: 3", "neither a compose file nor Kubernetes objects"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    [mistake] = gathered(file).mistakes
    assert re.match(rf"{file}:[12]: ", mistake)
    assert words in mistake


def test_a_file_beyond_all_measure_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "large.yaml"
    with file.open("wb") as large:
        large.truncate(1 << 30)
    [mistake] = gathered(file).mistakes
    assert "more than 16 MiB" in mistake


def test_a_list_of_containers_is_read_once_however_many_pods_have_it() -> None:
    pods = "a: &a\n" + "- {image: redis}\n" * 50 + "pods:\n" + "- {containers: *a}\n" * 50
    [document] = read_documents(f"apiVersion: v1\nkind: X\n{pods}")
    assert list(kubernetes.images(document)) == ["redis"] * 50


def test_a_file_that_includes_itself_by_ever_longer_paths_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "compose.yaml").write_text(
        "include: [x/../compose.yaml]\nservices: {a: {image: redis:7}}\n"
    )
    found = gathered(tmp_path / "compose.yaml")
    assert names(found) == ["redis:7"]
    assert found.mistakes == []


def test_files_that_include_one_another_make_no_stack(tmp_path: Path) -> None:
    for number in range(1200):
        (tmp_path / f"{number}.yaml").write_text(
            f"include: [{number + 1}.yaml]\nservices: {{a: {{image: redis:{number}}}}}\n"
        )
    (tmp_path / "1200.yaml").write_text("services: {a: {image: redis:last}}\n")
    found = gathered(tmp_path / "0.yaml")
    assert names(found) == [*(f"redis:{number}" for number in range(1200)), "redis:last"]
