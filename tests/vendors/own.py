"""Profiles: what people run themselves."""

from __future__ import annotations

from dataclasses import replace

from .profile import Challenge, Login, Manifests, Profile, Realm, Referrers, Storage, Tags

_REALM = 'Bearer realm="{realm}"'
_SCOPE = 'scope="repository:{name}:pull"'
_SENDS = Storage(status=0)

# It sets a cookie with each answer, which nobody need send back. A project's name comes first.
_HARBOR = f'{_REALM},service="harbor-registry"'
HARBOR = Profile(
    name="harbor.example",
    login=Login("robot$mirror"),
    challenge=Challenge(f"{_HARBOR},{_SCOPE}", ping=_HARBOR),
    realm=Realm("/service/token", service="harbor-registry", fields=("token", "access_token")),
    tags=Tags(page=100),
    storage=_SENDS,
    referrers=Referrers.API,
    headers={"Set-Cookie": "sid=0029ac0cfac12142604b6ccdf92eb536; Path=/; HttpOnly"},
)
HARBOR_PROXY = Profile(
    name="harbor-proxy.example",
    login=HARBOR.login,
    challenge=HARBOR.challenge,
    realm=HARBOR.realm,
    project="dockerhub-proxy",
    tags=Tags(page=100),
    storage=_SENDS,
    referrers=Referrers.API,
    headers=HARBOR.headers,
)

# It is at a path of GitLab itself, and has no list of tags. The challenge names no scope.
GITLAB_PROXY = Profile(
    name="gitlab-proxy.example",
    login=Login("me", "glpat-xxxxxxxxxxxxxxxxxxxx"),
    challenge=Challenge(f'{_REALM},service="dependency_proxy"'),
    realm=Realm("/jwt/auth", service="dependency_proxy", scoped=False, lifetime=None),
    project="acme/dependency_proxy/containers",
    has_public=False,
    tags=Tags(is_open=False),
    storage=Storage(signature=600),
)

# A repository with a port of its own. The scheme is in capitals, and links lead to the repository's
# path, which is not there on this port.
NEXUS_PORT = Profile(
    name="nexus.example",
    login=Login("mirror"),
    challenge=Challenge('BASIC realm="Sonatype Nexus Repository Manager"'),
    has_public=False,
    storage=_SENDS,
    tags=Tags(
        page=100,
        is_sorted=False,
        link='<{root}/repository/docker-hosted/v2/{name}/tags/list?n={n}&last={last}>; rel="next"',
    ),
)
# HEAD finds nothing in some versions, and GET does.
NEXUS_WITHOUT_HEAD = replace(NEXUS_PORT, name="nexus-head.example", manifests=Manifests(head=404))
# A repository by its path, with the realm for tokens. The service is the realm's URL.
NEXUS_PATH = Profile(
    name="nexus-path.example",
    login=Login("mirror"),
    challenge=Challenge(f'{_REALM},service="{{realm}}",{_SCOPE}'),
    realm=Realm("/repository/docker-proxy/v2/token", service="{realm}", lifetime=None),
    path="/repository/docker-proxy",
    storage=_SENDS,
    tags=Tags(is_sorted=False),
)

_ARTIFACTORY = f'{_REALM},service="{{host}}"'
# A repository with a host name of its own, where strangers may read some of it, and do not see the
# rest ("hide existence of unauthorized resources").
ARTIFACTORY_HOST = Profile(
    name="artifactory.example",
    login=Login("mirror"),
    challenge=Challenge(f"{_ARTIFACTORY},{_SCOPE}"),
    realm=Realm("/v2/token", service="{host}", lifetime=3600),
    is_open=True,
    stranger=404,
    storage=Storage(status=302, signature=900),
    manifests=Manifests(head_digest=False, head_type="application/octet-stream"),
    tags=Tags(page=100),
    referrers=Referrers.API,
    headers={"X-JFrog-Version": "Artifactory/7.90.0", "X-Artifactory-Id": "0" * 56},
)
# A repository as a path before /v2/, which links leave out.
ARTIFACTORY_PATH = Profile(
    name="artifactory-path.example",
    login=Login("mirror"),
    challenge=Challenge(f"{_ARTIFACTORY},{_SCOPE}"),
    realm=Realm("/artifactory/api/docker/docker-remote/v2/token", service="{host}", lifetime=3600),
    path="/artifactory/api/docker/docker-remote",
    storage=_SENDS,
    tags=Tags(page=100),
    referrers=Referrers.API,
    headers=ARTIFACTORY_HOST.headers,
)
# A repository as the first part of images' names, which links leave out; `last` is a number.
ARTIFACTORY_PREFIX = Profile(
    name="artifactory-prefix.example",
    login=Login("mirror"),
    challenge=Challenge(f"{_ARTIFACTORY},{_SCOPE}"),
    realm=Realm("/v2/token", service="{host}", lifetime=3600),
    project="docker-remote",
    storage=_SENDS,
    tags=Tags(page=100, link='</v2/{own}/tags/list?last={end}&n={n}>; rel="next"'),
    referrers=Referrers.API,
    headers=ARTIFACTORY_HOST.headers,
)

# No service and no scope; the token that it gives is the password, whoever shows it.
OPENSHIFT = Profile(
    name="openshift.example",
    login=Login("anybody", "sha256~" + "z" * 43),
    challenge=Challenge(_REALM),
    realm=Realm(
        "/openshift/token",
        scoped=False,
        fields=("token", "access_token"),
        lifetime=None,
        echoes=True,
    ),
    storage=_SENDS,
    tags=Tags(is_sorted=False),
    headers={
        "X-Registry-Supports-Signatures": "1",
        "Set-Cookie": "34727b82525eb26a530629c5bf0ec2f2=45dcde97457968b194acdaa973d153f4; path=/",
    },
)

_GITEA = f'{_REALM},service="container_registry",scope="*"'
# The scope is always `*`. Links are absolute.
GITEA = Profile(
    name="gitea.example",
    login=Login("mirror"),
    challenge=Challenge(_GITEA, ping=_GITEA),
    realm=Realm("/v2/token", service="container_registry", scoped=False, lifetime=None),
    storage=_SENDS,
    tags=Tags(page=50, link='<{root}/v2/{name}/tags/list?last={last}&n={n}>; rel="next"'),
)

PROFILES = (
    HARBOR,
    HARBOR_PROXY,
    GITLAB_PROXY,
    NEXUS_PORT,
    NEXUS_WITHOUT_HEAD,
    NEXUS_PATH,
    ARTIFACTORY_HOST,
    ARTIFACTORY_PATH,
    ARTIFACTORY_PREFIX,
    OPENSHIFT,
    GITEA,
)
