"""``tidings relay`` as those who run one use it."""

import asyncio
import ssl
import subprocess
from urllib.request import urlopen

import pytest
from program import run, running
from tidings.transport import Endpoint, IpAddr, RelayConfig, RelayUrl, SecretKey
from tidings.transport.relay import RelayClient


@pytest.fixture
def config(tmp_path):
    call = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    call += ["-keyout", "relay.key", "-out", "relay.crt", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*call, "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True, cwd=tmp_path)
    path = tmp_path / "relay.toml"
    path.write_text(
        f"""
        http_bind_addr = "127.0.0.1:0"
        metrics_bind_addr = "127.0.0.1:0"
        access = {{shared_token = ["let me in"]}}
        enable_quic_addr_discovery = true
        [tls]
        https_bind_addr = "127.0.0.1:0"
        quic_bind_addr = "127.0.0.1:0"
        manual_cert_path = "{tmp_path}/relay.crt"
        manual_key_path = "{tmp_path}/relay.key"
        """
    )
    return path


async def test_a_relay_with_tls_tokens_and_metrics(config, tmp_path):
    async with running(tmp_path / "unused", "--json", "relay", "--config", config) as relay:
        discovery = IpAddr.parse((await relay.hear("discovery"))["addr"]).port
        plain = (await relay.hear("listening"))["addr"]
        secure = (await relay.hear("listening"))["addr"].rpartition(":")[2]
        metrics = (await relay.hear("metrics"))["addr"]
        heard = asyncio.Queue()
        a, b = SecretKey.generate(), SecretKey.generate()
        trusting = ssl.create_default_context(cafile=str(tmp_path / "relay.crt"))

        def client(url, secret, **options):
            return RelayClient(RelayUrl(url), secret, on_datagrams=lambda *sent: heard.put_nowait(sent), **options)

        one = client(f"https://localhost:{secure}/", a, token="let me in", tls=trusting)
        other = client(f"http://{plain}/", b, token="let me in")
        suspicious = client(f"https://localhost:{secure}/", a, token="let me in")
        stranger = client(f"http://{plain}/", SecretKey.generate(), token="open up")
        try:
            assert await one.connected(10) and await other.connected(10)
            one.send(b.public, [b"hello"])
            assert await asyncio.wait_for(heard.get(), 10) == (a.public, [b"hello"])
            assert not await suspicious.connected(0.5) and "certificate" in suspicious.status.problem
            assert not await stranger.connected(0.5) and "not for this endpoint" in stranger.status.problem
            text = await asyncio.to_thread(lambda: urlopen(f"http://{metrics}/metrics").read().decode())
            assert "relayserver_send_packets_sent_total 1.0" in text and "relayserver_clients 2.0" in text
            told = RelayConfig(RelayUrl(f"https://localhost:{secure}/"), "let me in", discovery)
            async with Endpoint.bind(bind=["127.0.0.1:0"], relays=[told], tls=trusting) as endpoint:
                report = await endpoint.report()
                assert report.udp_v4 and list(report.seen) == endpoint.bound() and not report.problems
            assert await relay.interrupt() == 0
            async with asyncio.timeout(10):
                while one.is_connected or other.is_connected:
                    await asyncio.sleep(0.01)
        finally:
            for each in (one, other, suspicious, stranger):
                await each.aclose()
        assert "let me in" not in relay.err


async def test_a_wrong_file_is_told(tmp_path):
    path = tmp_path / "relay.toml"
    path.write_text("access = 'nobody'")
    assert "access" in (await run(None, "relay", "--config", path)).refused()
    assert "cannot listen" in (await run(None, "relay", "--listen", "192.0.2.1:9")).refused()


async def test_a_plain_relay_tells_addresses_too(tmp_path):
    async with running(tmp_path / "unused", "--json", "relay", "--listen", "127.0.0.1:0") as relay:
        assert IpAddr.parse((await relay.hear("discovery"))["addr"]).port
        assert await relay.interrupt() == 0
