"""Where on its host a registry may be, by the path that somebody wrote."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.oci import layout
from mirror.oci.errors import NameInvalid
from mirror.oci.layout import Layout, layouts
from mirror.oci.reference import parse_name

from .attempts import attempt

HUB = "dockerhub-proxy"


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("", [Layout()]),
        ("/", [Layout()]),
        ("/v2", [Layout()]),
        ("/v2/", [Layout()]),
        (f"/v2/{HUB}", [Layout(prefix=HUB)]),
        (f"/v2/{HUB}/", [Layout(prefix=HUB)]),
        (
            "/v2/group/dependency_proxy/containers",
            [Layout(prefix="group/dependency_proxy/containers")],
        ),
        ("/v2/team/v2", [Layout(prefix="team/v2")]),
        (f"/{HUB}", [Layout(f"/{HUB}"), Layout(prefix=HUB)]),
        (f"/{HUB}/", [Layout(f"/{HUB}"), Layout(prefix=HUB)]),
        ("/project/repo", [Layout("/project/repo"), Layout(prefix="project/repo")]),
        ("/docker.io", [Layout("/docker.io"), Layout(prefix="docker.io")]),
        ("/artifactory/api/docker/x/v2/", [Layout("/artifactory/api/docker/x")]),
        ("/harbor/v2/hub", [Layout("/harbor", "hub")]),
        # No repository has upper case: as a prefix it is meant in lower case.
        ("/MyGroup/Hub", [Layout("/MyGroup/Hub"), Layout(prefix="mygroup/hub")]),
        # No repository is called so: it can only stand before /v2/.
        ("/artifactory/api/docker/Hub_~x", [Layout("/artifactory/api/docker/Hub_~x")]),
        ("/" + "a" * 256, [Layout("/" + "a" * 256)]),
    ],
)
def test_a_path_is_what_stands_before_v2_or_a_prefix_or_both(path, meant):
    assert list(layouts(path)) == meant


@pytest.mark.parametrize(
    "path",
    [
        *("//", "/a//b", "/a/b//", "//v2/", "/v2//", "/v2//a", "/a/../b", "/..", "/.", "/a/./v2"),
        *("/v2/Hub", "/v2/a..b", "/v2/../a", "/v2/-a", "/v2/a:b", "/a%2Fb", "/a b", "/a@b", "/é"),
        *("/v2/" + "a" * 256, "/a:1/v2/b"),
    ],
)
def test_other_paths_are_refused(path):
    with pytest.raises(NameInvalid):
        layouts(path)


@given(st.from_regex(r"(/[a-zA-Z0-9._~-]{1,6}){0,5}/?", fullmatch=True))
def test_each_meaning_is_written_as_a_path_that_means_it_alone(path):
    possible = attempt(NameInvalid, layouts, path)
    for meant in () if isinstance(possible, NameInvalid) else possible:
        assert layouts(str(meant)) == (meant,)


def test_the_registry_s_name_of_a_repository_begins_with_the_prefix():
    assert Layout("/a", "b/c").repository("library/redis") == "b/c/library/redis"
    assert Layout("/a").repository("library/redis") == "library/redis"
    assert Layout("/a", "b").root == "/a/v2/"
    # Clients refuse names of more than 255 characters; with a prefix they may be longer there.
    longest = parse_name("a" * 255)
    assert Layout(prefix=longest).repository(longest) == f"{longest}/{longest}"


def test_the_examples_of_the_module_hold():
    assert doctest.testmod(layout).failed == 0
