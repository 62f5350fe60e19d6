"""What people have done by commands and on the page: by the process that holds the store, which is
the only one, or the parent of the workers."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from functools import cached_property

from ..config import Config
from ..contracts.images import CachedImages
from ..server.admin.console import Console
from ..server.control import Command, one, taking_commands
from ..tasks import beside
from . import doctor
from .activity import LiveActivity
from .ahead import Ahead
from .far import far_commands
from .images import HeldImages, Keeping, image_commands
from .log_control import LogSwitch
from .reloading import Reloader, following_hangups
from .resources import Resources
from .syncing import SyncEntries


class Operations:
    """`config` is the one that counts now. Each kind of operation is an object of its own, which
    commands, the page and `/api/v1` share."""

    def __init__(
        self,
        config: Config,
        opened: Resources,
        reloader: Reloader,
        ahead: Ahead,
        activity: LiveActivity,
        log: LogSwitch,
        restart: Command,
    ) -> None:
        self.config = config
        self.opened = opened
        self.reloader = reloader
        self.ahead = ahead
        self.sync = SyncEntries(config, opened, ahead)
        self.activity = activity
        self.log = log
        self.restart = restart
        self.keeping = Keeping(opened, config)
        self.images: CachedImages = HeldImages(
            opened, self.keeping, lambda: self.config, reloader.begin_anew
        )

    def follow(self, config: Config) -> None:
        """From now on this is the configuration."""
        self.config = config
        self.ahead.follow(config)
        self.sync.follow(config)
        self.keeping.follow(config)
        self.activity.follow(config)
        self.log.follow(config)

    @cached_property
    def console(self) -> Console:
        """What the page and the API show, and have done."""
        scheme = "http" if self.config.tls is None else "https"
        return Console(self.activity, self.images, self.command_of, scheme)

    def command_of(self, name: str) -> Command | None:
        """Of several words with a hyphen between. None: there is none of this name."""
        return self._own_commands.get(name) or self._hosted_commands.get(name)

    @cached_property
    def _own_commands(self) -> Mapping[str, Command]:
        return {
            "reload": one(self.reloader.command),
            "restart": self.restart,
            **self.ahead.commands(),
            **self.sync.commands(),
            **image_commands(self.images),
            **self.activity.commands(),
            **self.log.commands(),
            **far_commands(self.opened.far_keeping),
            **doctor.commands(lambda: self.config, self.opened.store.usage, self.reloader.place),
        }

    @cached_property
    def _hosted_commands(self) -> Mapping[str, Command]:
        # Not before one is given: what they need takes a thirtieth of the start, and 2 MB. All
        # others are there, since the files may be another version's by then.
        from .administering import administration_commands
        from .backups import backup_commands
        from .collecting import collecting_commands

        hosted = self.opened.hosted
        return {
            **administration_commands(lambda: None if hosted is None else hosted.administration),
            **collecting_commands(lambda: None if hosted is None else hosted.collecting),
            **backup_commands(lambda: None if hosted is None else hosted.backups),
        }


@contextlib.asynccontextmanager
async def operating(operations: Operations) -> AsyncIterator[None]:
    """While the context lasts, commands are taken, and SIGHUP."""
    store = operations.opened.store
    with contextlib.closing(operations.log):
        async with (
            taking_commands(store.root, operations.command_of),
            beside(doctor.at_start(operations.config, store.usage), "doctor"),
            following_hangups(operations.reloader),
            beside(operations.keeping.run(), "what is kept"),
            beside(operations.sync.run(), "sync"),
            _keeping_hosted(operations.opened),
        ):
            yield


def _keeping_hosted(opened: Resources) -> contextlib.AbstractAsyncContextManager[None]:
    if opened.hosted is None:
        return contextlib.nullcontext()
    from .hosted import keeping_hosted

    return keeping_hosted(opened.hosted, opened.process)
