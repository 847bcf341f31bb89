"""Everything that the Python client offers, with the API's port and an echo server's address."""

import socket
import sys
import time

from toxiproxy import Toxiproxy
from toxiproxy.exceptions import InvalidToxic, NotFound, ProxyExists

port, upstream = int(sys.argv[1]), sys.argv[2]
server = Toxiproxy()
server.update_api_consumer("127.0.0.1", port)
assert server.running() and b'"version"' in server.version()


def echo(proxy, word=b"word"):
    host, port = proxy.listen.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=60) as stream:
        stream.sendall(word)
        got = b""
        while len(got) < len(word):
            more = stream.recv(100)
            if not more:
                return None
            got += more
        return got


def refused(kind, call):
    try:
        call()
    except kind:
        return
    raise AssertionError("expected " + kind.__name__)


proxy = server.create(name="cache", upstream=upstream)
assert proxy.enabled and echo(proxy) == b"word"
refused(ProxyExists, lambda: server.create(name="cache", upstream=upstream))

proxy.add_toxic(type="latency", attributes={"latency": 200, "jitter": 0})
started = time.monotonic()
assert echo(proxy) == b"word" and time.monotonic() - started >= 0.2
toxic = proxy.get_toxic("latency_downstream")
assert toxic.attributes == {"latency": 200, "jitter": 0} and toxic.toxicity == 1
refused(InvalidToxic, lambda: proxy.add_toxic(type="no_such_toxic"))
refused(ProxyExists, lambda: proxy.add_toxic(type="latency"))
proxy.destroy_toxic("latency_downstream")
assert proxy.toxics() == {}
refused(NotFound, lambda: proxy.destroy_toxic("latency_downstream"))

proxy.add_toxic(type="limit_data", name="cut", stream="downstream", attributes={"bytes": 2})
assert echo(proxy) is None
assert server.reset() and proxy.toxics() == {} and echo(proxy) == b"word"

with proxy.down():
    assert server.get_proxy("cache").enabled is False
    refused(ConnectionRefusedError, lambda: echo(proxy))
assert echo(proxy) == b"word"

made = server.populate([{"name": "one", "upstream": upstream, "listen": "127.0.0.1:0"},
                        {"name": "two", "upstream": upstream, "listen": "127.0.0.1:0", "enabled": False}])
assert [one.name for one in made] == ["one", "two"] and not made[1].enabled
assert sorted(server.proxies()) == ["cache", "one", "two"]
server.destroy_all()
assert server.proxies() == {} and server.get_proxy("cache") is None
print("done")
