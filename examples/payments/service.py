"""Takes payments, each once: `python service.py payments.db 8000`."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from brownout.ledger import Ledger, Once

PATH = sys.argv[1] if len(sys.argv) > 1 else "payments.db"
CALLERS = {b"Bearer shop-secret": "shop"}
api = FastAPI()
ledger = Ledger(f"sqlite:///{PATH}")


class Payment(BaseModel):
    """What a caller sends."""

    order: str
    cents: int


@api.post("/pay", status_code=201)
def pay(payment: Payment) -> dict[str, object]:
    """One transaction: the ledger's row first, then the payment."""
    with closing(sqlite3.connect(PATH, timeout=10)) as db, db:
        ledger.enlist(db)
        if payment.cents > 10_000:
            raise HTTPException(402, "that is too much")  # rolled back; and the answer holds
        row = (payment.order, payment.cents)
        made = db.execute("INSERT INTO payments (order_id, cents) VALUES (?, ?)", row)
    return {"payment": made.lastrowid, "order": payment.order}


@api.get("/payments")
def payments() -> list[str]:
    """The orders that were paid, each time that they were."""
    with closing(sqlite3.connect(PATH)) as db:
        return [row[0] for row in db.execute("SELECT order_id FROM payments")]


def caller(scope: Any) -> str | None:
    """Who calls: a key is good for its owner only."""
    return CALLERS.get(dict(scope["headers"]).get(b"authorization", b""))


app = Once(api, ledger=ledger, principal=caller, routes={"POST /pay": "atomic"})

if __name__ == "__main__":
    ledger.create()
    with closing(sqlite3.connect(PATH)) as db, db:
        db.execute("CREATE TABLE IF NOT EXISTS payments (id INTEGER PRIMARY KEY, order_id, cents)")
    uvicorn.run(app, port=int(sys.argv[2]))
