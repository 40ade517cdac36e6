"""`nimctl models`: the recipes, and what serves them."""

from nimctl.cli.options import Debug, Json, Quiet
from nimctl.cli.verb import verb


@verb("models")
def models(as_json: Json = False, quiet: Quiet = False, debug: Debug = False) -> None:  # read by @verb
    """List the models nimctl knows.

    Example:  nimctl models --json
    """
    from nimctl.core import recipes
    from nimctl.render import Output, size

    out = Output.choose("models", as_json=as_json, quiet=quiet)
    known = [recipes.load(name) for name in recipes.names()]
    out.document(
        {
            "models": [
                {
                    "name": r.name,
                    "title": r.title,
                    "runs": r.runs,
                    "image": r.image,
                    "weights": r.weights or None,
                    "weights_bytes": r.weights_bytes,
                    "cpu": r.cpu,
                    "default": r.name == recipes.DEFAULT_MODEL,
                }
                for r in known
            ]
        }
    )
    if out.mode == "human":
        rows = [(r.name, size(r.weights_bytes or 0), "yes" if r.cpu else "no", r.title) for r in known]
        out.table(("MODEL", "WEIGHTS", "CPU", "WHAT"), rows)
