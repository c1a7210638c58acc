"""What a judge may cost, and what it has cost so far."""

from __future__ import annotations

from dataclasses import dataclass

from aipo.judges.endpoints import Price


@dataclass(frozen=True)
class Budget:
    """The caps of one judge, by its identity, in all runs that share a store. None: no limit."""

    requests: int | None = None
    dollars: float | None = None
    price: Price | None = None
    """Of replies that came while no price was set."""

    @property
    def capped(self) -> bool:
        """Whether anything is limited."""
        return self.requests is not None or self.dollars is not None


@dataclass
class Account:
    """Requests sent, and US dollars: of replies, and what requests without a reply may have cost at most.

    A request is reserved for before it is sent, with the most that it can cost. Its reply takes the reservation back
    and adds the price. So does an answer that costs nothing, as a refusal. What never came to an end stays reserved.
    Replies that came while no price was set are counted in tokens: they cost what the price of a budget says.
    """

    requests: int = 0
    dollars: float = 0.0
    reserved: float = 0.0
    unpriced_input: int = 0
    unpriced_output: int = 0

    def paid(self, budget: Budget) -> float:
        """What replies cost, in US dollars."""
        unpriced = budget.price.dollars(self.unpriced_input, self.unpriced_output) if budget.price else 0.0
        return self.dollars + unpriced

    def committed(self, budget: Budget) -> float:
        """What counts against a cap, in US dollars."""
        return self.paid(budget) + self.reserved

    def reserve(self, up_to: float | None) -> None:
        """A request is about to be sent."""
        self.requests += 1
        self.reserved += up_to or 0.0

    def settle(self, up_to: float | None, dollars: float | None) -> None:
        """A request has come to its end, for this price."""
        self.reserved = max(0.0, self.reserved - (up_to or 0.0))
        self.dollars += dollars or 0.0

    def replied(self, up_to: float | None, dollars: float | None, input_tokens: int, output_tokens: int) -> None:
        """A reply has come, for this price. None: there was none; or its reservation stands, and it has no tokens."""
        self.settle(up_to, dollars)
        if dollars is None:
            self.unpriced_input += input_tokens
            self.unpriced_output += output_tokens

    def lacks_requests(self, budget: Budget) -> str | None:
        """Why no request may be sent any more, or None."""
        if budget.requests is None or self.requests < budget.requests:
            return None
        return (
            f"the budget of judge.max_requests={budget.requests} is spent: it counts every request to this judge from "
            "this store, in all runs. What was answered is kept; raise it and start the run again"
        )

    def lacks_dollars(self, budget: Budget, up_to: float | None) -> str | None:
        """Why a request that may cost so much may not be sent now, or None."""
        if budget.dollars is None or self.committed(budget) + (up_to or 0.0) <= budget.dollars * (1 + 1e-12):
            return None
        return (
            f"the budget of judge.max_dollars={budget.dollars:g} is spent, over all runs from this store: replies cost "
            f"${self.paid(budget):.4g}, requests without a reply at most ${self.reserved:.4g}, and the next one may "
            f"cost ${up_to or 0.0:.2g}. What was answered is kept; raise it and start the run again"
        )
