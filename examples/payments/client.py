"""Pays while the network fails, and settles what it does not know: `python client.py http://127.0.0.1:8000`."""

from __future__ import annotations

import sys
import time
from typing import Any

import httpx2

from brownout import Guard, Key, Outcome, remaining
from brownout.fault import Drop
from brownout.fault.http import running
from brownout.ledger import Outcomes

WHO = {"authorization": "Bearer shop-secret"}


def main(url: str, journal: str) -> None:
    """Three payments: one as usual, one whose reply is lost, one whose request is lost."""
    ask = Outcomes(url, route="POST /pay", headers=WHO)
    payments = Guard("payments", timeout=1.0, ask=ask, journal=journal)

    with running(url.removeprefix("http://")) as network, httpx2.Client(headers=WHO) as http:

        def pay(order: str, cents: int, key: Key) -> Any:
            answer = http.post(
                f"http://{network.listen}/pay",
                json={"order": order, "cents": cents},
                headers={"idempotency-key": key},
                timeout=remaining(),
            )
            return answer.raise_for_status().json()

        def paid(order: str, cents: int) -> tuple[Outcome[Any], Key]:
            key = Key.of("pay", order, at=time.time())  # with the order's own time: the same again
            outcome = payments.outcome(pay, order, cents, key, key=key)
            print(f"{order}: {'unknown' if outcome.unknown else outcome.value}")
            return outcome, key

        paid("order-1", 500)
        with network.make(Drop(stream="downstream")):
            outcome, _ = paid("order-2", 700)  # executed, and the reply is lost
        reply = payments.resolve(outcome).value
        print("  asked:", reply.body.decode() if reply else "not known yet")

        with network.make(Drop()):
            outcome, key = paid("order-3", 900)  # the request is lost
        print("  asked, and voided:", payments.resolve(outcome, within=2.0).error)
        late = http.post(
            f"{url}/pay", json={"order": "order-3", "cents": 900}, headers={"idempotency-key": key}
        )
        print("  the request comes late:", late.status_code, late.json()["title"])
        print("paid:", ", ".join(http.get(f"{url}/payments").json()))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "sqlite:///unknown.db")
