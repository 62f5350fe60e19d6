"""Stand-ins for what the part under test talks to. Each keeps to a contract of `mirror.contracts`.

    FakeRegistry     a Reader: what a guard or the server's port has behind it
    FakeUpstream     an Upstream in memory, under a cache: it holds manifests, tags and blobs
    NamedUpstream    an Upstream that answers with its name: an endpoint of a pool
    Hub              a registry, its token realm and its blob host over HTTP (`fakes.hub`): for what
                     speaks to an upstream over sockets, and for whole mirrors
                     (tests/vendors has registries of vendors, of the same parts: `fakes.servers`,
                     `fakes.shelf`)
    MemoryContent    a ContentStore without a disk
    MemoryTier       a SecondTier in memory, which can be told to hang or fail
    MemoryFarContent the FarContent of one
    MemoryFar        a FarRecords of a MemoryContent
    FakeTags         a TagStore in a dict
    MemoryRecords    HostedRecords and CollectionRecords by brute force
    MemoryWebhooks   WebhookRecords by brute force
    MemoryHeld       a HeldContent without a disk
    MemoryIdentity   IdentityRecords without a database
    MemoryCatalogue  a Catalogue by brute force
    FakeActivity     an Activity that says what it was given (`fakes.activity`)
    FakeImages       a CachedImages with the images that it was given (`fakes.images`)
    Recorder         a bus of events that remembers; Answers counts those of the server
    HandClock        time that passes when the test says so

What only waits for timers runs in virtual time (`tests.jumping`); for what sockets, threads or
processes have to bring about, a test polls (`tests.waiting`).
"""

from .catalogue import MemoryCatalogue
from .clock import HandClock
from .content import MemoryContent
from .events import Answers, Recorder
from .hosted import MemoryHeld, MemoryRecords
from .identity import MemoryIdentity
from .registry import FakeRegistry
from .requests import CONTEXT, REDIS, request_of
from .sessions import MemorySessions
from .tags import FakeTags
from .tier import MemoryFar, MemoryFarContent, MemoryTier
from .upstream import FakeStream, FakeUpstream, NamedStream, NamedUpstream, manifest_of
from .webhooks import MemoryWebhooks

__all__ = [
    "CONTEXT",
    "REDIS",
    "Answers",
    "FakeRegistry",
    "FakeStream",
    "FakeTags",
    "FakeUpstream",
    "HandClock",
    "MemoryCatalogue",
    "MemoryContent",
    "MemoryFar",
    "MemoryFarContent",
    "MemoryHeld",
    "MemoryIdentity",
    "MemoryRecords",
    "MemorySessions",
    "MemoryTier",
    "MemoryWebhooks",
    "NamedStream",
    "NamedUpstream",
    "Recorder",
    "manifest_of",
    "request_of",
]
