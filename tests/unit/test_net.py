# ruff: noqa: RUF001 - look-alike characters are what is tested
"""The guard against reaching what only we can reach: spellings of URLs, addresses, and name resolution."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from urllib.parse import urlsplit

import httpx2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.errors import InvalidRequest
from app.kit import lookup, net
from app.kit.net import AddressPolicy, AddressRefused, NameUnresolved, ParsedUrl, check_url, resolve

STRICT = AddressPolicy()
OPEN = AddressPolicy(allow_private=True)
RANGES = AddressPolicy(allow_cidrs=[ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd12::/16")])
GUARD_SECONDS = 60.0
"""Against hanging for ever; nothing is measured with it."""

GOOD = {
    "https://dashscope.aliyuncs.com/api/v1": ParsedUrl("https", "dashscope.aliyuncs.com", 443, "/api/v1"),
    "https://api.example.com": ParsedUrl("https", "api.example.com", 443, ""),
    "https://api.example.com/": ParsedUrl("https", "api.example.com", 443, "/"),
    "https://API.Example.com:8443/V1/": ParsedUrl("https", "api.example.com", 8443, "/V1/"),
    "HTTPS://a.b": ParsedUrl("https", "a.b", 443, ""),
    "https://a_b.c-d.e/x%20y": ParsedUrl("https", "a_b.c-d.e", 443, "/x%20y"),
    "https://8.8.8.8/v1": ParsedUrl("https", "8.8.8.8", 443, "/v1"),
    "https://[2606:4700:0::1111]:8443/v1": ParsedUrl("https", "2606:4700::1111", 8443, "/v1"),
    "https://xn--bcher-kva.example/": ParsedUrl("https", "xn--bcher-kva.example", 443, "/"),
    "https://a.example/v1/models/org/name:tag": ParsedUrl("https", "a.example", 443, "/v1/models/org/name:tag"),
    "https://127.0.0.1.example.com/": ParsedUrl("https", "127.0.0.1.example.com", 443, "/"),
}


@pytest.mark.parametrize("url", GOOD)
def test_an_ordinary_url_is_taken_apart(url: str) -> None:
    assert check_url(url, STRICT) == GOOD[url]


PRIVATE_HOSTS = """
127.0.0.1 127.0.0.2 127.255.255.255 127.1.2.3 0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.254
169.254.1.1 169.254.169.254 100.100.100.200 168.63.129.16 172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.192
192.168.0.1 192.168.255.255 198.18.0.1 198.19.255.255 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
[::] [::1] [0:0:0:0:0:0:0:1] [::ffff:127.0.0.1] [::ffff:7f00:1] [::FFFF:10.0.0.1] [::ffff:169.254.169.254]
[0:0:0:0:0:ffff:192.168.1.1] [::127.0.0.1] [::7f00:1] [64:ff9b::127.0.0.1] [64:ff9b::7f00:1] [64:ff9b::a00:1]
[64:ff9b::a9fe:a9fe] [64:ff9b:1::1] [64:ff9b:1:7f00:0:100::] [2001::1] [2001:0:7f00:1::] [2002:7f00:1::]
[2002:a00:1::1] [2002:a9fe:a9fe::] [2002:c0a8:101::1] [fc00::1] [fd00::1] [fd00:ec2::254] [fd20:ce::254] [fe80::1]
[febf::1] [fec0::1] [feff::1] [ff02::1] [ff0e::1] [100::1] [4000::1] [::ffff:0:127.0.0.1]
""".split()
OTHER_IPV4_FORMS = """
2130706433 0x7f000001 0X7F000001 017700000001 127.1 127.0.1 0177.0.0.1 0x7f.0.0.1 0x7f.1 127.0.0.01 0127.0.0.1
127.0.0.0x1 2852039166 0xa9fea9fe 169.16689662 0251.0376.0251.0376 1 0 010.0.0.1 00.0.0.0 256.256.256.256 1.2.3
8.8.2056 134744072 0x08080808 1.2.3.4.5 999999999999
""".split()
SPELLINGS = [
    # what the host is, told differently to different readers
    "https://u@a.example/",
    "https://u:p@a.example/",
    "https://@a.example/",
    "https://:@a.example/",
    "https://a.example@127.0.0.1/",
    "https://127.0.0.1\\@a.example/",
    "https://127.0.0.1\\a.example/",
    "https:\\\\127.0.0.1/",
    "https:/\\a.example/",
    "https://a.example\\/",
    "https://a.example#@127.0.0.1/",
    "https://a.example?@127.0.0.1/",
    "https://a.example;@127.0.0.1/",
    "https://a.example,127.0.0.1/",
    "https://a.example&@127.0.0.1#@b.example/",
    "https://a.example:80@127.0.0.1/",
    "https://a.example:443:80/",
    "https://[::1]@a.example/",
    "https://[a.example]/",
    "https://[::1/",
    "https://::1]/",
    "https://::1/",
    "https://[::1%25lo]/",
    "https://[fe80::1%25eth0]/",
    "https://[fe80::1%eth0]/",
    "https://[2606:4700::1111]x/",
    "https://[]/",
    "https://[:::1]/",
    "https://[1::2::3]/",
    # percent, dots, spaces, control characters
    "https://%61.example/",
    "https://127%2e0%2e0%2e1/",
    "https://a.example%00/",
    "https://a.example%2f@b/",
    "https://a.example./",
    "https://127.0.0.1./",
    "https://.a.example/",
    "https://a..example/",
    "https://./",
    "https:// a.example/",
    "https://a.example /",
    "https://a .example/",
    " https://a.example/",
    "https://a.example/ ",
    "https://a.example/\n",
    "https://a.example\r\nx: y/",
    "https://a.ex\tample/",
    "https://a.ex\x00ample/",
    "https://a.example/\x7f",
    "https://a.example/a b",
    # IDNA and other scripts
    "https://ａ.example/",
    "https://127。0。0。1/",
    "https://127．0．0．1/",
    "https://①②⑦.⓪.⓪.①/",
    "https://１２７.0.0.1/",
    "https://bücher.example/",
    "https://faß.example/",
    "https://a\u00ad.example/",
    "https://a\u200b.example/",
    "https://ⓔxample.com/",
    "https://℀.example/",
    "https://xn--a/",
    "https://xn--0/",
    "https://xn--a-ecp.ru--/",
    "https://ⅺ.example/",
    # ports
    "https://a.example:/",
    "https://a.example:0/",
    "https://a.example:65536/",
    "https://a.example:99999/",
    "https://a.example:-1/",
    "https://a.example:+443/",
    "https://a.example:0443/",
    "https://a.example:4 43/",
    "https://a.example:https/",
    "https://a.example:４４３/",
    # schemes
    "http://a.example/",
    "http://8.8.8.8/",
    "ftp://a.example/",
    "file:///etc/passwd",
    "gopher://a.example/",
    "unix:///run/x.sock",
    "javascript:alert(1)",
    "data:text/plain,x",
    "ws://a.example/",
    "//a.example/",
    "a.example/",
    "a.example:443",
    "https:a.example",
    "https:/a.example/",
    "https:///a.example/",
    "https://",
    "https:///",
    "https",
    "",
    "https+unix://a.example/",
    "url:https://a.example/",
    # query, fragment, dot segments
    "https://a.example/?",
    "https://a.example/v1?x=1",
    "https://a.example/#",
    "https://a.example/v1#x",
    "https://a.example/v1/../admin",
    "https://a.example/v1/..",
    "https://a.example/./v1",
    "https://a.example/v1/%2e%2e/admin",
    "https://a.example/v1/.%2E/admin",
    "https://a.example/%zz",
    "https://a.example/%",
    "https://a.example/v1\\x",
    "https://a.example/v1|x",
    "https://a.example/" + "a" * 3_000,
    # names
    "https://-a.example/",
    "https://a-.example/",
    "https://" + "a" * 64 + ".example/",
    "https://" + "a." * 130 + "example/",
    "https://a!b.example/",
    "https://a*b.example/",
    "https://$(id).example/",
]
REFUSED = [f"https://{host}/v1" for host in [*PRIVATE_HOSTS, *OTHER_IPV4_FORMS]] + SPELLINGS


def test_the_table_of_refusals_is_long() -> None:
    assert len(set(REFUSED)) == len(REFUSED) > 150


@pytest.mark.parametrize("url", REFUSED)
def test_a_url_that_could_lead_elsewhere_is_refused_with_the_one_text(url: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        check_url(url, STRICT, param="settings.base_url")
    refused = raised.value
    assert (refused.message, refused.code) == ("This address may not be used.", "address_not_allowed")
    assert (refused.param, refused.detail) == ("settings.base_url", None)
    assert refused.__cause__ is None


@pytest.mark.usefixtures("_only_localhost_exists")
@pytest.mark.parametrize("host", [*PRIVATE_HOSTS, *OTHER_IPV4_FORMS])
async def test_no_spelling_of_a_private_address_resolves(host: str) -> None:
    """Whatever getaddrinfo makes of it: the address is what is judged."""
    public = {
        "8.8.2056": "8.8.8.8",
        "134744072": "8.8.8.8",
        "0x08080808": "8.8.8.8",
        "0127.0.0.1": "87.0.0.1",
        "010.0.0.1": "8.0.0.1",
        "1.2.3": "1.2.0.3",
    }
    if host in public:
        assert await resolve(host, 443, STRICT, deadline_seconds=GUARD_SECONDS) == [public[host]]
        return
    with pytest.raises((AddressRefused, NameUnresolved)):
        await resolve(host.strip("[]"), 443, STRICT, deadline_seconds=GUARD_SECONDS)


@pytest.mark.parametrize("host", ["127.0.0.1", "10.2.3.4", "172.20.0.1", "192.168.1.1", "::1", "fd00::1"])
def test_demo_and_tests_may_use_private_addresses_without_tls(host: str) -> None:
    OPEN.check_address(host, 80, plain=True)
    OPEN.check_address(host, 443)
    with pytest.raises(AddressRefused):
        STRICT.check_address(host, 443)


@pytest.mark.parametrize("host", ["8.8.8.8", "2606:4700::1111", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8"])
def test_public_addresses_are_for_everybody_but_only_with_tls(host: str) -> None:
    for policy in (STRICT, OPEN, RANGES):
        policy.check_address(host, 443)
        with pytest.raises(AddressRefused):
            policy.check_address(host, 80, plain=True)


def test_the_operators_ranges_open_what_they_say_and_for_trusted_connections_only() -> None:
    for host in ("10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::a01:203", "fd12::1"):
        RANGES.check_address(host, 8000, plain=True)
        with pytest.raises(AddressRefused):
            RANGES.for_connection(trusted=False).check_address(host, 8000)
    for host in ("10.2.0.1", "127.0.0.1", "fd13::1"):
        with pytest.raises(AddressRefused):
            RANGES.check_address(host, 8000)
    assert RANGES.for_connection(trusted=True) is RANGES
    assert check_url("http://10.1.2.3:8000/v1", RANGES) == ParsedUrl("http", "10.1.2.3", 8000, "/v1")
    assert check_url("http://vllm.internal:8000/v1", RANGES).scheme == "http"
    with pytest.raises(AddressRefused):
        check_url("http://vllm.internal:8000/v1", RANGES.for_connection(trusted=False))


METADATA = "169.254.169.254 169.254.170.2 100.100.100.200 168.63.129.16 192.0.0.192 fd00:ec2::254 fd20:ce::254".split()


@pytest.mark.parametrize("host", [*METADATA, "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::"])
def test_metadata_is_refused_whatever_is_allowed(host: str) -> None:
    everything = [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]
    policy = AddressPolicy(allow_cidrs=everything, allow_private=True)
    with pytest.raises(AddressRefused):
        policy.check_address(host, 80)
    with pytest.raises(AddressRefused):
        policy.check_address(host, 80, exempt=(host, 80))


def test_our_own_listeners_are_refused_whatever_is_allowed() -> None:
    policy = AddressPolicy(allow_private=True, refused=frozenset({("127.0.0.1", 8080)}))
    for host in ("127.0.0.1", "::ffff:127.0.0.1"):
        with pytest.raises(AddressRefused):
            policy.check_address(host, 8080)
        with pytest.raises(AddressRefused):
            policy.check_address(host, 8080, exempt=("127.0.0.1", 8080))
    policy.check_address("127.0.0.1", 8081)
    policy.check_address("10.0.0.1", 8080)


@pytest.mark.parametrize("wildcard", ["0.0.0.0", "::"])
def test_a_listener_on_every_address_is_refused_on_every_address_of_this_host(wildcard: str) -> None:
    policy = AddressPolicy(allow_private=True, refused=frozenset({(wildcard, 8080)}))
    for host in ("127.0.0.1", "127.0.0.9"):
        with pytest.raises(AddressRefused):
            policy.check_address(host, 8080)
    policy.check_address("192.168.213.17", 8080)


@pytest.mark.parametrize("exempt", [("127.0.0.1", 9001), "127.0.0.1:9001"])
def test_an_exemption_is_for_one_address_and_one_port(exempt: net.Endpoint) -> None:
    STRICT.check_address("127.0.0.1", 9001, exempt, plain=True)
    STRICT.check_address("::ffff:127.0.0.1", 9001, exempt, plain=True)
    check_url("http://127.0.0.1:9001/v1", STRICT, exempt=exempt)
    for host, port in (("127.0.0.1", 9002), ("127.0.0.2", 9001), ("10.0.0.1", 9001)):
        with pytest.raises(AddressRefused):
            STRICT.check_address(host, port, exempt)
    STRICT.check_address("::1", 9001, "[::1]:9001")


@pytest.mark.parametrize("junk", ["", "a.example", "127.1", "fe80::1%lo", "1.2.3.4/8", "0x7f.0.0.1"])
def test_what_is_no_address_is_refused(junk: str) -> None:
    with pytest.raises(AddressRefused):
        OPEN.check_address(junk, 443)


async def test_every_address_of_a_name_must_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = ["8.8.8.8", "2606:4700::1111"]
    monkeypatch.setattr(lookup, "_look_up", lambda _: list(answers))
    assert await resolve("a.example", 443, STRICT, deadline_seconds=10) == answers
    answers.append("10.0.0.1")
    with pytest.raises(AddressRefused):
        await resolve("a.example", 443, STRICT, deadline_seconds=10)


async def test_names_resolve_by_the_system() -> None:
    found = await resolve("localhost", 80, OPEN, deadline_seconds=GUARD_SECONDS, plain=True)
    assert set(found) <= {"127.0.0.1", "::1"}
    assert len(found) == len(set(found))


@pytest.mark.usefixtures("_only_localhost_exists")
@pytest.mark.parametrize("name", ["no-such-host.invalid", "bücher.example", "a" * 300, "a..b", ""])
async def test_a_name_without_an_address_is_unresolved(name: str) -> None:
    with pytest.raises(NameUnresolved) as raised:
        await resolve(name, 443, OPEN, deadline_seconds=GUARD_SECONDS)
    assert name not in raised.value.message or not name


async def test_a_lookup_is_shared_by_those_who_wait_and_outlives_those_who_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    release = threading.Event()
    asked: list[str] = []

    def slow(host: str) -> list[str]:
        asked.append(host)
        release.wait(20)
        return ["8.8.8.8"]

    monkeypatch.setattr(lookup, "_look_up", slow)
    impatient = resolve("slow.example", 443, STRICT, deadline_seconds=0.05)
    patient = [asyncio.ensure_future(resolve("slow.example", 443, STRICT, deadline_seconds=20)) for _ in range(10)]
    with pytest.raises(TimeoutError):
        await impatient
    release.set()
    assert await asyncio.gather(*patient) == [["8.8.8.8"]] * 10
    assert asked == ["slow.example"]


async def test_many_slow_names_do_not_hold_up_each_other_beyond_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lookups beyond the threads wait for one of them, and are all answered."""
    lookups = lookup.Lookups(3)
    running = most = 0
    lock = threading.Lock()

    def count(host: str) -> list[str]:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.01)
        with lock:
            running -= 1
        return [host]

    monkeypatch.setattr(lookup, "_look_up", count)
    names = [f"host-{number}.example" for number in range(20)]
    assert await asyncio.gather(*map(lookups.find, names)) == [[name] for name in names]
    assert await asyncio.gather(*map(lookups.find, names)) == [[name] for name in names]
    assert most <= 3


URL_TEXT = st.one_of(
    st.text(max_size=60),
    st.builds(
        "{}://{}{}{}".format,
        st.sampled_from(["https", "http", "HTTPS", "ftp"]),
        st.one_of(
            st.text("abz019.-_:@[]%\\/#?&; xX　。", max_size=30),
            st.ip_addresses().map(lambda ip: f"[{ip}]" if ip.version == 6 else str(ip)),
            st.integers(0, 2**32 - 1).map(str),
            st.integers(0, 2**32 - 1).map(hex),
        ),
        st.sampled_from(["", ":443", ":80", ":0", ":", ":65536", ":8443"]),
        st.text("ab/.%2eE@#?\\ :", max_size=15),
    ),
)


@given(URL_TEXT)
@example("https://a.example:443/%2E")
@example("https://xn--a/")
def test_whatever_is_accepted_is_read_alike_by_every_reader(text: str) -> None:
    """The standard library's parser and the vendor client's agree with ours about scheme, host and port."""
    try:
        parsed = check_url(text, STRICT)
    except AddressRefused:
        return
    other, vendor = urlsplit(text), httpx2.URL(text)
    assert parsed.scheme == other.scheme == vendor.scheme == "https"
    assert other.username is other.password is None
    assert not other.query
    assert not other.fragment
    assert (other.port or 443) == (vendor.port or 443) == parsed.port
    assert parsed.path == other.path
    for host in (other.hostname, vendor.raw_host.decode("ascii").strip("[]")):
        assert host is not None
        assert _normal(host) == parsed.host
    assert parsed.host.isascii()
    assert parsed.host == parsed.host.lower().strip().rstrip(".")


@given(st.ip_addresses())
def test_an_address_is_judged_alike_in_each_of_its_forms(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    """Refusal does not depend on how the address is written or wrapped."""
    forms = [str(address)]
    if isinstance(address, ipaddress.IPv4Address):
        forms += [
            f"::ffff:{address}",
            f"64:ff9b::{address}",
            str(ipaddress.IPv6Address(0x2002 << 112 | int(address) << 80)),
        ]
    else:
        forms.append(address.exploded)
    assert len({_is_allowed(form) for form in forms}) == 1


@given(st.ip_addresses(v=4))
def test_no_address_that_python_calls_private_is_allowed(address: ipaddress.IPv4Address) -> None:
    """Our list is wider; what it leaves out on purpose is the documentation's own."""
    documentation = any(
        address in ipaddress.ip_network(network) for network in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")
    )
    if (address.is_private and not documentation) or address.is_multicast or address.is_reserved:
        assert not _is_allowed(str(address))


def _normal(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.lower()


def _is_allowed(host: str) -> bool:
    try:
        STRICT.check_address(host, 443)
    except AddressRefused:
        return False
    return True


def test_an_address_of_this_host_is_not_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """Public-looking as it may be: what listens behind it is ours, and trusts us."""
    own = ipaddress.ip_address("8.8.4.4")
    monkeypatch.setattr(net, "_is_ours", lambda address: address == own)
    with pytest.raises(AddressRefused):
        STRICT.check_address("8.8.4.4", 5432)
    STRICT.check_address("8.8.8.8", 443)


def test_this_hosts_addresses_are_recognised() -> None:
    assert net._is_ours(ipaddress.ip_address("127.0.0.1"))
    assert not net._is_ours(ipaddress.ip_address("8.8.8.8"))
    assert not net._is_ours(ipaddress.ip_address("2606:4700::1111"))
    assert socket.getaddrinfo("127.1", None)[0][4][0] == "127.0.0.1"
