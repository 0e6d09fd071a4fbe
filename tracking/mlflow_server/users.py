"""Users of a server with authentication, made through MLflow's own API."""

from __future__ import annotations

from http import HTTPStatus

import requests

from tracking.mlflow_server.options import ServerPlan, password_in

_API = "api/2.0/mlflow/users"
ANSWER_SECONDS = 30.0


class WrongPasswordError(OSError):
    """The file of admin's password does not hold it."""


def ensure_users(plan: ServerPlan) -> None:
    """Makes the users that are missing, and gives those who cannot sign in their file's password.

    Raises:
        WrongPasswordError: The file of admin's password does not hold it.
        OSError: The server refused, or did not answer.
    """
    if not _signs_in(plan.address, "admin", password_in(plan.admin_password_file)):
        raise WrongPasswordError(
            f"admin cannot sign in with the password in {plan.admin_password_file}: the database "
            "of users was made with another one. Put that back, or, if it is lost, name a new "
            "--auth-database-uri and make the users again"
        )
    for name, file in plan.users:
        password = password_in(file)
        if _signs_in(plan.address, name, password):
            continue
        admin = ("admin", password_in(plan.admin_password_file))
        body = {"username": name, "password": password}
        with direct_session() as session:
            answer = session.post(
                f"{plan.address}/{_API}/create", json=body, auth=admin, timeout=ANSWER_SECONDS
            )
            if "RESOURCE_ALREADY_EXISTS" in answer.text:
                answer = session.patch(
                    f"{plan.address}/{_API}/update-password", json=body, auth=admin,
                    timeout=ANSWER_SECONDS,
                )  # fmt: skip
        if not answer.ok:
            raise OSError(f"user '{name}' could not be made: status {answer.status_code}")


def _signs_in(address: str, name: str, password: str) -> bool:
    with direct_session() as session:
        answer = session.get(
            f"{address}/{_API}/get", params={"username": name}, auth=(name, password),
            timeout=ANSWER_SECONDS,
        )  # fmt: skip
    refused = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
    if not answer.ok and answer.status_code not in refused:
        raise OSError(f"the server answered status {answer.status_code} to user '{name}'")
    return answer.ok


def direct_session() -> requests.Session:
    """Requests to a server of this machine: through no proxy, which would read the passwords."""
    session = requests.Session()
    session.trust_env = False
    return session
