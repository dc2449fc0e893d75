//! Servers of HTTP over TLS: those that are served in plain, with a certificate.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Result;
use descry_tests::certificate::Certificate;
use descry_tests::machine;
use descry_tests::server::free_port;

use super::http::{site, start_haproxy, start_python, three_kinds};
use super::{Scenario, Server, play};

/// The paths of a server's key, certificate, and of both in one file; in its directory, as they have to last as long.
fn certificate(dir: &Path) -> Result<[String; 3]> {
    let made = Certificate::new()?;
    let names = [made.key(), made.chain(), made.chain_and_key()];
    let mut kept = [const { String::new() }; 3];
    for (from, to) in names.iter().zip(&mut kept) {
        let place = dir.join(from.file_name().unwrap_or_default());
        fs::copy(from, &place)?;
        *to = place.to_string_lossy().into_owned();
    }
    Ok(kept)
}

const UVICORN: Scenario = Scenario {
    name: "uvicorn with TLS",
    start: |dir| {
        let [key, chain, _] = certificate(dir)?;
        let (key, chain) = (format!("--ssl-keyfile={key}"), format!("--ssl-certfile={chain}"));
        let words = ["uvicorn", "http_asgi:answer", "--no-access-log", "--host=127.0.0.1", &key, &chain];
        Ok(start_python(&words, "--port=PORT")?.secure())
    },
    drive: three_kinds,
};

const GUNICORN: Scenario = Scenario {
    name: "gunicorn with TLS",
    start: |dir| {
        let [key, chain, _] = certificate(dir)?;
        let (key, chain) = (format!("--keyfile={key}"), format!("--certfile={chain}"));
        let module =
            ["gunicorn", "http_flask:app", "--worker-class=gthread", "--threads=8", "--keep-alive=60"];
        let words: Vec<&str> = module.into_iter().chain([&*key, &*chain]).collect();
        Ok(start_python(&words, "--bind=127.0.0.1:PORT")?.secure())
    },
    drive: three_kinds,
};

/// Behind it is nginx, in plain.
const HAPROXY: Scenario = Scenario {
    name: "haproxy with TLS",
    start: |dir| {
        let [_, _, both] = certificate(dir)?;
        Ok(start_haproxy(dir, &format!("ssl crt {both}"))?.secure())
    },
    // How long the client waited is of the spans with TLS alone, whose scheme tells them apart.
    drive: three_kinds,
};

/// A Go program without symbols.
const CADDY: Scenario = Scenario {
    name: "caddy with TLS",
    start: |dir| {
        site(dir)?;
        let [key, chain, _] = certificate(dir)?;
        let port = free_port()?;
        let config = format!(
            "{{\n auto_https off\n admin off\n}}\n\
             https://127.0.0.1:{port} {{\n tls {chain} {key}\n root * {}\n file_server\n}}\n",
            dir.display()
        );
        fs::write(dir.join("Caddyfile"), config)?;
        let mut command = Command::new(machine::tool("caddy")?);
        command.args(["run", "--adapter", "caddyfile", "--config"]).arg(dir.join("Caddyfile"));
        command.env("HOME", dir).stderr(Stdio::null());
        Ok(Server::listening(command, port)?.secure())
    },
    drive: three_kinds,
};

#[test]
fn uvicorn() -> Result<()> {
    play(&UVICORN)
}

#[test]
fn gunicorn() -> Result<()> {
    play(&GUNICORN)
}

#[test]
fn haproxy() -> Result<()> {
    play(&HAPROXY)
}

#[test]
fn caddy() -> Result<()> {
    play(&CADDY)
}
