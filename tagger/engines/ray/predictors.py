"""The processes of a cluster that hold the model, and who of them is the next to be asked."""

import time
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from tagger import __version__
from tagger.engines import Hearing
from tagger.engines.ray.cluster import STALL_S, Shares, nodes, told
from tagger.engines.ray.stages import Predicting, portable
from tagger.errors import ClusterError, LostWorkerError, WorkerError

START_S = 900.0
"""So long at most may it take until there is a predictor: machines that are added take minutes."""

LOOK_EVERY_S = 1.0
SETTLE_S = 30.0
"""After a loss, the time until Ray is sure to know which machines there still are."""

MOST_DEATHS = 5
"""After so many predictors on end that died while they loaded the model, it is what kills them."""


@dataclass(slots=True)
class Member:
    """A predictor. started: done once it has loaded the model; load: the groups it has to do."""

    actor: Any
    started: Any
    ready: bool = False
    load: int = 0


class Predictors:
    """As many as the cluster has room for; one that is lost is replaced while that is so.

    Only one thread may ask.
    """

    def __init__(self, hearing: Hearing, shares: Shares) -> None:
        self.shares = shares
        self.check = hearing.check
        self.arguments = ray.put(portable(hearing))
        self.deaths = 0
        self.lost_at = 0.0
        self.members = [self._hire() for _ in range(shares.predictors)]

    def choose(self) -> Member:
        """Return the one with the least to do of those that are ready; wait for the first.

        Raises ModelError where the model cannot be loaded, ClusterError where there is no room.
        """
        self._fill_up()
        self._welcome(timeout_s=0)
        given_up = time.monotonic() + START_S
        while not (ready := [member for member in self.members if member.ready]):
            self.check()
            if time.monotonic() > given_up:
                wanted = f"{self.shares.cpus} cores and {self.shares.gpus:g} GPUs"
                raise ClusterError(f"no node has room for a predictor: {wanted} (see ray status)")
            self._welcome(timeout_s=1)
            self._fill_up()
        chosen = min(ready, key=lambda member: member.load)
        chosen.load += 1
        return chosen

    def choose_alive(self) -> Member:
        """Return one that surely lives and has nothing to do: what it dies of next is its next."""
        while True:
            member = self.choose()
            try:
                self.result(member.actor.answer.remote())
            except RayError:
                self.drop(member)
            else:
                return member

    def drop(self, lost: Member) -> bool:
        """Do without one; whoever waits for it learns that it is dead.

        Return whether that is news. It is to the first of the groups that it had before it, for
        they are asked for in turn: that one it was at work on.
        """
        if lost not in self.members:
            return False
        ray.kill(lost.actor)
        self.members.remove(lost)
        self.lost_at = time.monotonic()
        return True

    def result(self, ref: Any) -> Any:
        """Wait for what a predictor was asked, and see to it that it can come. Raises RayError."""
        stalled_s = 0.0
        while not ray.wait([ref], timeout=LOOK_EVERY_S)[0]:
            self.check()
            stalled_s += LOOK_EVERY_S
            if stalled_s >= STALL_S:
                self.make_room()
                stalled_s = 0.0
        return ray.get(ref)

    def make_room(self) -> None:
        """Drop one where those that are left after losses leave no core to decode with.

        Raises ClusterError where it is the last one.
        """
        if not self.members or self._has_room(len(self.members)):
            return
        if len(self.members) < 2:  # noqa: PLR2004 - the last one
            raise ClusterError("the cluster lost machines, and has no core left to decode with")
        self.drop(min(self.members, key=lambda member: (member.ready, member.load)))

    def close(self) -> None:
        while self.members:
            ray.kill(self.members.pop().actor)

    def _has_room(self, count: int) -> bool:
        """Tell whether so many predictors leave a core, of the machines that Ray knows of now."""
        return sum(node.cpus for node in nodes()) - count * self.shares.cpus >= 1

    def _fill_up(self) -> None:
        """Replace one that was lost, unless its machine went with it and there is no other room."""
        if len(self.members) == self.shares.predictors:
            return
        is_settled = time.monotonic() - self.lost_at > SETTLE_S
        if (is_settled or not self.members) and self._has_room(len(self.members) + 1):
            self.members.append(self._hire())

    def _hire(self) -> Member:
        predicting: Any = ray.remote(Predicting)
        actor = predicting.options(
            num_cpus=self.shares.cpus,
            num_gpus=self.shares.gpus,
            scheduling_strategy="SPREAD",
            max_restarts=0,  # what is lost is asked of another one, and of which is for us to say
        ).remote()
        return Member(actor, actor.load.remote(self.arguments, __version__, self.shares.cpus))

    def _welcome(self, *, timeout_s: float) -> None:
        """Note who is ready by now; with a timeout, wait for somebody."""
        starting = [member for member in self.members if not member.ready]
        if not starting:
            time.sleep(timeout_s)
            return
        awaited = 1 if timeout_s else len(starting)
        done, _ = ray.wait(
            [member.started for member in starting], num_returns=awaited, timeout=timeout_s
        )
        for member in starting:
            if member.started in done:
                self._greet(member)

    def _greet(self, member: Member) -> None:
        try:
            ray.get(member.started)
        except RayError as error:
            cause = told(error)
            if not isinstance(cause, LostWorkerError):
                raise cause from error
            self.deaths += 1
            if self.deaths == MOST_DEATHS:
                raise WorkerError(f"predictors die as they load the model: {cause}") from error
            self.drop(member)
        else:
            member.ready = True
            self.deaths = 0
