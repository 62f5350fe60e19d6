"""The stand-ins have what their contracts have, and take it as it is written there."""

from __future__ import annotations

import inspect

import pytest

from mirror.contracts.catalogue import Catalogue, CatalogueNotes
from mirror.contracts.content import ContentStore
from mirror.contracts.hosted import CollectionRecords, HostedRecords
from mirror.contracts.identity import IdentityRecords, SessionRecords
from mirror.contracts.registry import Reader
from mirror.contracts.tags import TagStore
from mirror.contracts.uploads import HeldContent
from mirror.contracts.upstream import StreamContent, Upstream
from mirror.contracts.webhooks import WebhookRecords
from mirror.upstream.pool.pool import Pool

from . import fakes


@pytest.mark.parametrize(
    ("contract", "kind"),
    [
        (Reader, fakes.FakeRegistry),
        (Upstream, fakes.FakeUpstream),
        (Upstream, fakes.NamedUpstream),
        (Upstream, Pool),
        (StreamContent, fakes.FakeStream),
        (StreamContent, fakes.NamedStream),
        (ContentStore, fakes.MemoryContent),
        (TagStore, fakes.FakeTags),
        (Catalogue, fakes.MemoryCatalogue),
        (CatalogueNotes, fakes.MemoryCatalogue),
        (HostedRecords, fakes.MemoryRecords),
        (IdentityRecords, fakes.MemoryIdentity),
        (CollectionRecords, fakes.MemoryRecords),
        (HeldContent, fakes.MemoryHeld),
        (SessionRecords, fakes.MemorySessions),
        (WebhookRecords, fakes.MemoryWebhooks),
    ],
)
def test_every_method_of_the_contract_is_there_with_its_parameters(
    contract: type, kind: type
) -> None:
    methods = {
        name: method
        for name, method in vars(contract).items()
        if inspect.isfunction(method) and not name.startswith("_")
    }
    assert methods
    for name, method in methods.items():
        meant, found = inspect.signature(method), inspect.signature(getattr(kind, name))
        assert list(found.parameters) == list(meant.parameters), name
        for parameter in meant.parameters.values():
            assert found.parameters[parameter.name].default == parameter.default, name
