"""The forms by which a secret is known wherever it stands: a token's prefix, length and alphabet.

Each form comes with the literal texts of which one stands in every match: looking for those first,
and only in words that are long and no plain words, makes the filter faster by far.
"""

import re
from dataclasses import dataclass
from typing import Final

_FRONT: Final = r"(?<![A-Za-z0-9])"


@dataclass(frozen=True, slots=True)
class Form:
    """One kind of token: what has to be in a text, and the pattern; its last group is the secret.

    Without a group, the whole match is.
    """

    kind: str
    hints: tuple[str, ...]
    pattern: re.Pattern[str]


def _forms(table: str) -> tuple[Form, ...]:
    rows = (line.split(None, 2) for line in table.strip().splitlines())
    return tuple(
        Form(kind.replace("_", " "), tuple(hints.split(",")), re.compile(f"{_FRONT}(?:{form})"))
        for kind, hints, form in rows
    )


# kind, hints, pattern; a token is at least as long as its issuer makes it, or a little shorter.
_PREFIXED: Final = r"""
AWS_access_key AKIA,ASIA,ABIA,ACCA,A3T (?:AKIA|ASIA|ABIA|ACCA|A3T[A-Z0-9])[A-Z2-7]{16}
AWS_Bedrock_key ABSK ABSK[A-Za-z0-9+/]{100,280}={0,2}
AWS_Bedrock_key bedrock-api-key- bedrock-api-key-[A-Za-z0-9+/=_\-]{20,}
Alibaba_access_key LTAI LTAI[A-Za-z0-9]{16,24}(?![A-Za-z0-9])
Google_API_key AIza AIza[0-9A-Za-z_\-]{35}(?![0-9A-Za-z_\-])
Google_OAuth_token ya29. ya29\.[0-9A-Za-z_\-]{20,}
Google_OAuth_secret GOCSPX- GOCSPX-[A-Za-z0-9_\-]{24,}
Azure_key AccountKey=,AccessKey= (?:Account|SharedAccess)Key=[A-Za-z0-9+/]{40,88}={0,2}
Azure_client_secret Q~ [a-zA-Z0-9_~.]{3}\dQ~[a-zA-Z0-9_~.\-]{31,34}
DigitalOcean_token do doo_v1_[a-f0-9]{64}|do[pr]_v1_[a-f0-9]{64}
GitHub_token ghp_,gho_,ghu_,ghs_,ghr_ gh[pousr]_[A-Za-z0-9]{36,255}
GitHub_token github_pat_ github_pat_[A-Za-z0-9_]{22,255}
GitLab_token gl gl(?:pat|dt|rt|ptt|cbt|soat|oas|ft|imt|agent|ffct)-[A-Za-z0-9_\-.]{20,300}
GitLab_token GR1348941 GR1348941[\w\-]{20,}
Hugging_Face_token hf_,api_org_ (?:hf|api_org)_[A-Za-z0-9]{30,64}(?![A-Za-z0-9_])
OpenAI_or_Anthropic_key sk- sk-(?:proj|svcacct|admin|None|or-v1|ant-[a-z0-9]{2,10})-[A-Za-z0-9_\-]{20,255}
OpenAI_key sk- sk-[A-Za-z0-9]{32,64}(?![A-Za-z0-9_\-])
AI_service_key gsk_,xai-,pplx-,r8_,nvapi- (?:gsk_|xai-|pplx-|r8_|nvapi-)[A-Za-z0-9_\-]{36,100}(?![A-Za-z0-9_])
Mailgun_key key- (?<![\-_])key-[a-f0-9]{32}(?![A-Za-z0-9])
AI_service_key tgp_v1_,jina_,lsv2_ (?:tgp_v1_|jina_|lsv2_(?:pt|sk)_)[A-Za-z0-9_\-]{32,100}
Weights_and_Biases_key wandb_v1_ wandb_v1_[A-Za-z0-9_]{40,}
Comet_or_Neptune_token eyJhcGlf eyJhcGlf[A-Za-z0-9+/_\-]{40,}={0,2}
Databricks_token dapi,dkea,dose dapi[a-f0-9]{32}(?![a-f0-9])(?:-\d)?|(?:dkea|dose)[a-f0-9]{32}(?![a-f0-9])
Slack_token xox xox[abeoprs](?:[\-.][A-Za-z0-9]{1,}){2,8}
Slack_token xapp- xapp-\d-[A-Za-z0-9]+-\d+-[A-Za-z0-9]{16,}
Slack_webhook hooks.slack.com hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9_/+\-]{20,}
Discord_webhook discord discord(?:app)?\.com/api/webhooks/(\d{16,20}/[A-Za-z0-9_\-]{40,})
Discord_token . [MNO](?=[A-Za-z_\-]*\d)[A-Za-z0-9_\-]{23,25}\.[A-Za-z0-9_\-]{6}\.(?=[A-Za-z_\-]*\d)[A-Za-z0-9_\-]{27,38}(?![A-Za-z0-9_\-])
Teams_webhook webhook.office.com webhook\.office\.com/webhookb2/[A-Za-z0-9@/\-]{40,}
Telegram_token :A \d{8,10}:AA[A-Za-z0-9_\-]{32,34}(?![A-Za-z0-9_\-])
Stripe_key sk_live_,sk_test_,rk_live_,rk_test_,sk_prod_,rk_prod_ [sr]k_(?:live|test|prod)_[0-9A-Za-z]{10,255}
Stripe_webhook_secret whsec_ whsec_[A-Za-z0-9+/=]{24,}
Twilio_key SK,AC (?:SK|AC)[0-9a-fA-F]{32}(?![A-Za-z0-9])
SendGrid_key SG. SG\.[A-Za-z0-9=_\-]{16,24}\.[A-Za-z0-9=_\-]{40,45}
Brevo_key xkeysib- xkeysib-[a-f0-9]{64}-[A-Za-z0-9]{16}
npm_token npm_ npm_[A-Za-z0-9]{36}(?![A-Za-z0-9])
PyPI_token pypi-Ag pypi-Ag[A-Za-z0-9_\-]{30,}
RubyGems_token rubygems_ rubygems_[a-f0-9]{48}
Docker_token dckr_ dckr_(?:pat|oat)_[A-Za-z0-9_\-]{20,}
Artifactory_key AKCp,cmVmd AKCp[A-Za-z0-9]{69,72}|cmVmd[A-Za-z0-9]{59}
Clojars_token CLOJARS_ CLOJARS_[A-Za-z0-9]{60}
Vault_token hvs.,hvb.,hvr. hv[sbr]\.[A-Za-z0-9_\-]{24,300}
Terraform_token .atlasv1. [A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=\-]{60,70}
Pulumi_token pul- pul-[a-f0-9]{40}(?![A-Za-z0-9])
Doppler_token dp. dp\.(?:pt|st|ct|sa|scim|audit)\.(?:[a-z0-9_\-]{2,35}\.)?[A-Za-z0-9]{40,44}
age_key AGE-SECRET-KEY-1 AGE-SECRET-KEY-1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}
1Password_key A3- A3-[A-Z0-9]{6}-(?:[A-Z0-9]{11}|[A-Z0-9]{6}-[A-Z0-9]{5})(?:-[A-Z0-9]{5}){3}
1Password_token ops_eyJ ops_eyJ[A-Za-z0-9+/_\-]{100,}={0,3}
Cloudflare_key v1.0- v1\.0-[a-f0-9]{24}-[a-f0-9]{146}
Fly_token fo1_,fm1,fm2_ fo1_[\w\-]{43}|fm(?:1[ar]|2)_[A-Za-z0-9+/]{100,}={0,3}
Heroku_key HRKU- HRKU-(?:AA[0-9A-Za-z_\-]{58}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})
Netlify_token nfp_ nfp_[A-Za-z0-9]{36,40}
Supabase_token sbp_,sb_secret_ (?:sbp_[a-f0-9]{40}|sb_secret_[A-Za-z0-9_\-]{30,})
PlanetScale_token pscale_ pscale_(?:tkn|oauth|pw)_[\w=.\-]{32,64}
Grafana_token glc_,glsa_ glc_[A-Za-z0-9+/]{32,400}={0,3}|glsa_[A-Za-z0-9]{32}_[A-Fa-f0-9]{8}
Grafana_key eyJrIjoi eyJrIjoi[A-Za-z0-9]{60,400}={0,3}
Sentry_token sntrys_,sntryu_ sntrys_[A-Za-z0-9+/=_]{40,}|sntryu_[a-f0-9]{64}
New_Relic_key NR (?:NRAK|NRAL|NRRA)-[A-Za-z0-9]{27,42}|NRI[QI]-[A-Za-z0-9_\-]{32}
Dynatrace_token dt0c01. dt0c01\.[A-Za-z0-9]{24}\.[A-Za-z0-9]{64}
Linear_key lin_api_,lin_oauth_ lin_(?:api|oauth)_[A-Za-z0-9]{40,64}
Notion_token ntn_,secret_ ntn_[0-9]{11}[A-Za-z0-9]{35}|secret_[A-Za-z0-9]{43}(?![A-Za-z0-9])
Airtable_token pat pat[A-Za-z0-9]{14}\.[a-f0-9]{64}
Atlassian_token ATATT3,ATCTT3,ATBB ATATT3[A-Za-z0-9_\-=]{60,250}|ATCTT3[A-Za-z0-9_\-=]{60,250}|ATBB[A-Za-z0-9]{32}(?![A-Za-z0-9])
Postman_key PMAK- PMAK-[a-f0-9]{24}-[a-f0-9]{34}
Prefect_key pnu_,pnb_ pn[ub]_[A-Za-z0-9]{36}
Shopify_token shpat_,shpca_,shppa_,shpss_ shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}
Square_token EAAA,sq0 EAAA[\w\-]{60}(?![\w\-])|sq0(?:atp|csp|idp)-[\w\-]{22,60}
Shippo_token shippo_ shippo_(?:live|test)_[a-fA-F0-9]{40}
Facebook_token EAA EAA[A-Z](?=[A-Za-z0-9]*\d)[A-Za-z0-9]{80,}
Facebook_token |,% \d{15,16}[|%][0-9A-Za-z\-_]{27,40}(?![0-9A-Za-z\-_])
Duffel_token duffel_ duffel_(?:test|live)_[A-Za-z0-9_\-=]{43}
EasyPost_key EZAK,EZTK EZ[AT]K[A-Za-z0-9]{54}
Flutterwave_key FLW FLW(?:SECK|PUBK)(?:_TEST)?-[A-Za-z0-9]{12,40}(?:-X)?
Frame.io_token fio-u- fio-u-[A-Za-z0-9_=\-]{64}
Harness_key pat.,sat. (?:pat|sat)\.[A-Za-z0-9_\-]{22}\.[A-Za-z0-9]{24}\.[A-Za-z0-9]{20}
Infracost_key ico- ico-[A-Za-z0-9]{32}(?![A-Za-z0-9])
42_secret s-s4t2 s-s4t2(?:ud|af)-[a-f0-9]{64}
MaxMind_key _mmk [A-Za-z0-9]{6}_[A-Za-z0-9]{29}_mmk
Octopus_key API- API-[A-Z0-9]{25,32}(?![A-Za-z0-9])
OpenShift_token sha256~ sha256~[\w\-]{43}
ReadMe_key rdme_ rdme_[a-z0-9]{70}
Scalingo_token tk-us- tk-us-[\w\-]{48}
SettleMint_token sm_ sm_(?:aat|pat|sat)_[A-Za-z0-9]{16}(?![A-Za-z0-9])
Sourcegraph_token sgp_ sgp_(?:(?:[a-fA-F0-9]{16}|local)_)?[a-fA-F0-9]{40}
ClickHouse_key 4b1d 4b1d[A-Za-z0-9]{38}(?![A-Za-z0-9])
Adobe_secret p8e- p8e-[A-Za-z0-9]{32}
Authress_key .acc (?:sc|ext|scauth|authress)_[a-z0-9]{5,30}\.[a-z0-9]{4,6}\.acc[_\-][a-z0-9\-]{10,32}\.[A-Za-z0-9+/_=\-]{30,120}
JSON_web_token eyJ eyJ[A-Za-z0-9_\-]{10,}\.eyJ[A-Za-z0-9_\-]{10,}(?:\.[A-Za-z0-9_\-]{10,})?
encrypted_JSON_web_token eyJ eyJ[A-Za-z0-9_\-]{16,}(?:\.[A-Za-z0-9_\-]{0,1024}){1}\.[A-Za-z0-9_\-]{12,24}\.[A-Za-z0-9_\-]{8,4096}\.[A-Za-z0-9_\-]{16,24}
JSON_web_token ZXlK ZXlK[A-Za-z0-9+/_\-]{80,}={0,2}
session_cookie _gitlab_session= _gitlab_session=[0-9a-z]{32}
"""  # noqa: E501
TOKENS: Final = _forms(_PREFIXED)
SHORTEST: Final = 20  # no token is shorter, and none has white space in it
_HINTS: Final = [(hint, place) for place, form in enumerate(TOKENS) for hint in form.hints]
_LIKE_A_TOKEN: Final = re.compile(r"\d|[A-Za-z]{14}|gl[a-z]{2,5}-")

# Commands that are given a secret behind a word that tells so, or behind a user's name.
COMMAND_HINTS: Final = ("login ", "curl ", "sshpass ")
COMMANDS: Final = (
    re.compile(r"\bwandb login (?:--\S+ +)*([a-f0-9]{40})(?![A-Za-z0-9])"),
    re.compile(r"\blogin [^\n]{0,200}?-p[ =]?[\"']?([^\s\"'$<>{}\-][^\s\"'$<>{}]{5,255})"),
    re.compile(
        r"\bcurl [^\n]{0,400}?(?:-u|--user)[ =]?[\"']?[^\s:\"'$<>{}]{1,64}:([^\s\"'$<>{}]{3,255})"
    ),
    re.compile(r"\bsshpass -p[ ]?[\"']?([^\s\"'$<>{}]{4,255})"),
)

# What a Kubernetes secret holds, encoded: everything below `data:`.
SECRET_MANIFEST: Final = re.compile(r"^kind:[ \t]*[\"']?Secret\b", re.MULTILINE)
MANIFEST_DATA: Final = re.compile(
    r"^(?:stringData|data):[ \t]*\r?\n(?:[ \t]+\S[^\n]*\n?)+", re.MULTILINE
)
MANIFEST_VALUE: Final = re.compile(r"^[ \t]+[\w.\-]+:[ \t]+[\"']?([^\s\"']{4,})", re.MULTILINE)


def tokens_in(text: str) -> list[Form]:
    """Return the forms of which there is a token in a text, in the order of the table."""
    words = {word for word in text.split() if len(word) >= SHORTEST}
    # Words that may be one, once each: of most texts that is little.
    dense = "\n".join(filter(_LIKE_A_TOKEN.search, words))
    hinted = {place for hint, place in _HINTS if hint in dense}
    return [TOKENS[place] for place in sorted(hinted) if TOKENS[place].pattern.search(dense)]


_BEGIN: Final = r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
KEY_MARK: Final = "PRIVATE KEY"
PRIVATE_KEY: Final = re.compile(
    rf"{_BEGIN}.{{0,65536}}?-----END [A-Z0-9 ]{{0,40}}PRIVATE KEY(?: BLOCK)?-----", re.DOTALL
)
CUT_PRIVATE_KEY: Final = re.compile(rf"{_BEGIN}(?:(?:\\[nr]|[\s\"',])+[A-Za-z0-9+/=]{{20,}})+")
LONG_RUN: Final = re.compile(r"[A-Za-z0-9+/=]{40}")

URL_PASSWORD: Final = re.compile(r"://([^\s/@:'\"<>{}$]{0,256}:[^\s/@'\"<>{}$]{1,512})@")
URL_USER: Final = re.compile(r"://([^\s/@:'\"<>{}$]{16,512})@")
URL_SIGNATURE: Final = re.compile(
    r"[?&](?:[a-z\-]*(?:signature|credential|security-token|access_?token|api_?key)|sig|token|key)"
    r"=([^&\s\"'<>#)\\{}]{8,})",
    re.IGNORECASE,
)
