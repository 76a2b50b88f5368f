"""Secrets never reach a hash, and what only looks like one stays."""

import io

import pytest

from cas.tracking.privacy import redaction
from cas.tracking.privacy.redaction import Redaction
from cas.tracking.privacy.secretfiles import is_secret_file
from cas.tracking.privacy.secrets import (
    REMOVED,
    find,
    scrub_argv,
    scrub_bytes,
    scrub_params,
    scrub_pieces,
    scrub_text,
    scrub_url,
)

# Planted secrets are put together here, so that no scanner takes this file for a leak.
RANDOM = "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY" + "z1A2b3C4d5E6f7G8h9"
HEX = "3f9a1c7e5b2d8064" + "a1b2c3d4e5f60718" + "9c8d7e6f"
KEY_LINES = "\n".join([RANDOM[:40] + "abcd1234EFGH5678IJKL"] * 3)

PLANTED = {
    "aws access key": "AKIA" + "IOSFODNN7QXAMPLE".replace("1", "2"),
    "aws secret": f'aws_secret_access_key = "{RANDOM[:20]}/{RANDOM[:19]}"',
    "github classic": "ghp_" + RANDOM[:36],
    "github oauth": "gho_" + RANDOM[:36],
    "github fine-grained": "github_pat_" + RANDOM[:22] + "_" + RANDOM,
    "gitlab": "glpat-" + RANDOM[:20],
    "hugging face": "hf_" + RANDOM[:34],
    "openai legacy": "sk-" + RANDOM[:48],
    "openai project": "sk-proj-" + RANDOM + "-" + RANDOM[:20],
    "anthropic": "sk-ant-api03-" + RANDOM + "-" + RANDOM[:30] + "AA",
    "slack bot": "xoxb-" + "123456789012-1234567890123-" + RANDOM[:24],
    "slack hook": "https://hooks.slack.com/services/T0000AAAA/B0000BBBB/" + RANDOM[:24],
    "google key": "AIza" + RANDOM[:35],
    "google oauth": "ya29." + RANDOM,
    "stripe": "sk_live_" + RANDOM[:24],
    "npm": "npm_" + RANDOM[:36],
    "pypi": "pypi-AgEIcHlwaS5vcmc" + RANDOM,
    "docker": "dckr_pat_" + RANDOM[:27],
    "databricks": "dapi" + HEX[:32],
    "sendgrid": "SG." + RANDOM[:22] + "." + RANDOM[:43],
    "jwt": f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.{RANDOM[:43]}",
    "azure storage": "AccountKey=" + (RANDOM * 2)[:86] + "==",
    "rsa key": f"-----BEGIN RSA PRIVATE KEY-----\n{KEY_LINES}\n-----END RSA PRIVATE KEY-----",
    "cut key": f"-----BEGIN PRIVATE KEY-----\n{KEY_LINES}\n",
    "key in json": f'"-----BEGIN PRIVATE KEY-----\\n{RANDOM}\\n-----END PRIVATE KEY-----\\n"',
    "url password": "postgresql://app:s3cr3tPassw0rd@db.example.org/runs",
    "url token": f"https://{HEX}@git.example.org/team/repo.git",
    "signed url": f"https://bucket.example.org/x?X-Amz-Signature={HEX}&X-Amz-Expires=60",
    "password literal": "password = 'hunter2-is-taken'",
    "python keyword": f'client = Client(api_key="{RANDOM[:32]}")',
    "annotated": f'API_TOKEN: str = "{RANDOM[:32]}"',
    "item": f'os.environ["WANDB_API_KEY"] = "{HEX}"',
    "notebook": rf'"os.environ[\"WANDB_API_KEY\"] = \"{HEX}\"\n",',
    "html": f"<p>WANDB_API_KEY={HEX}</p>",
    "markdown": f"set `api_key={RANDOM[:32]}` first",
    "shell": f"export WANDB_API_KEY={HEX}",
    "yaml": f"  api_key: {RANDOM[:40]}",
    "json": f'{{"client_secret": "{RANDOM[:24]}"}}',
    "header": f"Authorization: Bearer {RANDOM}",
    "option": f"python train.py --wandb-api-key {HEX} --lr 0.1",
    "yaml password": "  db_password: s3cr3tPassw0rd",
    "shell password": "export PGPASSWORD=s3cr3tPassw0rd",
    "curl": "curl -s -u admin:s3cr3tPassw0rd https://example.org",
    "docker login": "docker login -u me -p s3cr3tPassw0rd registry.example.org",
    "wandb login": f"wandb login --relogin {HEX}",
    "pair": f'os.environ.setdefault("WANDB_API_KEY", "{HEX}")',
    "letters alone": 'client_secret = "' + "qWrtPsdFghJklZxcVbnMhT" + '"',
    "digits alone": 'api_key = "' + "068622941617" + '6071"',
    "manifest": f"kind: Secret\ndata:\n  one: {RANDOM[:16]}\n  two: aHVudGVyMg==\n",
    "facebook": "905231136807023|" + RANDOM[:27],
}
SECRETS = (
    *(RANDOM[:16], HEX[:16], "hunter2", "s3cr3tPassw0rd", "IOSFODNN", "aHVudGVyMg"),
    *("qWrtPsdFgh", "068622941617"),
)


@pytest.mark.parametrize("planted", PLANTED.values(), ids=PLANTED)
def test_a_planted_secret_is_removed_and_the_lines_stay(planted: str) -> None:
    text = f"first line\n{planted}\nlast line\r\n"
    clean, count = scrub_text(text)
    assert count >= 1
    assert REMOVED in clean
    assert not [secret for secret in SECRETS if secret in clean]
    assert clean.count("\n") == text.count("\n")
    assert clean.startswith("first line\n")
    assert clean.endswith("\nlast line\r\n")
    assert scrub_text(clean) == (clean, 0)


HARMLESS = {
    "digest": f'DIGEST = "{HEX}{HEX[:24]}"',
    "commit": f"commit {HEX}",
    "uuid": 'run_id = "123e4567-e89b-12d3-a456-426614174000"',
    "base64": f'DATA = "{RANDOM * 4}=="',
    "tokenizer": 'tokenizer = "bert-base-uncased-v2-finetuned-sst2"',
    "special token": 'pad_token = "<|reserved_special_token_0|>"',
    "name of a variable": 'api_key = os.environ["OPENAI_API_KEY_2"]',
    "attribute": "token=model_args2.token_value_for_hub",
    "call": "auth_token = get_token_from_keyring_v2(name)",
    "author": 'author = "Jane Doe 1234567890abcdef"',
    "sorting": 'sort_key = "validation_loss_at_epoch_10"',
    "empty": 'password = ""',
    "placeholder": 'password = "<your password 1>"',
    "interpolated": 'password = f"{user}1234567"',
    "html class": '<div class="sk-toggleable__content sk-estimator-doc-link-2">',
    "plain url": "see https://example.org/a@b/c?page=2&key=3",
    "template url": "postgres://{user}:{password}@host/db",
    "mention": 'if "-----BEGIN PRIVATE KEY-----" in text:\n    refuse(text)\n',
    "e-mail": "mailto:someone@example.org",
    "decorator": "def key(token): return token == 'abc'",
    "name of a function": "    password = get_password1",
    "annotation": "    password: SecretStr2 = None",
    "manifest of a job": "kind: Job\ndata:\n  one: aHVudGVyMg==\n",
    "attribute of 24": "s.abcdefghijklmnopqrstuvw1 = s.abcdefghijklmnopqrstuvw2(x)",
    "head of a model": "hf_model_name_or_path_for_the_student_network",
}


@pytest.mark.parametrize("text", HARMLESS.values(), ids=HARMLESS)
def test_what_is_harmless_stays(text: str) -> None:
    assert scrub_text(text) == (text, 0)


def test_bytes_are_scrubbed_as_text_and_binaries_left_alone() -> None:
    secret = PLANTED["hugging face"].encode()
    assert scrub_bytes(b"caf\xe9 " + secret) == (b"caf\xe9 " + REMOVED.encode(), 1)
    binary = b"\x00\x01" + secret
    assert scrub_bytes(binary) == (binary, 0)
    wide = ("\ufeff" + PLANTED["shell"]).encode("utf-16-le")
    clean, count = scrub_bytes(wide)
    assert count == 1
    assert clean.decode("utf-16-le") == f"\ufeffexport WANDB_API_KEY={REMOVED}"
    odd = b"\xff\xfe\x00"
    assert scrub_bytes(odd) == (odd, 0)


def test_every_name_on_a_long_line_is_looked_at() -> None:
    pair = f'"api_key": "{RANDOM[:32]}", "n": 12, '
    text = "{" + pair * 3000 + "}"
    clean, count = scrub_text(text)
    assert count == 3000
    assert RANDOM[:32] not in clean


def test_letters_that_have_another_length_in_lower_case_move_nothing() -> None:
    text = f'{"İ" * 50}\nAPI_KEY = "{RANDOM[:32]}"'
    assert scrub_text(text) == (f'{"İ" * 50}\nAPI_KEY = "{REMOVED}"', 1)


@pytest.mark.parametrize("size", [500, 1000, 3000])
def test_a_long_text_is_filtered_in_pieces_that_cut_no_secret(size: int) -> None:
    text = "\n".join([*PLANTED.values(), ""]) * 3
    whole = io.BytesIO(text.encode())
    clean = b"".join(scrub_pieces(whole.read, whole.readline, size)).decode()
    assert clean.count("\n") == text.count("\n")
    left = [name for name, planted in PLANTED.items() if planted in clean]
    assert left == []
    assert KEY_LINES[:30] not in clean


def test_a_secret_is_found_once_with_its_kind_and_its_name() -> None:
    token = PLANTED["github classic"]
    text = f'x\nmodel.hub_token = "{token}"  # {token}\n'
    assert [(text[one.start : one.end], one.kind, one.name) for one in find(text)] == [
        (token, "GitHub token", "model.hub_token"), (token, "GitHub token", "")
    ]  # fmt: skip


def test_values_of_secret_options_are_masked() -> None:
    argv = ["train.py", "--api-key", "abc", "--hub_token=xyz", "--password", "-x", "db.passwd=no"]
    assert scrub_argv(argv) == [
        "train.py", "--api-key", REMOVED, f"--hub_token={REMOVED}", "--password", REMOVED,
        f"db.passwd={REMOVED}",
    ]  # fmt: skip


def test_what_is_a_secret_only_beside_another_word_goes_too() -> None:
    argv = ["sh", "-c", "wandb", "login", HEX, "aws_secret_access_key", "=", f"'{RANDOM[:40]}'"]
    clean = scrub_argv(argv)
    assert clean == [*argv[:4], REMOVED, *argv[5:7], f"'{REMOVED}'"]


def test_ordinary_arguments_stay() -> None:
    argv = [
        "train.py", "--lr", "0.1", "--tokenizer", "gpt2", "--max-token", "512", "--auth", "--n=3",
        "--num-tokens", "12", "key=loss", "--use-auth=true", "monkey=3",
    ]  # fmt: skip
    assert scrub_argv(argv) == argv


def test_an_argument_that_is_not_valid_text_becomes_valid() -> None:
    assert scrub_argv(["caf\udce9"]) == [r"caf\udce9"]


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("https://me:pw@example.org/a.git", "https://example.org/a.git"),
        ("https://token@example.org/a.git", "https://example.org/a.git"),
        ("git@example.org:team/a.git", "git@example.org:team/a.git"),
        ("ssh://git@example.org/a.git", "ssh://git@example.org/a.git"),
        ("ssh://git:pw@example.org/a.git", "ssh://example.org/a.git"),
        ("https://h/x?page=2&sig=abc&X-Amz-Signature=1&token=t#top", "https://h/x?page=2#top"),
        ("https://h/x#access_token=abc", "https://h/x"),
        ("/local/path", "/local/path"),
    ],
)
def test_urls_lose_what_signs_them(url: str, clean: str) -> None:
    assert scrub_url(url) == clean


def test_params_lose_values_under_secret_names_at_any_depth() -> None:
    params = {
        "lr": 0.1,
        "api_key": "x",
        "apiKey": "y",
        "opt": {"password": 12345, "layers": [1, 2], "hf_token": RANDOM[:30]},
        "credentials": {"user": "me", "parts": ("a", "b")},
        "use_auth_token": True,
        "pad_token": "<pad>",
        "db": "postgres://u:secret@h/d",
        "secret": "",
    }
    assert scrub_params(params) == {
        "lr": 0.1,
        "api_key": REMOVED,
        "apiKey": REMOVED,
        "opt": {"password": REMOVED, "layers": [1, 2], "hf_token": REMOVED},
        "credentials": {"user": REMOVED, "parts": (REMOVED, REMOVED)},
        "use_auth_token": True,
        "pad_token": "<pad>",
        "db": f"postgres://{REMOVED}@h/d",
        "secret": "",
    }


@pytest.mark.parametrize(
    "name",
    [
        ".env", ".env.local", "prod.env", ".envrc", "id_rsa", "id_ed25519", "server.pem", "a.P12",
        "tls.key", ".netrc", ".pypirc", ".npmrc", "credentials", "credentials.json", "kubeconfig",
        "secrets.yaml", "my-secrets.toml", "client_secret_12.json", "service-account.json",
        ".git-credentials", "config/.aws/config", "home/.ssh/known_hosts", "x/.docker/config.json",
    ],
)  # fmt: skip
def test_files_of_secrets_are_known_by_name(name: str) -> None:
    assert is_secret_file(name)


@pytest.mark.parametrize(
    "name",
    [
        "train.py", "environment.yaml", "tokenizer.json", "id_rsa.pub", ".env.example", "keys.py",
        "credentials.py", "secrets.py", "config.json", "env", "key", "monkey.txt", "data.npz",
    ],
)  # fmt: skip
def test_other_files_are_not(name: str) -> None:
    assert not is_secret_file(name)


def test_what_the_user_allows_stays_under_a_secret_name_too() -> None:
    redaction.use(Redaction(allow=("sk-test-.*",)))
    try:
        assert scrub_params({"api_key": "sk-test-1", "token": {"a": "sk-test-2"}}) == {
            "api_key": "sk-test-1", "token": {"a": "sk-test-2"}
        }  # fmt: skip
        argv = ["x", "--token", "sk-test-1", "--api-key=sk-test-2", "--secret", "sk-live"]
        assert scrub_argv(argv) == [*argv[:5], REMOVED]
    finally:
        redaction.use(Redaction())
