"""docs/reference.md is what the code says."""

from docs.build_reference import PAGE, reference


def test_the_reference_is_what_the_code_says() -> None:
    assert PAGE.read_text() == reference(), "write it anew: make reference"
