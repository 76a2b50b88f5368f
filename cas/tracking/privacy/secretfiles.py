"""Files that hold secrets, as their names tell: never captured, whatever they contain."""

import re
from typing import Final

_SECRET_FOLDERS: Final = frozenset({".ssh", ".aws", ".gnupg", ".kube", ".azure", ".gcloud"})
_SECRET_FILE: Final = re.compile(
    r"\.env(?:rc|\..+|-.+|_.+)?|.+\.env|id_(?:rsa|dsa|ecdsa|ed25519)(?:[._\-].*)?"
    r"|.+\.(?:pem|p12|pfx|key|keystore|jks|kdbx|ppk|p8|tfvars|tfstate|agekey|ovpn|pgpass)"
    r"|[._]netrc|\.pypirc|\.npmrc|\.yarnrc|\.git-credentials|\.pgpass|\.my\.cnf|\.htpasswd"
    r"|\.dockercfg|\.dockerconfigjson|\.vault-token|\.boto|\.s3cfg|\.renviron|rclone\.conf"
    r"|kubeconfig|.+\.kubeconfig"
    r"|(?:.+[._\-])?(?:credentials?|secrets?)(?:\.(?:json|ya?ml|toml|ini|cfg|conf|csv|txt|xml))?"
    r"|client_secrets?.*\.json|(?:.+[_\-])?service[_\-]account.*\.json|kaggle\.json"
    r"|application_default_credentials\.json|passwords?(?:\.(?:txt|csv|json|ya?ml|kdb))?"
    r"|hf_token|wandb_key(?:\.txt)?|api[_\-]?keys?(?:\.(?:txt|json|ya?ml|toml|ini))?"
)


def is_secret_file(name: str) -> bool:
    """Say whether a file's name, or path, tells that it holds secrets."""
    *folders, base = name.replace("\\", "/").lower().split("/")
    if base.endswith((".pub", ".example", ".sample", ".template", ".dist")):
        return False
    return (
        _SECRET_FILE.fullmatch(base) is not None
        or not _SECRET_FOLDERS.isdisjoint(folders)
        or (base == "config.json" and folders[-1:] == [".docker"])
    )
