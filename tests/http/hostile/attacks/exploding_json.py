"""JSON of few bytes and many values: ``[[],[],…]`` takes 40 times its size once it is parsed."""

from __future__ import annotations

from typing import Final

from . import Attack, Target

_CONNECTIONS = 8
#: Statements that parse values to Python objects, as many requests at a time as arrive.
PARSE_VALUES: Final = (
    "import orjson; "
    "from treehub_level.engine.codec import decode_json; "
    "from treehub_level.http.server import body_memory, routes; "
    "from contextlib import nullcontext; body_memory.Turns.take = lambda self, token: nullcontext(); "
    "routes.parse_value = decode_json; "
    "routes.decode_message = lambda text: "
    "[message := decode_json(text), {**message, 'changes': [*map(orjson.dumps, message['changes'])]}][1]; "
)


def explosive(size: int) -> bytes:
    """Return the text of an array of empty arrays. A space keeps it from its canonical form."""
    return b"[ " + b"[]," * (size // 3 - 1) + b"[]]"


async def run(target: Target) -> None:
    """Send bodies of 6 MiB, as pushes and as single values, over several connections."""
    import asyncio

    from ..sending import head, repeat

    value = explosive(6 << 20)
    push = b'{"protocol":2,"server":null,"client":"x","cid":0,"hi":0,"epochs":[],"seq":1,"nonce":"%b","limit":1,' % (
        b"0" * 32
    )
    push += b'"push":"%b","changes":[["a",%b]]}' % (b"1" * 32, value)
    await asyncio.gather(
        *(
            repeat(target, _CONNECTIONS // 2, head(target, method, path, len(body), "connection: close") + body)
            for method, path, body in (("POST", "/v1/notes/exchange", push), ("PUT", "/v1/notes/entries/a", value))
        )
    )


ATTACK = Attack(run, memory=250, control=PARSE_VALUES, write=True)
