"""What an operator does once at an OpenBao for loopwarden: engines, policies, roles, logins.

OWN is all that loopwarden's own token may do; READ is all that a run's token may.
"""

import time
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.servers.openbao import ROOT_TOKEN, OpenBao
from tests.servers.postgres import ADMIN_PASSWORD, Postgres

TOKEN_ROLE = "loopwarden"
STATIC_CANARY = "canary-kv-5f7e20b1d9aa"
PASSWORD_CANARY = "Q" * 40  # every password that the database engine makes
OWN = """
path "auth/token/create/loopwarden" { capabilities = ["update"] }
path "auth/token/lookup-accessor" { capabilities = ["update"] }
path "auth/token/renew-accessor" { capabilities = ["update"] }
path "auth/token/revoke-accessor" { capabilities = ["update"] }
path "sys/capabilities-accessor" { capabilities = ["update"] }
path "sys/leases/lookup" { capabilities = ["update"] }
path "sys/leases/lookup/*" { capabilities = ["list", "sudo"] }
path "sys/leases/renew" { capabilities = ["update"] }
path "sys/leases/revoke" { capabilities = ["update"] }
path "pki/revoke" { capabilities = ["update"] }
"""
READ = """
path "database/creds/*" { capabilities = ["read"] }
path "pki/issue/*" { capabilities = ["update"] }
path "ssh/sign/*" { capabilities = ["update"] }
path "secret/data/*" { capabilities = ["read"] }
"""
CREATE = (
    "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';"
    ' GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{{name}}";'
    ' GRANT "{{name}}" TO CURRENT_USER;'  # so that it may end the user's sessions
)
REVOKE = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{{name}}';"
    ' REVOKE ALL ON ALL TABLES IN SCHEMA public FROM "{{name}}";'
    ' DROP ROLE IF EXISTS "{{name}}";'
)
USERS = "SELECT rolname FROM pg_roles WHERE rolname LIKE 'v-%' ORDER BY 1"


@dataclass(slots=True)
class Vault:
    """A server that is set up."""

    bao: OpenBao
    role_id: str
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    def secret_id(self, wrap_ttl: str = "") -> str:
        """Return a new SecretID, or the token that it is wrapped in."""
        path = "auth/approle/role/loopwarden/secret-id"
        status, answer = self.bao.call("POST", path, {}, wrap_ttl=wrap_ttl)
        assert status == 200, answer
        found: str = answer["wrap_info"]["token"] if wrap_ttl else answer["data"]["secret_id"]
        return found

    def jwt(self, **claims: object) -> str:
        """Return a token that the jwt login takes."""
        now = int(time.time())
        times = {"iat": now, "nbf": now - 10, "exp": now + 600}
        body = {"sub": "worker-1", "aud": "openbao", **times, **claims}
        return jwt.encode(body, self.key, algorithm="ES256")

    def tune(self, ttl: str, most: str, role: str = "orders") -> None:
        """Let the database role's credentials last so long, and renewals so long."""
        self.bao.write(f"database/roles/{role}", _role(ttl, most))

    def login(self, ttl: str, most: str) -> None:
        """Let loopwarden's own logins last so long."""
        self.bao.write(
            "auth/approle/role/loopwarden",
            {"token_policies": ["own"], "token_ttl": ttl, "token_max_ttl": most},
        )

    def children(self) -> list[dict[str, Any]]:
        """Return the tokens of runs that live."""
        found = []
        for accessor in self.bao.listed("auth/token/accessors"):
            status, answer = self.bao.call(
                "POST", "auth/token/lookup-accessor", {"accessor": accessor}
            )
            if status == 200 and (answer["data"].get("meta") or {}).get("run"):
                found.append(answer["data"])
        return found

    def logins(self) -> int:
        """Return how many tokens of our own login live."""
        count = 0
        for accessor in self.bao.listed("auth/token/accessors"):
            status, answer = self.bao.call(
                "POST", "auth/token/lookup-accessor", {"accessor": accessor}
            )
            count += status == 200 and answer["data"]["path"].endswith("/login")
        return count

    def leases(self, role: str = "orders") -> list[str]:
        """Return the leases of a database role that the server knows."""
        return self.bao.listed(f"sys/leases/lookup/database/creds/{role}")


def set_up(bao: OpenBao, server: Postgres | None = None) -> Vault:
    """Do all of it; the database engine only with a database."""
    bao.write("sys/policies/acl/own", {"policy": OWN})
    bao.write("sys/policies/acl/read", {"policy": READ})
    bao.write(
        f"auth/token/roles/{TOKEN_ROLE}",
        {"orphan": True, "renewable": True, "allowed_policies": ["read"]},
    )
    bao.write("sys/auth/approle", {"type": "approle"})
    vault = Vault(bao, "", ec.generate_private_key(ec.SECP256R1()))
    vault.login("1h", "24h")
    vault.role_id = bao.read("auth/approle/role/loopwarden/role-id")["data"]["role_id"]
    _jwt(vault)
    mounts = bao.read("sys/mounts")["data"]
    if "secret/" not in mounts:
        bao.write("sys/mounts/secret", {"type": "kv", "options": {"version": "2"}})
    _pki(bao)
    _ssh(bao)
    rules = 'length = 40\nrule "charset" { charset = "Q" }'
    bao.write("sys/policies/password/canary", {"policy": rules})
    if server is not None:
        _database(bao, server)
    return vault


def store(bao: OpenBao, path: str = "secret/data/api", **values: str) -> None:
    """Put a static secret where KV version 2 keeps it."""
    bao.write(path, {"data": values or {"token": STATIC_CANARY}})


def _jwt(vault: Vault) -> None:
    public = vault.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    vault.bao.write("sys/auth/jwt", {"type": "jwt"})
    vault.bao.write("auth/jwt/config", {"jwt_validation_pubkeys": [public.decode()]})
    vault.bao.write(
        "auth/jwt/role/loopwarden",
        {"role_type": "jwt", "bound_audiences": ["openbao"], "user_claim": "sub",
         "bound_subject": "worker-1", "token_policies": ["own"], "token_ttl": "1h"},
    )  # fmt: skip


def _pki(bao: OpenBao) -> None:
    bao.write("sys/mounts/pki", {"type": "pki"})
    bao.write("pki/root/generate/internal", {"common_name": "runs", "key_type": "ec", "ttl": "24h"})
    role = {"allow_any_name": True, "key_type": "ec", "ttl": "1h", "client_flag": True,
            "no_store": False, "enforce_hostnames": False}  # fmt: skip
    bao.write("pki/roles/client", role)
    bao.write("pki/roles/unstored", {**role, "no_store": True})
    bao.write("pki/roles/leased", {**role, "generate_lease": True})


def _ssh(bao: OpenBao) -> None:
    bao.write("sys/mounts/ssh", {"type": "ssh"})
    bao.write("ssh/config/ca", {"generate_signing_key": True, "key_type": "ed25519"})
    role = {"key_type": "ca", "allow_user_certificates": True, "allowed_users": "robot,deploy",
            "default_user": "robot", "ttl": "1h", "max_ttl": "24h"}  # fmt: skip
    bao.write("ssh/roles/client", role)


def _database(bao: OpenBao, server: Postgres) -> None:
    bao.write("sys/mounts/database", {"type": "database"})
    host = f"{server.address}:{server.port}"
    bao.write(
        "database/config/orders",
        {
            "plugin_name": "postgresql-database-plugin",
            "connection_url": f"postgresql://{{{{username}}}}:{{{{password}}}}@{host}/orders"
            "?sslmode=require&connect_timeout=3",
            "allowed_roles": ["*"],
            "username": "loopwarden_admin",
            "password": ADMIN_PASSWORD,
            "password_policy": "canary",
            "max_open_connections": 8,
        },
    )
    for role in ("orders", "short"):
        bao.write(f"database/roles/{role}", _role("1h", "24h"))


def _role(ttl: str, most: str) -> dict[str, object]:
    return {
        "db_name": "orders",
        "creation_statements": [CREATE],
        "revocation_statements": [REVOKE],
        "default_ttl": ttl,
        "max_ttl": most,
    }


def canaries() -> tuple[str, ...]:
    """Return what nothing of ours may ever show."""
    return (STATIC_CANARY, PASSWORD_CANARY, ROOT_TOKEN)
