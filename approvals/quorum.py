"""Whose votes are still needed, and whether they are all there. Pure.

Every requirement asks for so many distinct people of its groups, and all must be met. One person's approval counts
towards each requirement whose group they are in; a person has one vote a revision, under whatever name.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from approvals.model import Requirement


@dataclass(frozen=True, slots=True)
class Approver:
    """A vote that counts: all names of the person as keys, and the groups they were in when they voted."""

    keys: frozenset[str]
    groups: frozenset[str]


def concerns(requirement: Requirement, groups: Collection[str]) -> bool:
    """Whether somebody of these groups is asked by it."""
    return not requirement.groups or not set(requirement.groups).isdisjoint(groups)


def people(approvers: Sequence[Approver]) -> list[Approver]:
    """The distinct ones. Two votes that share a name are one person's, whenever the link became known."""
    distinct: list[Approver] = []
    for approver in approvers:
        same = [other for other in distinct if other.keys & approver.keys]
        merged = Approver(
            approver.keys.union(*(other.keys for other in same)),
            approver.groups.union(*(other.groups for other in same)),
        )
        distinct = [other for other in distinct if other not in same] + [merged]
    return distinct


def approvals_of(requirement: Requirement, approvers: Sequence[Approver]) -> int:
    """How many people have met it so far."""
    return sum(1 for approver in people(approvers) if concerns(requirement, approver.groups))


def unmet(requirements: Sequence[Requirement], approvers: Sequence[Approver]) -> list[Requirement]:
    """Those that still need votes. Nothing is met by nobody: without any requirement one approval is needed."""
    wanted = requirements or (Requirement(""),)
    return [each for each in wanted if approvals_of(each, approvers) < max(each.count, 1)]
