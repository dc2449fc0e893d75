//! Servers of HTTP, and h2load, which logs each request that it made.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use descry_tests::server::{free_port, nginx_command};
use descry_tests::{compile, machine};

use super::{Asked, Scenario, Server, Took, play, said};

/// What h2load is to do.
struct Load<'a> {
    path: &'a str,
    options: &'a [&'a str],
    requests: usize,
    /// What the answers should be.
    status: u16,
}

impl Load<'_> {
    /// Runs h2load, and gives how long each request took (ms).
    fn run(&self, server: &Server, dir: &Path) -> Result<Vec<f64>> {
        let log = dir.join("h2load.log");
        // It adds to a log that is there.
        fs::remove_file(&log).ok();
        let mut command = Command::new(machine::tool("h2load")?);
        command.arg(format!("--requests={}", self.requests)).arg(format!("--log-file={}", log.display()));
        let scheme = if server.is_secure { "https" } else { "http" };
        command.args(self.options).arg(format!("{scheme}://127.0.0.1:{}{}", server.port, self.path));
        let text = said(&mut command)?;
        let log = fs::read_to_string(&log).with_context(|| format!("h2load left no log:\n{text}"))?;
        // Start (us), status, duration (us).
        let rows: Vec<Vec<&str>> = log.lines().map(|line| line.split('\t').collect()).collect();
        let status = self.status.to_string();
        ensure!(
            rows.len() == self.requests && rows.iter().all(|row| row.get(1) == Some(&&*status)),
            "h2load was not answered {} times with {status}:\n{text}",
            self.requests
        );
        let duration = |row: &Vec<&str>| Some(row.get(2)?.parse::<f64>().ok()? / 1e3);
        rows.iter().map(duration).collect::<Option<_>>().with_context(|| format!("an odd log:\n{log}"))
    }

    /// The same, as what the spans should be.
    fn asked(&self, method: &str, route: &str, server: &Server, dir: &Path) -> Result<Asked> {
        let took = Took::of(self.run(server, dir)?);
        let asked = Asked::new(format!("{method} {route}"), self.requests).taking(took);
        if server.is_secure {
            return Ok(asked.with("url.scheme", "https"));
        }
        Ok(asked.with("http.response.status_code", self.status))
    }
}

/// One client: the clock of a request runs from when h2load takes it up, which is long before it is sent while others are
/// served.
const KEPT_ALIVE: &[&str] = &["--h1", "--clients=1"];

/// What every server here answers, over HTTP/1.1.
pub(super) fn three_kinds(server: &Server, dir: &Path) -> Result<Vec<Asked>> {
    let load = |path, requests, status| Load { path, options: KEPT_ALIVE, requests, status };
    Ok(vec![
        load("/", 4000, 200).asked("GET", "/", server, dir)?,
        load("/items/1234", 4000, 200).asked("GET", "/items/{id}", server, dir)?,
        load("/missing", 800, 404).asked("GET", "/missing", server, dir)?,
    ])
}

/// Ten connections, each with up to a hundred requests open.
pub(super) fn hundred_streams(server: &Server, dir: &Path) -> Result<Vec<Asked>> {
    let options = &["--clients=10", "--max-concurrent-streams=100"];
    Ok(vec![
        Load { path: "/", options, requests: 10_000, status: 200 }.asked("GET", "/", server, dir)?,
        Load { path: "/missing", options, requests: 1000, status: 404 }
            .asked("GET", "/missing", server, dir)?,
    ])
}

/// Files that the file servers serve.
pub(super) fn site(dir: &Path) -> Result<()> {
    fs::create_dir(dir.join("items"))?;
    fs::write(dir.join("items/1234"), "an item\n")?;
    Ok(fs::write(dir.join("index.html"), "a small page\n")?)
}

fn start_nginx(dir: &Path, listen: &str) -> Result<Server> {
    site(dir)?;
    let port = free_port()?;
    Server::listening(nginx_command(dir, port, listen, "access_log off;")?, port)
}

pub(super) const NGINX: Scenario =
    Scenario { name: "nginx", start: |dir| start_nginx(dir, ""), drive: three_kinds };

pub(super) const NGINX_H2C: Scenario =
    Scenario { name: "nginx by HTTP/2", start: |dir| start_nginx(dir, "http2"), drive: hundred_streams };

/// A script of ours that takes the port as its argument.
fn start_script(interpreter: &str, script: &str) -> Result<Server> {
    let port = free_port()?;
    let mut command = Command::new(machine::tool(interpreter)?);
    command.arg(compile::script(script)).arg(port.to_string());
    Server::listening(command, port)
}

const NODE: Scenario =
    Scenario { name: "node", start: |_| start_script("node", "http_server.js"), drive: three_kinds };

/// A server of Python programs that is told module and address.
pub(super) fn start_python(module: &[&str], address: &str) -> Result<Server> {
    let port = free_port()?;
    let mut command = Command::new(machine::tool("python3")?);
    command.arg("-m").args(module).arg(address.replace("PORT", &port.to_string()));
    command.current_dir(compile::script("")).env("PYTHONDONTWRITEBYTECODE", "1").stderr(Stdio::null());
    Server::listening(command, port)
}

const UVICORN: Scenario = Scenario {
    name: "uvicorn",
    start: |_| {
        start_python(&["uvicorn", "http_asgi:answer", "--no-access-log", "--host=127.0.0.1"], "--port=PORT")
    },
    drive: three_kinds,
};

const GUNICORN: Scenario = Scenario {
    name: "gunicorn",
    start: |_| {
        let module =
            ["gunicorn", "http_flask:app", "--worker-class=gthread", "--threads=8", "--keep-alive=60"];
        start_python(&module, "--bind=127.0.0.1:PORT")
    },
    drive: three_kinds,
};

/// haproxy before nginx: it is a server to the one side and a client to the other.
const HAPROXY: Scenario = Scenario {
    name: "haproxy",
    start: |dir| start_haproxy(dir, ""),
    // It passes the header Host on, so nginx is asked for the same server. How long the client waited is of one of both.
    drive: |server, dir| {
        let asked = three_kinds(server, dir)?;
        Ok(asked.into_iter().map(|asked| Asked { count: 2 * asked.count, took: None, ..asked }).collect())
    },
};

/// haproxy before nginx; `listen` is more of its directive `bind`.
pub(super) fn start_haproxy(dir: &Path, listen: &str) -> Result<Server> {
    let mut behind = start_nginx(dir, "")?;
    let port = free_port()?;
    let config = format!(
        "defaults\n mode http\n timeout client 60s\n timeout server 60s\n timeout connect 5s\n\
         frontend front\n bind 127.0.0.1:{port} {listen}\n default_backend back\n\
         backend back\n server nginx 127.0.0.1:{}\n",
        behind.port
    );
    fs::write(dir.join("haproxy.cfg"), config)?;
    let mut command = Command::new(machine::tool("haproxy")?);
    command.arg("-db").arg("-f").arg(dir.join("haproxy.cfg"));
    let mut server = Server::listening(command, port)?;
    server.processes.append(&mut behind.processes);
    Ok(server)
}

const CADDY: Scenario = Scenario {
    name: "caddy",
    start: |dir| {
        site(dir)?;
        let port = free_port()?;
        let mut command = Command::new(machine::tool("caddy")?);
        command.args(["file-server", "--listen", &format!("127.0.0.1:{port}"), "--root"]).arg(dir);
        command.env("HOME", dir).stderr(Stdio::null());
        Server::listening(command, port)
    },
    drive: three_kinds,
};

fn start_go(_: &Path) -> Result<Server> {
    let program = compile::go("http_server")?;
    let port = free_port()?;
    let mut command = Command::new(program);
    command.arg(port.to_string());
    Server::listening(command, port)
}

const GO: Scenario = Scenario { name: "Go net/http", start: start_go, drive: three_kinds };

const GO_H2C: Scenario = Scenario { name: "Go net/http by HTTP/2", start: start_go, drive: hundred_streams };

#[test]
fn nginx() -> Result<()> {
    play(&NGINX)
}

#[test]
fn nginx_by_http2_loses_no_stream() -> Result<()> {
    play(&NGINX_H2C)
}

#[test]
fn node() -> Result<()> {
    play(&NODE)
}

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

#[test]
fn go() -> Result<()> {
    play(&GO)
}

#[test]
fn go_by_http2() -> Result<()> {
    play(&GO_H2C)
}
