"""Methods that a caller may not use, and metadata that must not change who it is."""

from __future__ import annotations

from collections.abc import Iterator

from tests.attack.arena import ALIGN, INFO, STREAM, Arena, Attack, align, held, stream, unary, upload
from tests.kit.guarded import bearer, with_key

REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
_LIST_SERVICES = b"\x3a\x01*"
UNKNOWN = (
    "/",
    "/aligner.v1.Aligner",
    "/aligner.v1.Aligner/",
    "/aligner.v1.Aligner/align",
    "/aligner.v1.Aligner/ALIGN",
    "/aligner.v1.Aligner/Align/",
    "/aligner.v1.Aligner//Align",
    "//aligner.v1.Aligner/Align",
    "/aligner.v1.Aligner/Align?x=1",
    "/aligner.v1.Aligner/Align#x",
    "/aligner.v1.Aligner/%41lign",
    "/aligner.v1.Aligner/Align ",
    "/aligner.v1.Aligner/../Aligner/Align",
    "/aligner.v1.aligner/Align",
    "/aligner.v2.Aligner/Align",
    "/Aligner/Align",
    "/grpc.health.v1.Health/../../aligner.v1.Aligner/Align",
    "/grpc.health.v1.Health/Check/../../aligner.v1.Aligner/Align",
    "/grpc.health.v1.Health/Shutdown",
    "/grpc.channelz.v1.Channelz/GetServers",
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/a/" + "b" * 4000,
)
SCOPES = ("", "admin", "ALIGN", "align.read", "aligner", "align:all", "*", "al*", "alig", "align,admin", "'align'")


def policy() -> Iterator[Attack]:
    """Without the scope, without a credential, and methods that do not exist."""

    async def anonymous(arena: Arena, path: str) -> str:
        return held(await unary(arena.channel, path, align()), "CREDENTIALS_MISSING")

    async def scoped(arena: Arena, path: str, scope: str) -> str:
        token = bearer(arena.plain.home.forge.token(arena.plain.home.forge.claims(scope=scope)))
        return held(await unary(arena.channel, path, align(), token), "PERMISSION_DENIED")

    async def scoped_stream(arena: Arena, scope: str) -> str:
        token = bearer(arena.plain.home.forge.token(arena.plain.home.forge.claims(scope=scope)))
        return held(await stream(arena.channel, STREAM, upload([b"x"]), token), "PERMISSION_DENIED")

    async def unknown(arena: Arena, path: str) -> str:
        # The transport answers UNIMPLEMENTED itself to a path that is not /service/method.
        return held(await unary(arena.channel, path, align(), arena.token), "METHOD_UNKNOWN", "UNIMPLEMENTED")

    async def reflected(arena: Arena) -> str:
        return held(await stream(arena.channel, REFLECTION, [_LIST_SERVICES], arena.token), "PERMISSION_DENIED", "METHOD_UNKNOWN")

    for path in (INFO, ALIGN, STREAM, *UNKNOWN):
        yield Attack(f"anonymous {path[:60]}", lambda arena, path=path: anonymous(arena, path))
    for scope in SCOPES:
        if "," not in scope:
            yield Attack(f"stream with scope {scope!r}", lambda arena, scope=scope: scoped_stream(arena, scope))
        for path in (INFO, ALIGN):
            yield Attack(f"{path} with scope {scope!r}", lambda arena, path=path, scope=scope: scoped(arena, path, scope))
    for path in UNKNOWN:
        yield Attack(f"unknown {path[:60]}", lambda arena, path=path: unknown(arena, path))
    yield Attack("reflection without admin", reflected)


def headers() -> Iterator[Attack]:
    """Floods, claims to be somebody else, and what a log or a trace must not repeat."""
    too_large = ("HEADERS_TOO_LARGE", "RESOURCE_EXHAUSTED")

    async def flood(arena: Arena, entries: int, length: int, *, known: bool) -> str:
        sent = [(f"x-{number}", "v" * length) for number in range(entries)]
        sent += [arena.token] if known else []
        return held(await unary(arena.channel, INFO, b"", *sent), *too_large)

    async def claimed(arena: Arena, *sent: tuple[str, str | bytes]) -> str:
        """Without a credential of its own."""
        return held(
            await unary(arena.channel, INFO, b"", *sent),
            "CREDENTIALS_MISSING",
            "CREDENTIALS_INVALID",
            "CREDENTIALS_AMBIGUOUS",
        )

    for entries, length in ((65, 1), (100, 1), (500, 1), (1, 8193), (1, 20_000), (1, 100_000), (63, 200), (1000, 100), (3, 3000)):
        for known in (False, True):
            name = f"{entries} of {length} bytes, {'known' if known else 'anonymous'}"
            yield Attack(
                name, lambda arena, entries=entries, length=length, known=known: flood(arena, entries, length, known=known)
            )
    for name in (
        "x-forwarded-for",
        "x-real-ip",
        "forwarded",
        "x-forwarded-client-cert",
        "x-client-cert",
        "x-ssl-client-cert",
        "x-user",
        "x-remote-user",
        "remote-user",
        "x-principal",
        "x-auth-request-user",
        "x-scopes",
        "x-admin",
        "x-envoy-internal",
        "cookie",
        "proxy-authorization",
        "x-authenticated-userid",
        "x-goog-iap-jwt-assertion",
        "x-amzn-oidc-data",
        "grpc-internal-encoding",
        "x-http-method-override",
        "x-original-url",
        "x-rewrite-url",
    ):
        yield Attack(
            f"claimed by {name}",
            lambda arena, name=name: claimed(arena, (name, "127.0.0.1; mtls:spiffe://dev.local/client; align")),
        )
        yield Attack(f"a token in {name}", lambda arena, name=name: claimed(arena, (name, arena.token[1])))
    yield Attack("authorization in binary", lambda arena: claimed(arena, ("authorization-bin", arena.token[1].encode())))
    yield Attack("key in binary", lambda arena: claimed(arena, ("x-api-key-bin", arena.key.reveal().encode())))
    for scheme in ("Basic", "Digest", "Negotiate", "Token", "bearer:", "", "JWT", "DPoP", "ApiKey", "Bearer Bearer"):
        yield Attack(
            f"scheme {scheme!r}", lambda arena, scheme=scheme: claimed(arena, ("authorization", f"{scheme} {arena.token[1][7:]}"))
        )
    yield Attack("two tokens", lambda arena: claimed(arena, arena.token, arena.token))
    yield Attack("good token and a bad one", lambda arena: claimed(arena, arena.token, ("authorization", "Bearer x")))
    yield Attack("token and key", lambda arena: claimed(arena, arena.token, with_key(arena.key)))
    yield Attack("token and an empty key", lambda arena: claimed(arena, arena.token, ("x-api-key", "")))
    yield Attack("tokens in one header", lambda arena: claimed(arena, ("authorization", f"{arena.token[1]}, {arena.token[1]}")))
