"""For tests that try anything: what a call gave, or the error that it is documented to raise."""


def attempt(documented, function, *arguments):
    """The result, or the error if it is of a documented kind; any other fails the test."""
    try:
        return function(*arguments)
    except documented as error:
        return error
