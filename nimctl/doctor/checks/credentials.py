"""Keys, logins, and what the registry says to them."""

from nimctl.core import keys
from nimctl.core.errors import CATALOGUE
from nimctl.core.facts import CredentialFacts, HostFacts
from nimctl.doctor.checks.image_needed import image_here
from nimctl.doctor.checks.scope import look_failed, no_docker_wanted
from nimctl.doctor.model import Check, Finding, Needs, failed, passed, skipped, unknown, warned

NVIDIA_REGISTRY = "nvcr.io"
_GET_KEY = {
    keys.NGC: "Make a personal key at https://org.ngc.nvidia.com/setup/api-keys (service NGC Catalog), then "
    "`export NGC_API_KEY=...`.",
    keys.HUGGING_FACE: "Make a token at https://huggingface.co/settings/tokens, then `export HF_TOKEN=...`.",
}
# The two pages of NVIDIA that disagree about keys of the older kind.
_LEGACY_UNSUPPORTED = "https://docs.nvidia.com/nim/large-language-models/latest/turbo/get-started-kimi-k2-5-turbo.html"
_LEGACY_SUPPORTED = "https://docs.nvidia.com/nim/large-language-models/2.1.5/deployment/model-download.html"
_STORES = "https://docs.docker.com/reference/cli/docker/login/#credential-stores"


def judge_key(facts: HostFacts, needs: Needs) -> list[Finding]:
    """The key that image or weights need is there; its value is never looked at. NVIDIA's images download their weights
    with it when they start (https://docs.nvidia.com/nim/large-language-models/latest/reference/environment-variables.html).
    """
    name, recipe = needs.key_name, needs.recipe
    if name is None:
        return [skipped("key", "API key", "this model needs none" if recipe else "no model was named")]
    present = facts.credentials.keys.get(name)
    if present is None:
        return [unknown("key", f"API key {name}", cause="it was not looked for")]
    if present:
        return [passed("key", f"{name} is set")]
    fix = _GET_KEY.get(name, f"Set {name} in the environment.")
    fix += f" {name}_FILE may name a readable file that holds it."
    if name == keys.NGC and recipe is not None and recipe.runs == "nim":
        cause = f"the container of {recipe.name} downloads its weights with this key, when it starts"
        title = f"no key for the image and its weights: {name} is not set"
        if NVIDIA_REGISTRY in facts.credentials.logins:
            title = f"the image can be pulled, but the container has no key: {name} is not set"
            cause = f"Docker's login for {NVIDIA_REGISTRY} stays on the host; {cause}"
        return [failed("key", "key-missing", title, cause=cause, fix=fix)]
    cause = "public weights can be had without it, at a lower rate; gated ones cannot"
    return [warned("key", "key-absent", f"{name} is not set", cause=cause, fix=fix, severity="info")]


def judge_key_kind(facts: HostFacts, needs: Needs) -> list[Finding]:
    """The key is of a kind that is accepted everywhere. Of NVIDIA's two pages, one says that legacy keys are not
    supported (https://docs.nvidia.com/nim/large-language-models/latest/turbo/get-started-kimi-k2-5-turbo.html) and one
    that they are (https://docs.nvidia.com/nim/large-language-models/2.1.5/deployment/model-download.html).
    """
    name = needs.key_name
    if name is None or not facts.credentials.keys.get(name):
        return [skipped("key-kind", "kind of the key", "no key is needed" if name is None else f"{name} is not there")]
    kind = facts.credentials.kinds.get(name)
    right = {keys.NGC: "personal", keys.HUGGING_FACE: "hugging-face"}.get(name)
    if right is None or kind in (None, "other"):
        return [unknown("key-kind", f"{name} has no known form", cause="only the registry can say whether it is good")]
    if kind == right:
        return [passed("key-kind", f"{name} is a {'personal key' if kind == 'personal' else 'Hugging Face token'}")]
    if kind == "legacy" and name == keys.NGC:
        return [
            warned(
                "key-kind",
                "key-legacy",
                f"{name} looks like a legacy key",
                cause="NVIDIA's documents disagree on whether NIM takes those",
                fix=_GET_KEY[keys.NGC],
                evidence=(f"not supported: {_LEGACY_UNSUPPORTED}", f"supported: {_LEGACY_SUPPORTED}"),
                severity="info",
            )
        ]
    owner = "Hugging Face" if kind == "hugging-face" else "NVIDIA"
    return [
        warned(
            "key-kind",
            "key-mistaken",
            f"{name} holds a key of {owner}",
            cause="it looks like the key of another service, which will be refused",
            fix=_GET_KEY[name],
        )
    ]


def judge_key_file(facts: HostFacts, needs: Needs) -> list[Finding]:
    """A key file is closed to other users of the machine: who can read it can pull, download and publish in its owner's
    name (https://cheatsheetseries.owasp.org/cheatsheets/Secrets_Management_Cheat_Sheet.html).
    """
    files = facts.credentials.key_files
    if not files:
        return [skipped("key-file", "key files", "no variable names one")]
    opened = [
        warned(
            "key-file",
            "key-file-open",
            f"any user can read the file of {variable} (mode {mode})",
            cause="its mode lets users outside of its group read the key",
            fix=f'`chmod 600 "${variable}"`, and replace the key if others use this machine.',
        )
        for variable, mode in files.items()
        if _others_read(mode)
    ]
    return opened or [passed("key-file", f"the file of {', '.join(files)} is closed to other users")]


def judge_image_access(facts: HostFacts, needs: Needs) -> list[Finding]:
    """The registry gives the image to this key: it is asked for the manifest, and nothing is pulled. A refusal means
    terms that nobody accepted, a key of another organisation, a missing entitlement or an image for other processors
    (https://docs.nvidia.com/ngc/latest/ngc-catalog-user-guide.html#accepting-terms-before-downloading).
    """
    access = facts.credentials.image
    if reason := no_docker_wanted(needs) or ("the image is on this host" if image_here(facts) else ""):
        return [skipped("image-access", "access to the image", reason)]
    if access is None:
        if problem := look_failed(facts, "image access"):
            return [unknown("image-access", "access to the image: not told", cause=problem)]
        return [skipped("image-access", "access to the image", "no registry has to be asked")]
    if access.id is None:
        shown = "" if access.credentials == "none" else f", with {access.credentials}"
        return [passed("image-access", f"{access.reference} may be pulled{shown}", evidence=_some(access.digest))]
    if reason := _said_elsewhere(facts, needs, access.id):
        return [skipped("image-access", "access to the image", reason)]
    return [
        failed(
            "image-access",
            access.id if access.id in CATALOGUE else "image-pull-failed",
            access.message or f"{access.reference} cannot be pulled",
            cause=access.cause or "the registry refused it",
            fix=access.fix or "Log in again: `nimctl login`.",
            evidence=access.evidence,
        )
    ]


def _said_elsewhere(facts: HostFacts, needs: Needs, refusal: str) -> str:
    """The check that fails for the same cause; empty where none does."""
    if refusal == "key-missing" and any(finding.verdict == "fail" for finding in judge_key(facts, needs)):
        return "the check `key` says what is missing"
    unreached = any(host.purpose == "image" and host.state != "ok" for host in facts.network.reached or ())
    if refusal == "image-pull-failed" and unreached:
        return "the check `hosts` says why the registry was not reached"
    return ""


def judge_docker_login(facts: HostFacts, needs: Needs) -> list[Finding]:
    """Docker keeps its logins where other users cannot read them, and its credential helper is there: without a helper
    a login lies in its configuration file in plain text, only base64-encoded
    (https://docs.docker.com/reference/cli/docker/login/#credential-stores).
    """
    if reason := no_docker_wanted(needs):
        return [skipped("docker-login", "Docker's logins", reason)]
    found = facts.credentials
    if found.config_problem:
        title, cause = "Docker's config.json cannot be used", f"{found.config_problem}, so that its logins are lost"
        fix = "Repair it, or move it away and log in again: `nimctl login`."
        return [warned("docker-login", "docker-config-broken", title, cause=cause, fix=fix)]
    findings = [*_helper_missing(found), *_plaintext(found)]
    if findings:
        return findings
    if found.store:
        return [passed("docker-login", f"Docker keeps its logins in docker-credential-{found.store}")]
    if found.logins:
        return [passed("docker-login", f"Docker's logins for {', '.join(found.logins)} are in credential helpers")]
    return [skipped("docker-login", "Docker's logins", "there are none")]


def _helper_missing(found: CredentialFacts) -> list[Finding]:
    if not found.helper_problem:
        return []
    cause = f"{found.helper_problem}, and Docker's config.json names it in credsStore or credHelpers"
    fix = "Install it, or remove it from ~/.docker/config.json and log in again: `nimctl login`."
    title = "Docker's credential helper is missing"
    return [warned("docker-login", "credential-helper-missing", title, cause=cause, fix=fix)]


def _plaintext(found: CredentialFacts) -> list[Finding]:
    if not found.plaintext:
        return []
    names = ", ".join(found.plaintext)
    if found.config_mode and _others_read(found.config_mode):
        cause = f"Docker's config.json has mode {found.config_mode} and holds the login for {names} unencrypted"
        fix = "`chmod 600 ~/.docker/config.json`, and replace the key if others use this machine."
        return [warned("docker-login", "login-readable", "any user can read Docker's logins", cause=cause, fix=fix)]
    title = f"the login for {names} is stored unencrypted"
    cause = "no credential helper is configured, so it lies in Docker's config.json in base64"
    fix = f"Set credsStore to a credential helper, then log in again: {_STORES}"
    return [warned("docker-login", "login-plaintext", title, cause=cause, fix=fix, severity="info")]


def _others_read(mode: str) -> bool:
    try:
        return bool(int(mode, 8) & 0o004)
    except ValueError:
        return False


def _some(text: str | None) -> tuple[str, ...]:
    return (text,) if text else ()


CHECKS = (
    Check("key", "credentials", "the API key is present", judge_key, ("key-absent", "key-missing")),
    Check(
        "key-kind",
        "credentials",
        "the API key is of a kind that is accepted",
        judge_key_kind,
        ("key-legacy", "key-mistaken"),
    ),
    Check("key-file", "credentials", "key files are closed to other users", judge_key_file, ("key-file-open",)),
    Check(
        "image-access",
        "credentials",
        "the registry gives the image to this key",
        judge_image_access,
        (
            "clock-wrong",
            "image-incompatible",
            "image-not-found",
            "image-pull-failed",
            "image-rate-limited",
            "key-missing",
            "key-refused",
            "organisation-wrong",
            "payment-required",
            "platform-missing",
            "terms-not-accepted",
        ),
    ),
    Check(
        "docker-login",
        "credentials",
        "Docker's logins are well kept",
        judge_docker_login,
        ("credential-helper-missing", "docker-config-broken", "login-plaintext", "login-readable"),
    ),
)
