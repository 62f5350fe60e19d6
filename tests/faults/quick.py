"""`mirror serve` with short waits for its upstreams, so that a test which needs one of them to end
takes seconds: `python -m tests.faults.quick serve --config F`.

How long a client may be silent is in mirror.yaml (`limits: idle:`); these are not.
"""

from __future__ import annotations

from dataclasses import fields

from mirror import cli
from mirror.pullthrough import far_uploads, policy, second_tier
from mirror.pullthrough.fills import patience
from mirror.times import Exchanges
from mirror.upstream.endpoint import EndpointLimits
from mirror.upstream.pool.body import Watch

HEADERS = 1.5
PATIENCE = 5.0
REALM = {"realm": 0.6, "realm_silent": 0.3}


def shorten(kind: type, **defaults: object) -> None:
    """Gives a dataclass, whose fields all have defaults, other ones."""
    values = {field.name: field.default for field in fields(kind)}
    assert values.keys() >= defaults.keys()
    kind.__init__.__defaults__ = tuple((values | defaults).values())  # type: ignore[misc]


def hurry() -> None:
    """Shortens what is waited for in this process, from now on."""
    waits = Exchanges(dns=0.5, connect=1.0, headers=HEADERS, answer=4.0, body=1.0, **REALM)
    shorten(EndpointLimits, waits=waits)
    shorten(Watch, silent=0.5, alone=1.0, longest=3.0, slow_window=1.0)
    shorten(
        patience.DownloadPatience,
        first_byte=PATIENCE,
        stalled=PATIENCE,
        longest_pause=1.0,
        doubt=1.0,
    )
    shorten(policy.AnswerPatience, unknown=PATIENCE)
    shorten(second_tier.TierPatience, away=2.0, put=10.0)
    for name, seconds in (("away", 2.0), ("put", 5.0)):
        object.__setattr__(second_tier.OF_A_BUCKET, name, seconds)  # it was made before this
    shorten(
        far_uploads.UploadPace,
        look=0.2,
        pause=0.2,
        longest_pause=1.0,
        passed_over=1.0,
        longest_passed_over=2.0,
    )
    shorten(policy.TroublePatience, promised=PATIENCE, lagging=1.0)


# Also in workers, which import this module anew under another name.
if __name__ in ("__main__", "__mp_main__"):
    hurry()

if __name__ == "__main__":
    cli.main()
