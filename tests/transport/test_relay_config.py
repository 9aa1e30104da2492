"""The relay's settings and certificates: what can be used, and what is said of what cannot."""

import subprocess
from pathlib import Path

import pytest
from tidings.transport import SecretKey
from tidings.transport.relay import certificates
from tidings.transport.relay.access import AllowList, DenyList, Everyone, HttpAccess, SharedToken
from tidings.transport.relay.certificates import BadCertificate, Certificates
from tidings.transport.relay.config import BadConfig, load
from tidings.transport.relay.server import RateLimit

ID = SecretKey(bytes(32)).public


def loaded(tmp_path, text):
    path = tmp_path / "relay.toml"
    path.write_text(text)
    return load(path)


def test_a_whole_file(tmp_path):
    config = loaded(
        tmp_path,
        f"""
        http_bind_addr = "127.0.0.1:0"
        access = {{allowlist = ["{ID}"]}}
        metrics_bind_addr = "127.0.0.1:0"
        [tls]
        https_bind_addr = "127.0.0.1:0"
        cert_dir = "/etc/relay"
        [limits.client.rx]
        bytes_per_second = 1000
        max_burst_bytes = 2000
        """,
    )
    assert config.rate_limit() == RateLimit(1000, 2000)
    assert config.admission() == AllowList(frozenset([ID]))
    assert str(config.tls.certificate) == "/etc/relay/default.crt"


@pytest.mark.parametrize(
    ("access", "kind"),
    [
        ('"everyone"', Everyone),
        (f'{{denylist = ["{ID.base32()}"]}}', DenyList),
        ('{shared_token = ["a"]}', SharedToken),
        ('{http = {url = "https://example.com/", bearer_token = "x"}}', HttpAccess),
    ],
)
def test_access(tmp_path, access, kind):
    assert isinstance(loaded(tmp_path, f"access = {access}").admission(), kind)
    assert loaded(tmp_path, f"access = {access}").rate_limit() is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("access = 'nobody'", "access"),
        ("access = {allowlist = ['xyz']}", "public key"),
        ("access = {allowlist = [], denylist = []}", "one of"),
        ("access = {shared_token = ['']}", "not empty"),
        ("access = {http = {url = 'file:///etc/passwd'}}", "http"),
        ("http_bind_addr = 'localhost'", "address"),
        ("http_bind_adr = '[::]:80'", "http_bind_adr"),
        ("[limits.client.rx]\nbytes_per_second = 0", "rate limit"),
        ("[limits.client.rx]\nbytes_per_second = 'many'", "limits.client.rx.bytes_per_second"),
        ("[tls]\ncert_mode = 'LetsEncrypt'", "cert_mode"),
        ("no toml", "TOML"),
    ],
)
def test_what_cannot_be_used_is_told(tmp_path, text, said):
    with pytest.raises(BadConfig, match=said):
        loaded(tmp_path, text)


def test_the_file_of_the_page(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "relay.md").read_text()
    config = loaded(tmp_path, page.partition("```toml")[2].partition("```")[0])
    assert config.admission() == AllowList(frozenset([ID]))
    assert config.rate_limit() == RateLimit(1_000_000, 4_000_000)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(BadConfig, match="cannot be read"):
        load(tmp_path / "nothing")


def make_certificate(folder, name):
    call = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    call += ["-keyout", folder / f"{name}.key", "-out", folder / f"{name}.crt", "-days", "2", "-subj", f"/CN={name}"]
    subprocess.run(call, check=True, capture_output=True)
    return folder / f"{name}.crt", folder / f"{name}.key"


def test_renewed_certificates_are_taken_up(tmp_path, monkeypatch):
    certificate, key = make_certificate(tmp_path, "one")
    used = Certificates(certificate, key)
    assert not used.look()
    stamps = iter([(1,), (2,), (2,), (3,)])
    monkeypatch.setattr(certificates.Certificates, "_stamp", lambda self: next(stamps))
    certificate.write_text("no certificate")
    with pytest.raises(BadCertificate, match="no certificate to serve with"):
        used.look()
    for name, file in zip(("two.crt", "two.key"), make_certificate(tmp_path, "two"), strict=True):
        assert file.name == name
        (tmp_path / name.replace("two", "one")).write_bytes(file.read_bytes())
    assert used.look()
    assert not used.look()
    key.unlink()
    with pytest.raises(BadCertificate):
        used.look()


def test_a_key_of_another_certificate(tmp_path):
    certificate, _ = make_certificate(tmp_path, "one")
    _, key = make_certificate(tmp_path, "two")
    with pytest.raises(BadCertificate):
        Certificates(certificate, key)
