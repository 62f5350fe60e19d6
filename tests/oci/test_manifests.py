"""Manifests and indexes: read strictly, and of one meaning only."""

import doctest
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.oci import manifests as module
from mirror.oci.descriptor import OCTET_STREAM, Descriptor
from mirror.oci.digest import Digest
from mirror.oci.errors import Untrustworthy
from mirror.oci.manifests import (
    ACCEPT,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    INDEX_TYPES,
    MANIFEST_TYPES,
    MAX_DESCRIPTORS,
    MAX_MANIFEST,
    OCI_ARTIFACT,
    OCI_INDEX,
    OCI_MANIFEST,
    Child,
    Manifest,
    Platform,
    media_type_of,
    read_manifest,
)

from .attempts import attempt

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+json"
SIGNED_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"


def descriptor(name, media_type=LAYER_TYPE, size=3):
    return Descriptor(media_type, Digest.of(name.encode()), size)


def entry(name, media_type=LAYER_TYPE, size=3, **more):
    """What `descriptor` gives, as it stands in JSON."""
    digest = str(Digest.of(name.encode()))
    return {"mediaType": media_type, "digest": digest, "size": size, **more}


def body(**document):
    return json.dumps({"schemaVersion": 2, **document}).encode()


def image(media_type=None, **more):
    document = {"config": entry("config", CONFIG_TYPE), "layers": [entry("a"), entry("b")], **more}
    return body(**document, **({"mediaType": media_type} if media_type else {}))


def index(media_type=None, **more):
    document = {"manifests": [entry("child", OCI_MANIFEST)], **more}
    return body(**document, **({"mediaType": media_type} if media_type else {}))


def artifact(**more):
    # Artifact manifests have no schemaVersion.
    return json.dumps({"mediaType": OCI_ARTIFACT, **more}).encode()


BODIES = {
    DOCKER_MANIFEST: image(DOCKER_MANIFEST),
    OCI_MANIFEST: image(OCI_MANIFEST),
    DOCKER_LIST: index(DOCKER_LIST),
    OCI_INDEX: index(OCI_INDEX),
    OCI_ARTIFACT: artifact(blobs=[entry("a")]),
}


def refusal(data, content_type=None):
    with pytest.raises(Untrustworthy) as caught:
        read_manifest(data, content_type)
    assert len(caught.value.message) < 1000
    assert caught.value.message.replace("…", "").isascii()
    return caught.value.message


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(module).failed == 0


def test_all_that_is_read_is_asked_for_and_schema_1_is_not():
    assert set(ACCEPT) == MANIFEST_TYPES == set(BODIES)
    assert len(ACCEPT) == len(set(ACCEPT))


# What a manifest refers to


@pytest.mark.parametrize("media_type", [DOCKER_MANIFEST, OCI_MANIFEST])
def test_an_image_refers_to_its_config_and_layers_in_order(media_type):
    found = read_manifest(image(media_type), media_type)
    assert found.media_type == media_type
    assert not found.is_index
    assert found.config == descriptor("config", CONFIG_TYPE)
    assert found.layers == (descriptor("a"), descriptor("b"))
    assert found.blobs == (found.config, *found.layers)
    assert found.children == found.foreign == ()
    assert found.subject is found.artifact_type is None


@pytest.mark.parametrize("media_type", [DOCKER_LIST, OCI_INDEX])
def test_an_index_lists_children_with_their_platforms(media_type):
    arm = {"os": "linux", "architecture": "arm", "variant": "v7"}
    children = [
        entry("amd64", OCI_MANIFEST, platform={"os": "linux", "architecture": "amd64"}),
        entry("arm", OCI_MANIFEST, platform=arm),
        entry("attestation", OCI_MANIFEST, platform={"os": "unknown", "architecture": "unknown"}),
        entry("nested", OCI_INDEX),
    ]
    found = read_manifest(index(media_type, manifests=children), media_type)
    assert found.media_type == media_type
    assert found.is_index
    assert found.children == (
        Child(descriptor("amd64", OCI_MANIFEST), Platform("linux", "amd64")),
        Child(descriptor("arm", OCI_MANIFEST), Platform("linux", "arm", "v7")),
        Child(descriptor("attestation", OCI_MANIFEST), Platform("unknown", "unknown")),
        Child(descriptor("nested", OCI_INDEX), None),
    )
    assert found.config is None
    assert found.blobs == ()


def test_a_buildkit_cache_lists_layers_in_an_index():
    cache = index(OCI_INDEX, manifests=[entry("a"), entry("c", "application/vnd.buildkit.x.v0")])
    assert [c.descriptor.media_type for c in read_manifest(cache, OCI_INDEX).children] == [
        LAYER_TYPE,
        "application/vnd.buildkit.x.v0",
    ]


def test_an_artifact_refers_to_blobs_subject_and_type():
    data = artifact(
        artifactType="application/vnd.example.sbom",
        blobs=[entry("sbom", "application/spdx+json")],
        subject=entry("subject", OCI_MANIFEST),
    )
    found = read_manifest(data, OCI_ARTIFACT)
    assert found.media_type == OCI_ARTIFACT
    assert found.blobs == found.layers == (descriptor("sbom", "application/spdx+json"),)
    assert found.subject == descriptor("subject", OCI_MANIFEST)
    assert found.artifact_type == "application/vnd.example.sbom"


def test_an_artifact_may_have_no_blobs():
    assert read_manifest(artifact(), OCI_ARTIFACT).blobs == ()


def test_an_image_may_have_a_subject_and_an_artifact_type():
    data = image(OCI_MANIFEST, subject=entry("s", OCI_INDEX), artifactType="application/x")
    found = read_manifest(data, OCI_MANIFEST)
    assert (found.subject, found.artifact_type) == (descriptor("s", OCI_INDEX), "application/x")


FOREIGN = "application/vnd.oci.image.layer.nondistributable"


@pytest.mark.parametrize(
    "layer",
    [
        entry("f", urls=["https://elsewhere.example/layer"]),
        entry("f", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
        entry("f", "application/vnd.oci.image.layer.nondistributable.v1.tar"),
        entry("f", "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"),
    ],
)
def test_f68_a_foreign_layer_is_told_apart_from_what_is_fetched(layer):
    found = read_manifest(image(OCI_MANIFEST, layers=[entry("a"), layer]), None)
    assert found.layers == (descriptor("a"),)
    assert found.foreign == (descriptor("f", layer["mediaType"]),)
    assert descriptor("f", layer["mediaType"]) not in found.blobs


def test_f66_a_config_that_is_marked_as_held_elsewhere_is_none_of_the_blobs():
    """A registry takes the manifest without looking whether it has such a one."""
    for config in (entry("c", urls=["https://x.example/c"]), entry("c", f"{FOREIGN}.v1.tar")):
        found = read_manifest(image(OCI_MANIFEST, config=config, layers=[entry("a")]), None)
        assert found.config is None
        assert found.blobs == (descriptor("a"),)
        assert found.foreign == (descriptor("c", config["mediaType"]),)


def test_a_layer_with_an_empty_list_of_urls_is_an_ordinary_one():
    found = read_manifest(image(layers=[entry("a", urls=[])]), None)
    assert (found.layers, found.foreign) == ((descriptor("a"),), ())


def test_lists_and_descriptors_that_are_null_are_absent():
    found = read_manifest(image(OCI_MANIFEST, layers=None, config=None, subject=None), None)
    assert (found.config, found.layers, found.subject) == (None, (), None)
    assert read_manifest(index(manifests=None), None).children == ()


# Which media type it has (F13, F14)


@pytest.mark.parametrize("media_type", BODIES)
@pytest.mark.parametrize("form", ["{}", " {} ", "{}; charset=utf-8", "{};q=1"])
def test_a_content_type_that_agrees_is_taken(media_type, form):
    assert read_manifest(BODIES[media_type], form.format(media_type)).media_type == media_type
    assert (
        read_manifest(BODIES[media_type], form.format(media_type).upper()).media_type == media_type
    )


@pytest.mark.parametrize("media_type", BODIES)
@pytest.mark.parametrize(
    "generic",
    [None, "", "application/json", "application/json; charset=utf-8", "text/plain",
     "Text/Plain;charset=UTF-8", "application/octet-stream", "binary/octet-stream"],
)  # fmt: skip
def test_a_content_type_that_says_nothing_leaves_it_to_the_body(media_type, generic):
    assert read_manifest(BODIES[media_type], generic).media_type == media_type


@pytest.mark.parametrize("media_type", BODIES)
@pytest.mark.parametrize("claimed", BODIES)
def test_f13_a_content_type_that_disagrees_is_refused(media_type, claimed):
    if claimed != media_type:
        said = refusal(BODIES[media_type], claimed)
        assert claimed in said
        assert media_type in said


@pytest.mark.parametrize("media_type", BODIES)
@pytest.mark.parametrize(
    "content_type", ["text/html", "application/xml", "*/*", "application/vnd.oci", "\r\nX: y"]
)
def test_f14_any_other_content_type_is_refused_even_with_a_good_body(media_type, content_type):
    assert "Content-Type" in refusal(BODIES[media_type], content_type)


def test_f14_a_login_page_is_refused_whatever_its_content_type():
    for content_type in (None, "text/html", "application/json", OCI_INDEX):
        refusal(b"<!DOCTYPE html><title>Log in</title>", content_type)


def test_without_media_type_the_structure_decides_which_oci_type_it_is():
    assert read_manifest(image(), OCI_MANIFEST).media_type == OCI_MANIFEST
    assert read_manifest(index(), OCI_INDEX).media_type == OCI_INDEX
    for absent in ("", None):
        assert media_type_of(body(mediaType=absent, layers=[])) == OCI_MANIFEST


def test_without_media_type_the_content_type_must_fit_the_structure():
    assert "no mediaType" in refusal(image(), OCI_INDEX)
    assert "no mediaType" in refusal(index(), OCI_MANIFEST)


def test_without_media_type_nothing_is_dockers():
    """Its type could not be told again from the stored bytes alone."""
    assert "no mediaType" in refusal(image(), DOCKER_MANIFEST)
    assert "no mediaType" in refusal(index(), DOCKER_LIST)


def test_without_media_type_nothing_is_an_artifact():
    refusal(body(blobs=[entry("a")]), OCI_ARTIFACT)
    refusal(body(blobs=[entry("a")]), None)


@pytest.mark.parametrize(
    "document",
    [
        {"manifests": [], "layers": []},
        {"manifests": [], "config": entry("config")},
        {"manifests": None, "layers": []},
        {"manifests": [], "layers": None},
        {"manifests": [], "blobs": []},
        {"layers": [], "blobs": []},
    ],
)
@pytest.mark.parametrize("media_type", [*BODIES, None])
def test_f13_a_document_of_two_kinds_is_refused(document, media_type):
    data = body(**document, **({"mediaType": media_type} if media_type else {}))
    assert "both" in refusal(data, None)
    if media_type:
        refusal(data, media_type)


@pytest.mark.parametrize(
    ("declared", "document"),
    [
        (OCI_INDEX, {"layers": []}),
        (DOCKER_LIST, {"config": entry("c")}),
        (OCI_MANIFEST, {"manifests": []}),
        (DOCKER_MANIFEST, {"manifests": []}),
        (OCI_ARTIFACT, {"manifests": []}),
        (OCI_ARTIFACT, {"layers": []}),
        (OCI_MANIFEST, {"blobs": []}),
        (OCI_MANIFEST, {}),
        (OCI_INDEX, {}),
    ],
)
def test_f13_a_media_type_that_the_structure_belies_is_refused(declared, document):
    data = body(mediaType=declared, **document)
    for content_type in (None, declared):
        assert declared in refusal(data, content_type)


@pytest.mark.parametrize(
    "declared", ["text/html", LAYER_TYPE, OCI_INDEX.upper(), OCI_INDEX + " ", 5, [], {}, True]
)
def test_a_media_type_that_is_no_manifests_is_refused(declared):
    assert "is no manifest's" in refusal(index(manifests=[], mediaType=declared))


@pytest.mark.parametrize("data", [b"{}", body(), body(annotations={})])
def test_an_object_that_is_nothing_is_refused(data):
    refusal(data)


@pytest.mark.parametrize(
    ("data", "content_type"),
    [
        (image(DOCKER_MANIFEST), SCHEMA_1),
        (image(DOCKER_MANIFEST), SIGNED_SCHEMA_1 + "; charset=utf-8"),
        (image(SCHEMA_1), None),
        (body(fsLayers=[]), None),
        (
            json.dumps({"schemaVersion": 1, "name": "x", "fsLayers": []}).encode(),
            "application/json",
        ),
        (json.dumps({"schemaVersion": 1, "layers": []}).encode(), OCI_MANIFEST),
    ],
)
def test_schema_1_is_refused_by_name(data, content_type):
    assert "schema 1" in refusal(data, content_type)


@pytest.mark.parametrize("version", [0, 3, -2, "2", None, [2], 10**400])
def test_another_schema_version_is_refused(version):
    assert "schemaVersion" in refusal(image(schemaVersion=version))


@pytest.mark.parametrize(
    ("document", "meant"),
    [
        ({"layers": [], "Manifests": []}, "manifests"),
        ({"layers": [], "MEDIATYPE": OCI_INDEX}, "mediaType"),
        ({"manifests": [], "layer\u017f": []}, "layers"),
        ({"layers": [entry("a", Digest="sha256:" + "0" * 64)]}, "digest"),
        ({"layers": [], "config": entry("a", SIZE=5)}, "size"),
    ],
)
def test_f13_a_key_that_gos_decoder_takes_for_another_is_refused(document, meant):
    assert f"write '{meant}'" in refusal(body(**document))


# Descriptors


@pytest.mark.parametrize(
    "size",
    [-1, 2**63, 10**30, 3.0, 1e3, "3", True, False, None, [], {}],
)
@pytest.mark.parametrize("key", ["layers", "manifests", "config", "subject", "blobs"])
def test_a_size_that_is_none_is_refused(key, size):
    assert "size" in refusal(placed(key, entry("a") | {"size": size}))


@pytest.mark.parametrize("size", [0, 1, 2**63 - 1])
def test_the_smallest_and_the_largest_size_are_taken(size):
    assert read_manifest(image(layers=[entry("a", size=size)]), None).layers[0].size == size


@pytest.mark.parametrize(
    "digest",
    ["", "latest", "sha256:", "md5:" + "a" * 32, "sha256:" + "A" * 64, "../etc", None, 5, [], {}],
)
@pytest.mark.parametrize("key", ["layers", "manifests", "config", "subject", "blobs"])
def test_a_digest_that_is_none_is_refused(key, digest):
    said = refusal(placed(key, entry("a") | {"digest": digest}))
    assert "digest" in said
    assert key in said


def test_a_refusal_names_the_place():
    assert "layers[1]" in refusal(image(layers=[entry("a"), entry("b") | {"size": -1}]))


@pytest.mark.parametrize("value", [5, "text", [], True])
@pytest.mark.parametrize("key", ["layers", "manifests", "config", "subject", "blobs"])
def test_a_descriptor_that_is_no_object_is_refused(key, value):
    assert "no descriptor" in refusal(placed(key, value))


@pytest.mark.parametrize("key", ["layers", "manifests", "blobs"])
@pytest.mark.parametrize("value", [5, "text", {}, True])
def test_a_list_that_is_none_is_refused(key, value):
    data = artifact(blobs=value) if key == "blobs" else body(**{key: value})
    assert f"{key} is no list" in refusal(data)


def placed(key, value):
    """A document that is good but for this value, where a descriptor of this key stands."""
    if key == "blobs":
        return artifact(blobs=[value])
    if key == "manifests":
        return index(manifests=[value])
    return image(**{key: [value] if key == "layers" else value})


@pytest.mark.parametrize("media_type", [None, "", "tar", "a/b/c", "text/x; y=z", "a/b\r\nX: y", 5])
def test_a_descriptors_media_type_that_is_malformed_is_octet_stream(media_type):
    found = read_manifest(image(layers=[entry("a", media_type)]), None)
    assert found.layers == (descriptor("a", OCTET_STREAM),)


@pytest.mark.parametrize(
    "platform",
    [
        None,
        5,
        [],
        {},
        {"os": "linux"},
        {"os": "", "architecture": ""},
        {"os": "linux", "architecture": 386},
        {"os": "linux\n", "architecture": "amd64"},
        {"os": "l" * 65, "architecture": "amd64"},
    ],
)
def test_a_platform_that_is_malformed_is_none_and_the_child_stays(platform):
    found = read_manifest(index(manifests=[entry("a", OCI_MANIFEST, platform=platform)]), None)
    assert found.children == (Child(descriptor("a", OCI_MANIFEST), None),)


def test_an_artifact_type_that_is_malformed_is_none():
    assert read_manifest(artifact(artifactType="x\r\ny"), None).artifact_type is None


# Bounds, and whatever else may come


def test_f11_a_manifest_of_the_largest_size_is_read_and_one_byte_more_refused():
    data = image(annotations={"a": ""})
    padded = image(annotations={"a": " " * (MAX_MANIFEST - len(data))})
    assert len(padded) == MAX_MANIFEST
    assert read_manifest(padded, None).media_type == OCI_MANIFEST
    assert str(MAX_MANIFEST) in refusal(padded + b" ")


@pytest.mark.parametrize("key", ["layers", "manifests", "blobs"])
def test_f11_a_manifest_refers_to_so_many_and_not_one_more(key):
    entries = [entry(str(number)) for number in range(MAX_DESCRIPTORS + 1)]
    more = {"mediaType": OCI_ARTIFACT} if key == "blobs" else {}
    read = read_manifest(body(**{key: entries[1:]}, **more), None)
    assert len(read.children) + len(read.layers) == MAX_DESCRIPTORS
    assert str(MAX_DESCRIPTORS) in refusal(body(**{key: entries}, **more))


@pytest.mark.parametrize("piece", [b"[", b'{"a":', b"[],", b"{},", b'"a":0,', b"9", b'"', b"\\"])
def test_f72_hostile_bytes_as_many_as_may_come_are_refused(piece):
    start = b'{"schemaVersion":2,"layers":['
    refusal(start + piece * ((MAX_MANIFEST - len(start)) // len(piece)))


def test_f72_deep_nesting_is_refused_in_a_manifest_that_is_good_otherwise():
    deep = "x"
    for _ in range(100):
        deep = [deep]
    assert "deep" in refusal(image(annotations=deep))


@pytest.mark.parametrize("media_type", BODIES)
def test_a_key_that_occurs_twice_is_refused(media_type):
    data = BODIES[media_type]
    assert "twice" in refusal(data[:-1] + b', "mediaType": "%s"}' % media_type.encode())


scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=5)
types = st.sampled_from([*BODIES, SCHEMA_1, LAYER_TYPE, "", "text/html", "application/json"])
entries = (
    st.fixed_dictionaries(
        {},
        optional={
            "digest": st.sampled_from([str(Digest.of(b"x")), "sha256:x"]) | scalars,
            "size": st.integers(-1, 5) | scalars,
            "mediaType": types | scalars,
            "urls": st.lists(st.text(max_size=3), max_size=1) | scalars,
            "platform": st.dictionaries(
                st.sampled_from(["os", "architecture", "variant"]), scalars, max_size=3
            )
            | scalars,
        },
    )
    | st.just(entry("a"))
    | scalars
)
several = st.lists(entries, max_size=2) | scalars
documents = st.fixed_dictionaries(
    {},
    optional={
        "schemaVersion": st.just(2) | scalars,
        "mediaType": types | scalars,
        "artifactType": types | scalars,
        "manifests": several,
        "layers": several,
        "blobs": several,
        "config": entries,
        "subject": entries,
        "fsLayers": scalars,
    },
)
bodies = (
    documents.map(lambda document: json.dumps(document).encode())
    | st.sampled_from(sorted(BODIES.values()))
    | st.binary(max_size=100)
)


@given(bodies, st.none() | types | st.text(max_size=20))
def test_any_answer_is_read_or_refused_and_its_type_is_told_again_from_its_bytes(
    data, content_type
):
    found = attempt(Untrustworthy, read_manifest, data, content_type)
    if isinstance(found, Untrustworthy):
        assert found.message.replace("…", "").isascii()
    else:
        assert found.media_type in MANIFEST_TYPES
        assert found.is_index == (found.media_type in INDEX_TYPES)
        assert not (found.children and found.blobs)
        assert media_type_of(data) == found.media_type
        assert read_manifest(data, None) == found


@given(st.sampled_from(sorted(BODIES.values())), st.integers(0, 600), st.binary(max_size=3))
def test_a_manifest_damaged_anywhere_is_read_or_refused(data, place, damage):
    damaged = data[:place] + damage + data[place + 1 :]
    found = attempt(Untrustworthy, read_manifest, damaged, None)
    assert isinstance(found, Untrustworthy | Manifest)
