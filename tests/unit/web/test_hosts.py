from __future__ import annotations

import pytest

from comfy.errors import CrossSiteRefused, HostNotAllowed
from comfy.web.hosts import HostPolicy, OriginPolicy, own_names, same_place, split_host

HOST = "127.0.0.1:8199"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Name:8188", ("name", "8188")),
        ("name", ("name", None)),
        ("name.:80", ("name", "80")),
        ("[::1]:8188", ("::1", "8188")),
        ("[::1]", ("::1", None)),
    ],
)
def test_a_host_header_splits_into_name_and_port(header: str, expected: tuple[str, str | None]) -> None:
    assert split_host(header) == expected


@pytest.mark.parametrize(
    "host", ["127.0.0.1:1", "10.0.0.7", "[::1]:8188", "LOCALHOST:8188", "a.localhost", "box", "named.example:8188", None]
)
def test_hosts_that_are_answered(host: str | None) -> None:
    HostPolicy(["named.example"], own=["box"]).check(host)


@pytest.mark.parametrize("host", ["evil.com", "evil.com:8188", "localhost.evil.com", "127.0.0.1.evil.com", "", "box.evil"])
def test_foreign_hosts_are_refused_naming_the_setting(host: str) -> None:
    with pytest.raises(HostNotAllowed) as caught:
        HostPolicy(["named.example"], own=["box"]).check(host)
    assert caught.value.facts["setting"] == "--allowed-hosts"
    assert caught.value.type == "host_not_allowed"


def test_a_star_allows_any_host() -> None:
    HostPolicy(["*"], own=[]).check("evil.com")


def test_the_machines_own_names_are_lower_case_and_not_empty() -> None:
    assert own_names()
    assert all(name and name == name.lower() for name in own_names())


@pytest.mark.parametrize(
    ("host", "origin", "same"),
    [
        (HOST, "http://127.0.0.1:8199", True),
        (HOST, "http://127.0.0.1", True),
        ("127.0.0.1", "http://127.0.0.1:8199", True),
        ("[::1]:8188", "http://[::1]:8188", True),
        ("comfy.example", "https://Comfy.Example", True),
        (HOST, "http://127.0.0.1:9999", False),
        (HOST, "http://localhost:8199", False),
        (HOST, "http://evil.com", False),
        (HOST, "null", False),
        (HOST, "", False),
        (HOST, "http://127.0.0.1:abc", False),
        (HOST, "http://[::1", False),
        ("evil.com", "http://other.com", False),
        ("box", "ftp://box", False),
    ],
)
def test_an_origin_is_the_server_itself_or_it_is_not(host: str, origin: str, same: bool) -> None:
    assert same_place(host, origin) is same


NAVIGATION = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


@pytest.mark.parametrize(
    ("cors", "method", "headers", "passes"),
    [
        # programs: no such header at all
        (None, "POST", {}, True),
        (None, "GET", {}, True),
        # the front end itself
        (None, "POST", {"Origin": "http://127.0.0.1:8199", "Sec-Fetch-Site": "same-origin"}, True),
        (None, "GET", {"Sec-Fetch-Site": "none"}, True),
        # other sites
        (None, "POST", {"Origin": "http://evil.com"}, False),
        (None, "GET", {"Origin": "http://evil.com"}, False),
        (None, "POST", {"Origin": "null"}, False),
        (None, "POST", {"Sec-Fetch-Site": "cross-site"}, False),
        (None, "POST", {"Sec-Fetch-Site": "same-site"}, False),
        (None, "GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}, False),
        (None, "POST", {"Origin": "http://127.0.0.1:8199", "Sec-Fetch-Site": "cross-site"}, False),
        # a link to the server is followed, a form is not sent, a frame is not shown
        (None, "GET", {"Sec-Fetch-Site": "cross-site", **NAVIGATION}, True),
        (None, "POST", {"Sec-Fetch-Site": "cross-site", **NAVIGATION}, False),
        (None, "GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, False),
        # one named site
        ("http://friend.com", "POST", {"Origin": "http://friend.com", "Sec-Fetch-Site": "cross-site"}, True),
        ("http://friend.com/", "GET", {"Referer": "http://friend.com/page", "Sec-Fetch-Site": "cross-site"}, True),
        ("http://friend.com", "GET", {"Referer": "http://[", "Sec-Fetch-Site": "cross-site"}, False),
        ("http://friend.com", "POST", {"Referer": "http://friend.com/page", "Sec-Fetch-Site": "cross-site"}, False),
        ("http://friend.com", "POST", {"Origin": "http://evil.com"}, False),
        ("http://friend.com", "POST", {"Origin": "null"}, False),
        ("http://friend.com", "POST", {"Origin": "http://127.0.0.1:8199"}, True),
        # all sites
        ("*", "POST", {"Origin": "http://evil.com", "Sec-Fetch-Site": "cross-site"}, True),
        ("*", "POST", {"Origin": "null"}, True),
    ],
)
def test_which_pages_may_send_requests(cors: str | None, method: str, headers: dict[str, str], passes: bool) -> None:
    policy = OriginPolicy(cors)
    if passes:
        policy.check(method, {"Host": HOST, **headers})
    else:
        with pytest.raises(CrossSiteRefused):
            policy.check(method, {"Host": HOST, **headers})
