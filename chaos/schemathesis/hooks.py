"""What every answer of ours holds, whatever it is about; and what must not be done meanwhile."""

import os
import re

import schemathesis

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# Words of databases, brokers and panics, which stay in the log.
LEAKS = re.compile(r"sqlx|sqlstate|pg_|postgres|relation \"|jetstream|nats:|panicked|unwrap|\.rs:\d")
# The public part of the key that this run signs in with.
OWN_KEY = os.environ.get("HAYSTACK_API_KEY", "").split("_")[1:2]


@schemathesis.check
def errors_are_told_as_promised(ctx, response, case):
    headers = {name.lower(): values[0] for name, values in response.headers.items()}
    request_id = headers.get("dq-request-id", "")
    assert UUID.fullmatch(request_id), f"dq-request-id: {request_id!r} is no UUID"
    if response.status_code < 400 or "problem" not in headers.get("content-type", ""):
        return
    told = response.json()
    assert told["status"] == response.status_code, "status: not that of the answer"
    assert told["request_id"] == request_id, "request_id: not that of the header"
    assert told["title"] and told["detail"], "nothing is said"
    assert response.status_code != 422 or told["detail"], "422 without a reason"
    assert response.status_code not in (429, 503) or int(headers["retry-after"]) > 0
    for error in told.get("errors", []):
        assert error["pointer"] == "" or error["pointer"].startswith("/"), "no JSON pointer"
    # What a caller wrote may stand in it.
    sent = f"{case.body!r}{case.path_parameters!r}{case.query!r}{case.headers!r}".lower()
    leak = LEAKS.search(told["detail"].lower())
    assert not leak or leak.group() in sent, f"something from inside is told: {leak.group()!r}"


@schemathesis.hook
def filter_case(context, case):
    """Nobody saws off the branch that this run sits on."""
    revokes = case.method == "DELETE" and case.path == "/key/{key_id}"
    return not (revokes and (case.path_parameters or {}).get("key_id") in OWN_KEY)
