"""Secrets of known formats, and harmless strings that look like them; made, never real.

What issuers publish of their tokens (prefix, length, alphabet) is written down here apart from the
filter that is tested with it.
"""

import base64
import random
import re
import string
from dataclasses import dataclass

HOLE = re.compile(r"\{([A-Za-z])(\d*)\}")
ALPHABETS = {
    "A": string.ascii_letters + string.digits,
    "L": string.ascii_letters,
    "U": string.ascii_uppercase + string.digits,
    "B": string.ascii_uppercase + "234567",
    "a": string.ascii_lowercase + string.digits,
    "h": "0123456789abcdef",
    "d": string.digits,
    "w": string.ascii_letters + string.digits + "_-",
    "b": string.ascii_letters + string.digits + "+/",
    "q": "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L",
}

# Each with what stands around it where it could be told by nothing else; {A36} is 36 letters and
# digits, and what is between << and >> is the secret. Without those, all of it is.
FORMATS = r"""
AKIA{B16}
ASIA{B16}
ABSK{b110}==
LTAI{A20}
AIza{w35}
ya29.{w60}
GOCSPX-{w28}
AccountKey={b86}==
{A3}8Q~{A32}
dop_v1_{h64}
doo_v1_{h64}
ghp_{A36}
gho_{A36}
ghs_{A36}
ghr_{A36}
github_pat_{A22}_{A59}
glpat-{w20}
gldt-{w20}
glrt-{w20}
glptt-{h40}
glsoat-{w20}
hf_{A34}
hf_{L34}
api_org_{L34}
sk-{A48}
sk-proj-{w74}T3BlbkFJ{w74}
sk-svcacct-{w58}T3BlbkFJ{w58}
sk-ant-api03-{w93}AA
sk-or-v1-{h64}
gsk_{A52}
xai-{A80}
pplx-{A48}
r8_{A37}
nvapi-{w64}
wandb_v1_{A77}
wandb login <<{h40}>>
WANDB_API_KEY=<<{h40}>>
"neptune_api_token": "<<eyJhcGlfYWRkcmVzcyI6{b100}>>"
dapi{h32}
dapi{h32}-2
xoxb-{d12}-{d13}-{A24}
xoxp-{d12}-{d12}-{d12}-{h32}
xapp-1-{U11}-{d13}-{h64}
https://hooks.slack.com/services/T{U9}/B{U9}/<<{A24}>>
https://discord.com/api/webhooks/{d18}/<<{w68}>>
{d9}:AA{w33}
sk_live_{A24}
rk_test_{A24}
whsec_{A32}
SK{h32}
SG.{w22}.{w43}
xkeysib-{h64}-{A16}
key-{h32}
npm_{A36}
pypi-AgEIcHlwaS5vcmc{w60}
rubygems_{h48}
dckr_pat_{w27}
AKCp{A69}
CLOJARS_{a60}
hvs.{w95}
hvb.{w140}
{A14}.atlasv1.{w67}
pul-{h40}
dp.pt.{A43}
AGE-SECRET-KEY-1{q58}
A3-{U6}-{U11}-{U5}-{U5}-{U5}
v1.0-{h24}-{h146}
fo1_{w43}
HRKU-AA{w58}
nfp_{A40}
sbp_{h40}
pscale_tkn_{w43}
pscale_pw_{w43}
glc_{b60}
glsa_{A32}_{h8}
sntryu_{h64}
NRAK-{U27}
dt0c01.{U24}.{U64}
lin_api_{A40}
ntn_{d11}{A35}
patA1{A12}.{h64}
ATATT3{w186}
PMAK-{h24}-{h34}
pnu_{A36}
shpat_{h32}
sq0atp-{w22}
shippo_live_{h40}
EAAC9{A120}
duffel_live_{w43}
EZAK{a54}
eyJ{A33}.eyJ{A60}.{w43}
eyJrIjoi{A80}
<<-----BEGIN RSA PRIVATE KEY-----\n{b64}\n{b64}\n{b64}\n-----END RSA PRIVATE KEY----->>
<<-----BEGIN OPENSSH PRIVATE KEY-----\n{b70}\n{b70}\n-----END OPENSSH PRIVATE KEY----->>
postgresql://train:<<{A16}>>@db.example.org:5432/runs
https://<<{h40}>>@git.example.org/team/model.git
https://data.example.org/shard-1.tar?X-Amz-Expires=60&X-Amz-Signature=<<{h64}>>
Authorization: Bearer <<{w43}>>
aws_secret_access_key = "<<{b40}>>"
api_key: <<{A32}>>
client_secret="<<{w40}>>"
password = 'P8<<{A12}>>'
"""


# The same of what is none: {W} is a word, {N4} a number, {F} a fraction, {E60} bytes in base64.
HARMLESS = """
commit {h40}
blake3:{h64}
sha256 = "{h64}"
etag: {h32}
run_id={h8}-{h4}-4{h3}-a{h3}-{h12}
"image/png": "{E600}"
data:image/png;base64,{E90}
integrity sha512-{E64}
registry.example.org/{W}@sha256:{h64}
s3://{W}-{W}/run-{N3}/{h16}.npz
https://example.org/{W}/{h12}?page={N2}
{W}=={N1}.{N2}.{N1}
{W}_token = tokenizer.{W}_{N2}
tokenizer = "{W}-{W}-{N1}b-instruct"
self.{W}_key = {W}.{W}_key_{N2}
sort_key = "{W}/{W}_at_{N2}"
password = os.environ["{W}_PASSWORD"]
api_key = get_{W}_key({W})
--{W}-{W} {F} --max-token {N4}
step {N6} loss {F} lr {N1}e-{N1}
{{"loss": {F}, "step": {N6}, "id": "{h8}"}}
model.layers.{N2}.self_attn.{W}_proj.weight
def {W}_{W}(key: str, token: int = {N1}) -> None:
{N10}.{N6} {W} {W}
/data/{W}/{W}-{N8}/part-{h5}.arrow
<{W} class='{W}-{h6}'>{W}</{W}>
ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{E32} me@example.org
torch.Size([{N3}, {N3}]) cuda:{N1}
2026-0{N1}-1{N1}T10:00:00Z {W} {h12}
the {W} of the {W} is a {W} {W} with {W}
{W}_id: {d12}
index {h7}..{h7} 100644
"{W}": ["{h40}", "{h40}"],
assert {W}({W}_key={N3}) == "{h10}"
"""
WORDS = """loss accuracy train valid batch epoch encoder decoder token key auth secret bert llama
vision dataset loader gradient norm scheduler warmup optimizer adam momentum weight decay dropout
attention head layer embed position mask label sample score metric config param default session
account access private public master client server cache buffer stream worker""".split()  # noqa: SIM905


@dataclass(frozen=True, slots=True)
class Planted:
    """A secret: what may be left of it nowhere, and the text in which it stands."""

    secret: str
    text: str


def planted(count: int = 500, seed: int = 0) -> list[Planted]:
    """Return secrets of all formats in turn; equal seeds give equal ones."""
    draw = random.Random(seed)
    formats = FORMATS.strip().splitlines()
    return [_planted(_filled(formats[number % len(formats)], draw)) for number in range(count)]


def harmless(count: int = 10_000, seed: int = 0) -> list[str]:
    """Return strings as they stand in code, logs and configs, none of them a secret."""
    draw = random.Random(seed)
    forms = HARMLESS.strip().splitlines()
    return [_filled(forms[number % len(forms)], draw) for number in range(count)]


def _planted(text: str) -> Planted:
    text = text.replace("\\n", "\n")
    front, mark, rest = text.partition("<<")
    if not mark:
        return Planted(text, text)
    secret, _, back = rest.partition(">>")
    return Planted(secret, front + secret + back)


def _filled(form: str, draw: random.Random) -> str:
    return HOLE.sub(lambda hole: _made(hole[1], int(hole[2] or 1), draw), form)


def _made(code: str, size: int, draw: random.Random) -> str:
    if code == "W":
        return draw.choice(WORDS)
    if code == "N":
        return str(draw.randrange(10**size))
    if code == "F":
        return repr(draw.random())
    if code == "E":
        return base64.b64encode(draw.randbytes(size)).decode()
    return "".join(draw.choice(ALPHABETS[code]) for _ in range(size))
