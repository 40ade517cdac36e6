"""`nimctl pull`: bring the image of a model to this host."""

from nimctl.cli.options import Debug, Gpus, Image, Json, Model, Quiet
from nimctl.cli.verb import verb


@verb("pull")
def pull(
    model: Model = None,
    gpus: Gpus = None,
    image: Image = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # read by @verb
) -> None:
    """Pull or build the image that serves MODEL.

    Pulled by digest; built where no registry holds it.

    Example:  nimctl pull kimi-k2.5-turbo
    """
    from nimctl.cli import acquire, host
    from nimctl.cli import config as configuration
    from nimctl.cli.target import image_for, resolve
    from nimctl.launch.docker import Engine
    from nimctl.render import Output

    out = Output.choose("pull", as_json=as_json, quiet=quiet)
    config = configuration.load({"gpus": gpus})
    target = resolve(model, config, image)
    out.text(f"model {target.recipe.name} (from {target.origin}): {target.recipe.title}", style="bold")
    device = host.device_for(config, target.recipe)
    choice = image_for(target, device, config)
    engine = Engine.connect()
    if choice.how == "pull" and engine.image_digest(choice.reference) is None:
        digest = acquire.pull_image(choice.reference, engine, out)
    else:
        digest = acquire.ensure_image(choice, device, engine, out)
    out.document({"ok": True, "model": target.recipe.name, "image": choice.reference, "digest": digest})
