"""Account: a balance that never goes below zero, and a record of every debit."""

from __future__ import annotations

from typing import Any

from dosql import ConflictError, InvalidRequestError, Request, Response, Transaction
from dosql.patterns import BaseDurableObject


class InsufficientFundsError(ConflictError):
    """409; nothing of the transaction is kept."""

    default_code = "insufficient_funds"


class Account(BaseDurableObject):
    """``POST /deposit``, ``POST /debit`` with ``{"amount"}``; ``GET /`` for balance and debits."""

    async def deposit(self, amount: int) -> int:
        """Returns the balance."""
        balance: int = await self.get("balance", 0) + positive(amount)
        await self.put("balance", balance)
        return balance

    async def debit(self, amount: int) -> int:
        """Returns the balance.

        Raises:
            InsufficientFundsError: it would go below zero.
        """

        async def take(txn: Transaction) -> int:
            balance: int = await txn.get("balance", 0) - positive(amount)
            await txn.put("balance", balance)
            at = self.now_ms()
            while await txn.get(f"transaction:{at}") is not None:
                at += 1  # two debits of one millisecond are two debits
            await txn.put(f"transaction:{at}", {"amount": amount, "type": "debit"})
            if balance < 0:
                raise InsufficientFundsError("Insufficient funds")
            return balance

        return await self.ctx.storage.transaction(take)

    async def statement(self) -> dict[str, Any]:
        """The balance and all debits, by their keys."""
        debits = await self.list(prefix="transaction:")
        return {"balance": await self.get("balance", 0), "transactions": debits}

    async def handle_request(self, request: Request) -> Response:
        if request.path == "/":
            return self.json(await self.statement())
        actions = {"/deposit": self.deposit, "/debit": self.debit}
        action = actions.get(request.path)
        if action is None:
            return self.error("Not found", 404)
        if request.method != "POST":
            return self.method_not_allowed("POST")
        body = await request.json()
        amount = body.get("amount") if isinstance(body, dict) else None
        return self.success({"balance": await action(positive(amount))})


def positive(amount: object) -> int:
    """A whole number above 0, in the smallest unit of the currency.

    Raises:
        InvalidRequestError: it is none.
    """
    if isinstance(amount, bool) or not isinstance(amount, int) or amount <= 0:
        raise InvalidRequestError("amount must be a whole number above 0.")
    return amount
