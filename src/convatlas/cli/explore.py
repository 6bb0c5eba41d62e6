"""`convatlas explore`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter


def explore_command(
    network: str | None = None,
    /,
    *,
    host: str = "127.0.0.1",
    port: int = 8765,
    browser: Annotated[bool, Parameter(negative="--no-browser")] = True,
) -> None:
    """Look at the atlas in a browser: resize networks, compare them, see what a layer sees.

    Served from this machine, and to it only unless `--host` says otherwise.

    Args:
        network: Open its page, such as resnet50; the whole atlas where not given.
        host: Address to listen on. Any but this machine's own lets others in who have the printed address.
        port: Port to listen on; 0 for any that is free.
        browser: Open the page in a browser.
    """
    try:
        import fastapi  # noqa: F401  # pyright: ignore[reportUnusedImport]
        import uvicorn  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ModuleNotFoundError as error:
        raise ValueError(
            f"the explorer needs {error.name}; install convatlas with its extra `web`"
        ) from error
    from convatlas.catalog.cards import find_card
    from convatlas.explorer import serve

    path = "" if network is None else f"networks/{find_card(network).name}"
    if not 0 <= port <= 65_535:
        raise ValueError(f"`--port`={port}; expected 0 to 65535")

    def started(address: str) -> None:
        base, question, token = address.partition("?")
        page = f"{base}{path}{question}{token}"
        print(page, flush=True)
        if browser:
            import webbrowser

            webbrowser.open(page)

    serve(host=host, port=port, started=started)
