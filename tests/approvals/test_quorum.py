"""Whose votes are needed: every requirement by distinct people, whatever they are called."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from approvals.model import Requirement
from approvals.quorum import Approver, approvals_of, concerns, people, unmet

DBA, SECURITY, ANYBODY = Requirement("a", ("dba",), 1), Requirement("b", ("security",), 2), Requirement("c")


def approver(*keys: str, groups: str = "") -> Approver:
    return Approver(frozenset(keys), frozenset(groups.split()))


def test_one_person_counts_towards_every_requirement_of_their_groups() -> None:
    both = approver("bob", groups="dba security")
    assert unmet([DBA, SECURITY, ANYBODY], [both]) == [SECURITY]
    assert unmet([DBA, SECURITY, ANYBODY], [both, approver("carol", groups="security")]) == []


def test_votes_that_share_a_name_are_one_person() -> None:
    votes = [approver("bob", "u1", groups="security"), approver("u1", "robert", groups="security")]
    assert len(people(votes)) == 1
    assert unmet([SECURITY], votes) == [SECURITY]


def test_a_third_vote_may_show_that_two_were_one_person() -> None:
    votes = [approver("bob"), approver("robert"), approver("bob", "robert")]
    assert len(people(votes)) == 1


def test_nothing_is_met_by_nobody() -> None:
    assert unmet([], []) != []
    assert unmet([Requirement("zero", (), 0)], []) != []
    assert unmet([], [approver("bob")]) == []


def test_a_requirement_without_groups_concerns_everybody() -> None:
    assert concerns(ANYBODY, [])
    assert not concerns(DBA, ["security"])


names = st.sets(st.sampled_from("abcdef"), min_size=1, max_size=3)
approvers = st.lists(st.builds(lambda keys: Approver(frozenset(keys), frozenset({"dba"})), names), max_size=6)


@given(approvers)
def test_people_never_share_a_name_and_no_name_is_lost(votes: list[Approver]) -> None:
    distinct = people(votes)
    for number, one in enumerate(distinct):
        assert all(one.keys.isdisjoint(other.keys) for other in distinct[number + 1 :])
    assert frozenset().union(*(each.keys for each in distinct)) == frozenset().union(*(each.keys for each in votes))


@given(approvers, st.integers(1, 4))
def test_a_quorum_is_never_met_by_fewer_people_than_it_names(votes: list[Approver], count: int) -> None:
    requirement = Requirement("r", ("dba",), count)
    assert (unmet([requirement], votes) == []) == (len(people(votes)) >= count)
    assert approvals_of(requirement, votes) <= len(votes)
