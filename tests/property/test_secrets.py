"""The secret filter keeps the lines of any text and leaves harmless identifiers alone."""

from hypothesis import example, given
from hypothesis import strategies as st

from cas.tracking.privacy.secrets import scrub_argv, scrub_bytes, scrub_text

DIGESTS = st.binary(min_size=16, max_size=32).map(bytes.hex)
UUIDS = st.uuids().map(str)
WORDS = st.from_regex(r"[a-z]{2,9}(_[a-z]{2,9}){0,4}[0-9]{0,2}", fullmatch=True)
NUMBERS = st.floats(allow_nan=False).map(repr) | st.integers().map(str)
VALUES = DIGESTS | UUIDS | WORDS | NUMBERS
PLAIN_NAMES = st.sampled_from(["digest", "commit", "run_id", "etag", "checksum", "tokenizer", "x"])
SECRETIVE = st.sampled_from(["", "password = '", "api_key: ", "://a:", "@", "token=", "\n", "\r\n"])


@given(name=PLAIN_NAMES, value=VALUES, form=st.sampled_from(['{} = "{}"', "{}: {}", "--{} {}"]))
def test_identifiers_under_plain_names_stay(name: str, value: str, form: str) -> None:
    text = form.format(name, value)
    assert scrub_text(text) == (text, 0)


@given(name=st.sampled_from(["token", "auth_token", "api_key"]), value=WORDS)
def test_names_made_of_words_stay_even_when_assigned(name: str, value: str) -> None:
    text = f"{name} = {value}\n{name} = '{value}'"
    assert scrub_text(text) == (text, 0)


@given(st.lists(SECRETIVE | VALUES | st.text(max_size=30), max_size=12).map("".join))
@example("-----BEGIN PRIVATE KEY-----\n" + "a" * 50 + "\n\n-----END PRIVATE KEY-----")
def test_no_line_is_added_or_lost(text: str) -> None:
    clean, count = scrub_text(text)
    assert clean.count("\n") == text.count("\n")
    assert clean.count("\r") == text.count("\r")
    assert (count == 0) == (clean == text)


@given(st.binary(max_size=200))
def test_bytes_without_secrets_come_back_equal(data: bytes) -> None:
    clean, count = scrub_bytes(data)
    assert count or clean == data


@given(st.lists(st.text(max_size=20), max_size=6))
def test_a_command_keeps_its_length_and_becomes_valid_text(argv: list[str]) -> None:
    clean = scrub_argv(argv)
    assert len(clean) == len(argv)
    for argument in clean:
        argument.encode()
