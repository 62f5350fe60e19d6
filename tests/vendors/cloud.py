"""Profiles: what cloud providers and public registries run."""

from __future__ import annotations

from .profile import Challenge, Login, Manifests, Profile, Realm, Referrers, Storage, Tags

_REALM = 'Bearer realm="{realm}"'
_SCOPE = 'scope="repository:{name}:pull"'

# The limits are told to everybody, a request's source too. Its storage signs for GET alone.
DOCKER_HUB = Profile(
    name="hub.example",
    login=Login("me"),
    challenge=Challenge(
        f'{_REALM},service="registry.docker.io",{_SCOPE}',
        expired=f'{_REALM},service="registry.docker.io",{_SCOPE},error="invalid_token"',
    ),
    realm=Realm(
        "/token",
        elsewhere=True,
        service="registry.docker.io",
        fields=("token", "access_token"),
        posts=True,
    ),
    headers={
        "ratelimit-limit": "100;w=21600",
        "ratelimit-remaining": "99;w=21600",
        "docker-ratelimit-source": "192.0.2.7",
    },
)

# Basic alone, with a password of some 2 KiB that ends after 12 h: then 403, not 401. Lists are
# text/plain, in no order, and go on by an opaque `last`; more than 1000 in a page is an error.
_ECR = 'Basic realm="{root}/",service="ecr.amazonaws.com"'
ECR = Profile(
    name="ecr.example",
    login=Login("AWS", "A" * 1900 + "=="),
    challenge=Challenge(_ECR, ping=_ECR),
    has_public=False,
    refused=403,
    tags=Tags(
        page=100,
        most=1000,
        beyond=405,
        link='<{root}/v2/{name}/tags/list?last={last}>; rel="next"',
        is_sorted=False,
        content_type="text/plain",
    ),
    storage=Storage(signature=1600),
    referrers=Referrers.API,
)

# A rule of ECR's pull-through cache: what it caches is below the rule's prefix.
ECR_CACHE = Profile(
    name="ecr-cache.example",
    login=ECR.login,
    challenge=ECR.challenge,
    project="docker-hub",
    has_public=False,
    refused=403,
    tags=ECR.tags,
    storage=ECR.storage,
    referrers=Referrers.API,
)

_AWS = 'Bearer realm="{realm}",service="{host}",scope="aws"'
# The scope is always `aws`, and a token is good for all that is public.
ECR_PUBLIC = Profile(
    name="ecr-public.example",
    login=None,
    challenge=Challenge(_AWS, ping=_AWS),
    realm=Realm("/token/", service="{host}", scoped=False, lifetime=None),
    tags=Tags(page=1000, most=1000),
    storage=Storage(signature=700),
    referrers=Referrers.API,
)

# `access_token` alone, without its lifetime. A list of tags has an action of its own. A refresh
# token is taken by POST.
_ACR = 'Bearer realm="{realm}",service="{host}"'
ACR = Profile(
    name="acr.example",
    login=Login("service-principal"),
    challenge=Challenge(
        f"{_ACR},{_SCOPE}",
        tags=f'{_ACR},scope="repository:{{name}}:metadata_read"',
        expired=f'{_ACR},{_SCOPE},error="invalid_token"',
        tags_action="metadata_read",
    ),
    realm=Realm(
        "/oauth2/token", service="{host}", fields=("access_token",), lifetime=None, posts=True
    ),
    tags=Tags(page=100, link='</v2/{name}/tags/list?last={last}&n={n}&orderby=>; rel="next"'),
    storage=Storage(signature=500, by_method=False, refusal=403),
    referrers=Referrers.API,
)
ACR_IDENTITY = Profile(
    name="acr-identity.example",
    login=Login("00000000-0000-0000-0000-000000000000", "e" * 1200, kind="identity_token_file"),
    challenge=ACR.challenge,
    realm=ACR.realm,
    tags=ACR.tags,
    storage=ACR.storage,
    referrers=Referrers.API,
)

# /v2/ names no service, repositories do. Lists say more than tags. Bytes are at the same host,
# below another path.
GAR = Profile(
    name="gar.example",
    login=Login(
        "_json_key",
        '{\n  "type": "service_account",\n  "private_key": "-----BEGIN\\nKEY-----\\n"\n}',
    ),
    challenge=Challenge(f'{_REALM},service="{{host}}",{_SCOPE}', ping=_REALM),
    realm=Realm("/v2/token", service="{host}", lifetime=3600),
    project="project/images",
    is_open=True,
    tags=Tags(more={"child": [], "manifest": {"sha256:0": {"tag": ["x"], "timeUploadedMs": "0"}}}),
    storage=Storage(status=302, path="/artifacts-downloads", signature=600),
    referrers=Referrers.API,
)

# Tokens for all, also of what is public; a stranger who asks for what is private is refused by the
# realm. An index is not there for those who do not accept one, and referrers are asked of a page.
_GHCR = 'Bearer realm="{realm}",service="ghcr.io",scope="repository:{name}:pull"'
GHCR = Profile(
    name="ghcr.example",
    login=Login("me", "ghp_" + "x" * 36),
    challenge=Challenge(_GHCR, ping=_GHCR.replace("{name}", "user/image")),
    realm=Realm("/token", service="ghcr.io", lifetime=None, stranger=401),
    tags=Tags(page=100, is_sorted=False),
    storage=Storage(signature=1100, head=True, by_method=False),
    manifests=Manifests(strict_accept=True),
    referrers=Referrers.PAGE,
    headers={"X-GitHub-Request-Id": "F8E6:3986F4:73840B:767DC3:66518CE1"},
)

# Pages go on by an opaque name; `last` means nothing.
_QUAY = 'Bearer realm="{realm}",service="{host}"'
QUAY = Profile(
    name="quay.example",
    login=Login("acme+mirror"),
    challenge=Challenge(f"{_QUAY},{_SCOPE}", ping=_QUAY),
    realm=Realm("/v2/auth", service="{host}", lifetime=None),
    tags=Tags(
        page=50,
        most=100,
        is_sorted=False,
        link='</v2/{name}/tags/list?next_page={page}&n={n}>; rel="next"',
    ),
    storage=Storage(status=302, signature=800),
    referrers=Referrers.API,
    headers={"Vary": "Cookie", "X-Frame-Options": "DENY"},
)

# Nobody is asked who he is.
MCR = Profile(
    name="mcr.example",
    login=None,
    challenge=Challenge("", ping=None),
    is_open=True,
    storage=Storage(signature=400, head=True, by_method=False),
    referrers=Referrers.API,
)

# The challenge names no service, and errors are pages. An expired token is answered with another
# realm, which gives nothing to the anonymous.
NVCR = Profile(
    name="nvcr.example",
    login=Login("$oauthtoken", "nvapi-" + "y" * 64),
    challenge=Challenge(
        f"{_REALM},{_SCOPE}",
        ping=_REALM,
        expired='Bearer realm="{root}/legacy/token",service="registry",error="invalid_token"',
    ),
    realm=Realm("/proxy_auth", lifetime=None, content_type="text/html"),
    storage=Storage(signature=900),
    error_type="text/html",
)

# The realm is at the provider's API.
DIGITALOCEAN = Profile(
    name="digitalocean.example",
    login=Login("dop_v1_token", "dop_v1_token"),
    challenge=Challenge('Bearer realm="{realm}",service="{host}",scope="repository:{name}:pull"'),
    realm=Realm(
        "/v2/registry/auth", elsewhere=True, service="{host}", fields=("token", "access_token")
    ),
    has_public=False,
)

# Nothing without a login, whose user has a bar in its name and whose password is a JWT.
_RED_HAT = f'{_REALM},service="docker-registry"'
RED_HAT = Profile(
    name="redhat.example",
    login=Login("12345678|mirror", "eyJhbGciOiJSUzUxMiJ9." + "j" * 1000),
    challenge=Challenge(f"{_RED_HAT},{_SCOPE}", ping=_RED_HAT),
    realm=Realm(
        "/auth/realms/rhcc/protocol/redhat-docker-v2/auth",
        service="docker-registry",
        fields=("token", "access_token"),
        anonymous=False,
    ),
    has_public=False,
    tags=Tags(page=100, link='</v2/{name}/tags/list?n={n}&last={last}>; rel="next"'),
    storage=Storage(status=302, signature=500),
)

# The service has colons, and the realm is on another host.
_ALIBABA = f'{_REALM},service="registry.aliyuncs.com:cn-hangzhou:26842"'
ALIBABA = Profile(
    name="alibaba.example",
    login=Login("mirror@acme"),
    challenge=Challenge(f"{_ALIBABA},{_SCOPE}", ping=_ALIBABA),
    realm=Realm(
        "/auth",
        elsewhere=True,
        service="registry.aliyuncs.com:cn-hangzhou:26842",
        fields=("token", "access_token"),
        lifetime=None,
    ),
    storage=Storage(signature=300),
)

# The realm is at the other half of GitLab, on a host of its own; strangers are refused by it. A
# tag that looks like a digest is one.
_GITLAB = 'Bearer realm="{realm}",service="container_registry"'
GITLAB = Profile(
    name="gitlab.example",
    login=Login("gitlab+deploy-token-1"),
    challenge=Challenge(
        f"{_GITLAB},{_SCOPE}",
        ping=_GITLAB,
        expired=f'{_GITLAB},{_SCOPE},error="invalid_token"',
    ),
    realm=Realm(
        "/jwt/auth", elsewhere=True, service="container_registry", lifetime=None, stranger=403
    ),
    tags=Tags(page=100, most=1000, beyond=400),
    storage=Storage(signature=600),
    referrers=Referrers.NOWHERE,
)

# It has nothing, and sends on to Google's registry: every request, /v2/ too.
K8S = Profile(
    name="k8s.example",
    login=None,
    challenge=Challenge(""),
    front_of=Profile(
        name="gar.example",
        login=None,
        challenge=GAR.challenge,
        realm=GAR.realm,
        project="k8s-artifacts-prod/images",
        is_open=True,
        stranger=403,
        tags=GAR.tags,
        storage=Storage(signature=0, by_method=False),
        referrers=Referrers.API,
    ),
)

# It sends on to ghcr.io, which has a challenge of its own.
LSCR = Profile(name="lscr.example", login=None, challenge=Challenge(""), front_of=GHCR)

PROFILES = (
    DOCKER_HUB,
    ECR,
    ECR_CACHE,
    ECR_PUBLIC,
    ACR,
    ACR_IDENTITY,
    GAR,
    GHCR,
    QUAY,
    MCR,
    NVCR,
    DIGITALOCEAN,
    RED_HAT,
    ALIBABA,
    GITLAB,
    K8S,
    LSCR,
)
