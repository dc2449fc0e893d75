//! Servers on Tokio: axum by HTTP/1.1 and HTTP/2, and tonic.

use std::process::Command;

use anyhow::{Context, Result};
use descry_tests::compile;
use descry_tests::server::free_port;

use super::http::{hundred_streams, three_kinds};
use super::{Asked, Scenario, Server, play, said};

fn start(what: &str) -> Result<Server> {
    let port = free_port()?;
    let mut command = Command::new(compile::rust("servers")?);
    command.arg(what).arg(port.to_string());
    Server::listening(command, port)
}

const AXUM: Scenario = Scenario { name: "axum", start: |_| start("axum"), drive: three_kinds };

const AXUM_H2C: Scenario =
    Scenario { name: "axum by HTTP/2", start: |_| start("axum"), drive: hundred_streams };

/// The health service, asked by tonic's own client, which says how many calls ended with which code.
const TONIC: Scenario = Scenario {
    name: "tonic",
    start: |_| start("tonic"),
    drive: |server, _| {
        let mut client = Command::new(compile::rust("servers")?);
        client.args(["ask", &server.port.to_string(), "2000", "20"]);
        let text = said(&mut client)?;
        let rows = text.lines().map(|line| {
            let (code, count) = line.split_once(' ')?;
            let asked = Asked::new("grpc.health.v1.Health/Check", count.parse().ok()?);
            Some(asked.with("rpc.response.status_code", code))
        });
        rows.collect::<Option<_>>().with_context(|| format!("the client says {text:?}"))
    },
};

#[test]
fn axum() -> Result<()> {
    play(&AXUM)
}

#[test]
fn axum_by_http2_loses_no_stream() -> Result<()> {
    play(&AXUM_H2C)
}

#[test]
fn tonic() -> Result<()> {
    play(&TONIC)
}
