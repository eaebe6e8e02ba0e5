from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from core.access.addresses import caller_behind, hops_of, read_address, read_network
from core.access.ip_rules import Rule, Verdict, judge


def rules(*texts: str) -> list[Rule]:
    """Rules of the internal API, as `deny 10.0.0.0/8`."""
    pairs = [text.split() for text in texts]
    return [
        Rule(number, read_network(network), action == "deny", "internal")
        for number, (action, network) in enumerate(pairs, 1)
    ]


@pytest.mark.parametrize(
    ("written", "address", "allowed"),
    [
        ((), "203.0.113.9", True),
        (("deny 10.0.0.0/8",), "10.1.2.3", False),
        (("deny 10.0.0.0/8",), "11.1.2.3", True),
        (("allow 10.0.0.0/8",), "10.1.2.3", True),
        (("allow 10.0.0.0/8",), "11.1.2.3", False),
        (("allow 10.0.0.0/8", "deny 10.0.0.7"), "10.0.0.7", False),
        (("deny 10.0.0.7", "allow 10.0.0.0/8"), "10.0.0.8", True),
        (("deny 10.0.0.0/8",), "::ffff:10.1.2.3", False),
        (("deny ::ffff:10.0.0.0/104",), "10.1.2.3", False),
        (("allow 10.0.0.0/8",), "2001:db8::1", False),
        (("allow 2001:db8::/32",), "2001:db8:1::1", True),
        (("deny 2001:db8::/32",), "2001:db8:1::1%eth0", False),
        (("deny ::/0",), "10.0.0.1", True),
        (("deny 0.0.0.0/0",), "no address", False),
    ],
)
def test_deny_goes_before_allow(written: tuple[str, ...], address: str, allowed: bool) -> None:
    assert judge(rules(*written), "internal", read_address(address)).allowed is allowed
    assert judge(rules(*written), "external", read_address(address)) == Verdict(True)


def test_a_verdict_names_its_rule() -> None:
    written = rules("allow 10.0.0.0/8", "deny 10.0.0.7")
    assert judge(written, "internal", read_address("10.0.0.7")) == Verdict(False, 2)
    assert judge(written, "internal", read_address("10.0.0.8")) == Verdict(True, 1)
    assert judge(written, "internal", read_address("192.0.2.1")) == Verdict(False, None)


TRUSTED = [read_network("192.0.2.0/24"), read_network("::1")]


@pytest.mark.parametrize(
    ("peer", "hops", "caller"),
    [
        ("192.0.2.1", ["203.0.113.5"], "203.0.113.5"),
        ("192.0.2.1", ["10.0.0.1", "203.0.113.5"], "203.0.113.5"),  # what the client made up stands before its own
        ("192.0.2.1", ["203.0.113.5", "192.0.2.2"], "203.0.113.5"),
        ("192.0.2.1", ["192.0.2.3", "192.0.2.2"], "192.0.2.3"),
        ("203.0.113.5", ["10.0.0.1"], "203.0.113.5"),  # no proxy of ours
        ("::ffff:192.0.2.1", ["::ffff:203.0.113.5"], "203.0.113.5"),
        ("192.0.2.1", [], "192.0.2.1"),
        ("192.0.2.1", ["10.0.0.1", "unknown"], "192.0.2.1"),
        ("192.0.2.1", ["10.0.0.1", "<script>", "192.0.2.2"], "192.0.2.2"),
        ("192.0.2.1", ["192.0.2.9"] * 10_000, "192.0.2.9"),
    ],
)
def test_the_caller_is_the_nearest_that_is_no_trusted_proxy(peer: str, hops: list[str], caller: str) -> None:
    assert caller_behind(peer, hops, TRUSTED) == caller


@pytest.mark.parametrize(
    ("header", "values", "hops"),
    [
        ("x-forwarded-for", ["10.0.0.1, 10.0.0.2", "10.0.0.3"], ["10.0.0.1", "10.0.0.2", "10.0.0.3"]),
        ("x-forwarded-for", ["10.0.0.1:5000, [2001:db8::1]:80, 2001:db8::2"],
         ["10.0.0.1", "2001:db8::1", "2001:db8::2"]),
        ("forwarded", ['for=10.0.0.1;proto=https, For="[2001:db8::1]:80";by=x'], ["10.0.0.1", "2001:db8::1"]),
        ("forwarded", ["proto=https, for=_hidden"], ["", "_hidden"]),
        ("x-forwarded-for", [""], [""]),
    ],
)  # fmt: skip
def test_hops_are_read(header: str, values: list[str], hops: list[str]) -> None:
    assert hops_of(header, values) == hops


def test_a_mapped_network_is_that_of_ipv4() -> None:
    assert read_network("::ffff:10.0.0.0/104") == IPv4Network("10.0.0.0/8")
