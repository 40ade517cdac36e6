"""The whole of what is reachable on the public port, as data: nginx's locations and `/openapi.json` are made from it.

The engine has many routes more (profiling, adapters, weight transfer, scaling, cancelling other people's requests):
https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/entrypoints/launchers/api_server/routers.py
What is not in this table answers 404, whatever a newer engine brings.
"""

from dataclasses import dataclass
from typing import Literal

# Who answers: the engine behind its socket, a JSON file of ours, a page of ours, or nginx itself.
By = Literal["engine", "file", "page", "health", "metrics"]

# The characters of an id in a path; what the engine hands out are letters, digits, `_` and `-`.
ID = "[A-Za-z0-9_-]{1,128}"


@dataclass(frozen=True)
class Route:
    """One path: who answers it and to which methods.

    `path` may hold one `{name}`, which stands for an id. `upstream` is the engine's path where it differs. `open`
    routes need neither key nor client certificate. `anthropic` routes tell errors as Anthropic's clients read them.
    """

    path: str
    by: By
    methods: tuple[str, ...] = ("GET", "HEAD")
    upstream: str | None = None
    open: bool = False
    anthropic: bool = False
    summary: str = ""

    @property
    def parameter(self) -> str | None:
        """The name of the id in the path, if there is one."""
        return self.path.partition("{")[2].partition("}")[0] or None


def _engine(path: str, *methods: str, anthropic: bool = False) -> Route:
    return Route(path, "engine", methods or ("POST",), anthropic=anthropic)


ENGINE: tuple[Route, ...] = (
    _engine("/v1/chat/completions"),
    _engine("/v1/completions"),
    _engine("/v1/models", "GET"),
    _engine("/v1/responses"),
    _engine("/v1/responses/{response_id}", "GET"),
    _engine("/v1/responses/{response_id}/cancel"),
    _engine("/v1/messages", anthropic=True),
    _engine("/v1/messages/count_tokens", anthropic=True),
    # Engines of models that do not embed answer 404 themselves.
    _engine("/v1/embeddings"),
    _engine("/generative_scoring"),
    _engine("/tokenize"),
    _engine("/detokenize"),
)

# What the engine answers only with `--enable-scale-out` (without it 403), for prefill and decoding on other hosts:
# https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/entrypoints/scale_out/factories.py
# `generate` takes token ids and tensors past every rule for requests, so whoever wants it must say so.
SCALE_OUT: tuple[Route, ...] = (
    _engine("/v1/chat/completions/render"),
    _engine("/v1/completions/render"),
    _engine("/inference/v1/generate"),
)

HEALTH: tuple[Route, ...] = (
    Route("/v1/health/live", "health", open=True, summary="200 as soon as the container runs."),
    Route("/v1/health/ready", "health", open=True, summary="200 while requests are answered, else 503."),
    Route("/v1/health/startup", "health", open=True, summary="The start, stage by stage."),
)

METRICS = Route("/v1/metrics", "metrics", summary="Prometheus text: the engine's metrics and the server's own.")

OURS: tuple[Route, ...] = (
    *HEALTH,
    METRICS,
    Route("/v1/metadata", "file", summary="Model, licence, profile and layout that are served."),
    Route("/v1/version", "file", summary="The release, the version of this API, and the engine's."),
    Route("/v1/manifest", "file", summary="Every file of the model with its size and SHA-256."),
    Route("/v1/license", "file", summary="The licence that came with the model."),
    Route("/openapi.json", "file", open=True, summary="This description."),
    Route("/docs", "page", open=True, summary="A page that shows this description."),
    Route("/docs/explorer.js", "page", open=True),
    Route("/docs/explorer.css", "page", open=True),
)

# What SageMaker calls: https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
# An invocation is a chat completion, as for NVIDIA's images; so all rules for those hold:
# https://github.com/NVIDIA/nim-deploy/blob/main/cloud-service-providers/aws/sagemaker/README.md
SAGEMAKER: tuple[Route, ...] = (
    Route("/ping", "health", open=True, summary="Ready, as SageMaker asks for it."),
    Route("/invocations", "engine", ("POST",), upstream="/v1/chat/completions", summary="A chat completion."),
)


def table(*, sagemaker: bool = False, scale_out: bool = False) -> tuple[Route, ...]:
    """Every route of this configuration."""
    return ENGINE + OURS + (SAGEMAKER if sagemaker else ()) + (SCALE_OUT if scale_out else ())
