"""Names, lists and platforms that commands are given."""

from pathlib import Path

import pytest
import typer

from mirror.cli.named import names_of, platforms_of
from mirror.sync import lists


def test_every_command_reads_a_list_as_warm_does(tmp_path: Path) -> None:
    file = tmp_path / "images.txt"
    file.write_bytes("\ufeffredis:7\r\n\n# bases\n  alpine:3 # the small one\n".encode())
    assert names_of(["nginx", f"@{file}"]) == ["nginx", "redis:7", "alpine:3"]


@pytest.mark.parametrize(
    ("data", "words"), [(b"\xff\n", "codec can't decode"), (b"a\n" * 9_000_000, "at most 16 MiB")]
)
def test_a_list_that_cannot_be_read_ends_the_command(
    data: bytes, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(b"a\n" * 9_000_000) > lists.MOST_BYTES
    (tmp_path / "list").write_bytes(data)
    with pytest.raises(typer.Exit) as ended:
        names_of([f"@{tmp_path / 'list'}"])
    assert ended.value.exit_code == 2
    assert words in capsys.readouterr().err


def test_platforms_are_taken_once_and_what_is_none_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert platforms_of(["linux/arm64", "all", "linux/arm64"]) == ["linux/arm64", "all"]
    with pytest.raises(typer.Exit) as ended:
        platforms_of(["arm64"])
    assert ended.value.exit_code == 2
    assert "--platform arm64: write one such as linux/arm64" in capsys.readouterr().err
