//! What it costs servers to have their requests watched, and what watching costs.
//!
//! Throughput is compared with that of the bare runs before and after it (A B A), so that a machine that changes its pace
//! changes it for both. Client, server and descry share the machine's processors: what descry uses is missing to the
//! others. How much that is shows in runs beside a program that uses as much of one and watches nobody.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{User, chown};

use super::burner::Burner;
use super::proc::{self, ProgramTime};
use super::spread::{print_table, show};
use super::unwind::Statistics;
use crate::command::{Running, need_root, output, quiet, step, which};
use crate::install::{self, TESTS};
use crate::products;

/// `BPF_PROG_TYPE_TRACING` in `include/uapi/linux/bpf.h`: the programs on messages.
const TRACING: u32 = 26;
/// Until a server listens or descry measures, and for the end of either.
const PATIENCE: Duration = Duration::from_secs(60);
/// descry is done with its start (the kernel verifies its programs in its time) when it takes next to none of the
/// system's CPU time in this time.
const SETTLE: Duration = Duration::from_millis(500);

/// The options of `bench requests`.
#[derive(clap::Args)]
pub struct Args {
    /// Bare and watched runs of each load.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// Seconds of one run, about.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Only these; by default all.
    #[arg(long, value_name = "LOAD", value_delimiter = ',')]
    only: Vec<Load>,
    /// Watch the whole machine, and so both ends of each connection.
    #[arg(long)]
    everything: bool,
}

/// A client and its server.
#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum Load {
    /// `redis-benchmark -t set`, 50 connections.
    Redis,
    /// `wrk` on nginx with one worker, 8 connections.
    Nginx,
    /// `pgbench -S`, 4 connections.
    Postgres,
    /// 10,000 requests a second to nginx by h2load.
    TenThousand,
    /// 20,000 requests a second.
    TwentyThousand,
    /// As many as h2load makes on 10,000 connections that stay open.
    Connections,
}

impl Load {
    const ALL: [Self; 6] = [
        Self::Redis,
        Self::Nginx,
        Self::Postgres,
        Self::TenThousand,
        Self::TwentyThousand,
        Self::Connections,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis-benchmark SET",
            Self::Nginx => "wrk on nginx",
            Self::Postgres => "pgbench -S",
            Self::TenThousand => "10,000/s on nginx",
            Self::TwentyThousand => "20,000/s on nginx",
            Self::Connections => "10,000 connections",
        }
    }

    /// The server's command line.
    fn server(self, dir: &Path, port: u16) -> Result<Command> {
        // Servers that run as other users enter it.
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
        match self {
            Self::Redis => {
                let mut command = Command::new(tool("redis-server")?);
                command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"]);
                command.arg(dir).stdout(Stdio::null());
                Ok(command)
            }
            Self::Postgres => postgres(dir, port),
            Self::Nginx | Self::TenThousand | Self::TwentyThousand | Self::Connections => {
                let root = dir.display();
                let config = format!(
                    "daemon off; master_process off; pid {root}/pid; error_log {root}/error.log;\n\
                     events {{ worker_connections 12000; }}\n\
                     http {{ access_log off; keepalive_requests 100000000;\n\
                     server {{ listen 127.0.0.1:{port}; root {root}; }} }}\n"
                );
                fs::write(dir.join("nginx.conf"), config)?;
                fs::write(dir.join("index.html"), "a small page\n")?;
                let mut command = Command::new(tool("nginx")?);
                command.arg("-p").arg(dir).arg("-c").arg(dir.join("nginx.conf"));
                Ok(command)
            }
        }
    }

    /// What it takes before the first run.
    fn prepare(self, port: u16) -> Result<()> {
        if self == Self::Postgres {
            let until = Instant::now() + PATIENCE;
            while output(pgbench(port)?.args(["-i", "-q"]).stderr(Stdio::null())).is_err() {
                if Instant::now() > until {
                    bail!("pgbench cannot fill its tables");
                }
                sleep(Duration::from_millis(200));
            }
        }
        Ok(())
    }

    /// Runs the client; requests a second, by its own word.
    fn requests(self, port: u16, seconds: u32) -> Result<f64> {
        let url = format!("http://127.0.0.1:{port}/");
        match self {
            Self::Redis => {
                let mut command = Command::new(tool("redis-benchmark")?);
                // Some 50,000 a second here.
                let number = (50_000 * seconds).to_string();
                command.args(["-p", &port.to_string(), "-t", "set", "-c", "50", "--csv", "-n", &number]);
                number_in(&output(&mut command)?, "\"SET\",\"")
            }
            Self::Nginx => {
                let mut command = Command::new(tool("wrk")?);
                command.args(["-t1", "-c8", &format!("-d{seconds}s"), &url]);
                number_in(&output(&mut command)?, "Requests/sec:")
            }
            Self::Postgres => {
                let mut command = pgbench(port)?;
                command.args(["-n", "-S", "-c", "4", "-T", &seconds.to_string()]);
                number_in(&output(command.stderr(Stdio::null()))?, "tps =")
            }
            Self::TenThousand | Self::TwentyThousand => {
                let (clients, each) = if self == Self::TenThousand { (10, 1000) } else { (10, 2000) };
                let mut command = Command::new(tool("h2load")?);
                command.args(["--h1", &format!("--clients={clients}"), &format!("--rps={each}")]);
                command.arg(format!("--requests={}", clients * each * seconds)).arg(url);
                number_in(&output(&mut command)?, "s, ")
            }
            Self::Connections => {
                let mut command = Command::new(tool("h2load")?);
                // Some 30,000 a second here.
                command.args(["--h1", "--clients=10000", &format!("--requests={}", 30_000 * seconds)]);
                number_in(&output(command.arg(url))?, "s, ")
            }
        }
    }
}

fn tool(name: &str) -> Result<PathBuf> {
    which(name).with_context(|| format!("{name} is not installed"))
}

/// PostgreSQL with a new database, as its own user: it refuses to run as root.
fn postgres(dir: &Path, port: u16) -> Result<Command> {
    const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";
    let user = User::from_name("postgres")?.context("there is no user postgres")?;
    chown(dir, Some(user.uid), Some(user.gid))?;
    let as_user = |program: &str| -> Result<Command> {
        let mut command = Command::new(tool("setpriv")?);
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
        command.arg(format!("{PROGRAMS}/{program}")).arg("-D").arg(dir.join("data")).current_dir(dir);
        Ok(command)
    };
    quiet(as_user("initdb")?.args(["--no-sync", "--auth=trust", "--username=postgres"]))?;
    let mut command = as_user("postgres")?;
    command.arg("-k").arg(dir).args(["-c", &format!("port={port}"), "-c", "listen_addresses=127.0.0.1"]);
    command.args(["-c", "fsync=off", "-c", "autovacuum=off"]);
    Ok(command)
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn pgbench(port: u16) -> Result<Command> {
    let mut command = Command::new(tool("pgbench")?);
    command.args(["-h", "127.0.0.1", "-U", "postgres", "-p", &port.to_string()]);
    command.env("PGDATABASE", "postgres");
    Ok(command)
}

/// The number behind some words.
fn number_in(text: &str, words: &str) -> Result<f64> {
    let behind = text.split_once(words).map(|(_, behind)| behind.trim_start());
    let end = |text: &str| text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number = behind.and_then(|behind| behind.get(..end(behind))?.parse().ok());
    number.with_context(|| format!("no number behind {words:?} in: {text}"))
}

/// What becomes of the requests that descry sees.
#[derive(Clone, Copy, PartialEq)]
enum Told {
    Spans,
    Metrics,
}

/// A run that descry watched.
struct Watched {
    /// Requests a second.
    rate: f64,
    /// What it lost.
    lost: String,
    /// descry's own CPU time in the run, as a part of one processor.
    cpu: f64,
    /// The same a request (us).
    cpu_each: f64,
    /// Its memory at most (bytes).
    peak_rss: u64,
    /// What the kernel counts of its programs; nothing unless that is switched on.
    programs: ProgramTime,
}

/// Measures with all loads and prints a table.
pub fn run(args: &Args) -> Result<()> {
    need_root("to watch sockets")?;
    install::ensure(TESTS, "the servers and their clients")?;
    // Clients and servers with many connections inherit it.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let descry = products::descry()?;
    let heading = [
        "load",
        "requests/s bare",
        "spans / bare",
        "as busy / bare",
        "metrics / bare",
        "descry's CPU",
        "of metrics",
        "us a request",
        "peak MB",
        "lost",
        "ns a message in the kernel",
        "of metrics",
    ];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    let wanted = |load: &Load| args.only.is_empty() || args.only.contains(load);
    for load in Load::ALL.into_iter().filter(wanted) {
        step(format!("{}: {} pairs of {} s", load.name(), args.pairs, args.seconds));
        rows.push(measure(load, args, &descry)?);
    }
    println!("\nmedian (least..greatest) of the pairs; bare: the mean of the runs before and after\n");
    print_table(&rows);
    println!(
        "\nSpans: every request a span, encoded as OTLP. Metrics: every request in the sums, none a span (always_off)."
    );
    println!(
        "As busy: beside a thread that uses as much of a processor as descry did with spans, and watches nobody."
    );
    println!("The last columns are the kernel's own account of descry's programs, in runs of their own.");
    Ok(())
}

fn measure(load: Load, args: &Args, descry: &Path) -> Result<Vec<String>> {
    let dir = tempfile::tempdir()?;
    let port = free_port()?;
    let mut server = start(load.server(dir.path(), port)?)?;
    let until = Instant::now() + PATIENCE;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        server.must_run()?;
        if Instant::now() > until {
            bail!("{} does not listen", load.name());
        }
        sleep(Duration::from_millis(20));
    }
    load.prepare(port)?;
    // The first run is not like the others: caches and tables are cold.
    load.requests(port, 1)?;
    let (mut watched, mut beside, mut counted) = (Vec::new(), Vec::new(), Vec::new());
    // The machine's speed changes by the minute: there is a bare run before and after each of the others.
    let bare_run = || load.requests(port, args.seconds);
    let mut bare = vec![bare_run()?];
    for _ in 0..args.pairs {
        let run = watch(load, args, Told::Spans, descry, server.pid(), port)?;
        let cpu = run.cpu;
        watched.push(run);
        bare.push(bare_run()?);
        counted.push(watch(load, args, Told::Metrics, descry, server.pid(), port)?);
        bare.push(bare_run()?);
        let burner = Burner::start(cpu);
        beside.push(bare_run()?);
        drop(burner);
        bare.push(bare_run()?);
    }
    let account = |told| -> Result<String> {
        let _statistics = Statistics::enable()?;
        let account = watch(load, args, told, descry, server.pid(), port)?.programs;
        Ok(format!("{:.0} ({} runs)", account.nanos as f64 / account.runs.max(1) as f64, account.runs))
    };
    let accounts = [account(Told::Spans)?, account(Told::Metrics)?];
    if load == Load::Postgres {
        // So that it gives back its shared memory.
        server.interrupt(PATIENCE)?;
    }
    let each = |figure: fn(&Watched) -> f64, decimals| show(watched.iter().map(figure), decimals);
    // Of each pair the runs that begin with this one, and the two bare ones around it.
    let kept = |with: &[f64], first: usize| {
        let around = bare.windows(2).skip(first).step_by(3);
        let around = around.map(|around| around.iter().sum::<f64>() / around.len() as f64);
        show(around.zip(with).map(|(bare, with)| with / bare), 3)
    };
    let rates = |runs: &[Watched]| runs.iter().map(|run| run.rate).collect::<Vec<f64>>();
    let mut lost: Vec<String> = watched.iter().chain(&counted).map(|run| run.lost.clone()).collect();
    lost.sort();
    lost.dedup();
    Ok([
        load.name().to_owned(),
        show(bare.iter().copied(), 0),
        kept(&rates(&watched), 0),
        kept(&beside, 2),
        kept(&rates(&counted), 1),
        each(|run| run.cpu, 2),
        show(counted.iter().map(|run| run.cpu), 3),
        each(|run| run.cpu_each, 1),
        each(|run| run.peak_rss as f64 / 1e6, 0),
        lost.join(" "),
    ]
    .into_iter()
    .chain(accounts)
    .collect())
}

fn start(command: Command) -> Result<Running> {
    let (current, arguments) = (command.get_current_dir(), command.get_args());
    Running::start(Path::new(command.get_program()), arguments, |started| {
        started.stdout(Stdio::null()).stderr(Stdio::null());
        if let Some(current) = current {
            started.current_dir(current);
        }
    })
}

/// Runs the client while descry watches the server.
fn watch(load: Load, args: &Args, told: Told, descry: &Path, server: u32, port: u16) -> Result<Watched> {
    let dir = tempfile::tempdir()?;
    let log = fs::File::create(dir.path().join("log"))?;
    let pid = server.to_string();
    let target: &[&str] = if args.everything { &["-a"] } else { &["-p", &pid, "--follow"] };
    let options = ["requests", "--format", "otlp", "-o", "/dev/null", "-d", "1h", "--stats", "json"];
    let mut running = Running::start(descry, [&options[..], target].concat(), |command| {
        command.stdout(Stdio::null()).stderr(Stdio::from(log));
        if told == Told::Metrics {
            command.env("OTEL_TRACES_SAMPLER", "always_off");
        }
    })?;
    let said = || fs::read_to_string(dir.path().join("log")).unwrap_or_default();
    let until = Instant::now() + PATIENCE;
    while !proc::measures(running.pid()) {
        running.must_run().with_context(said)?;
        if Instant::now() > until {
            bail!("descry did not begin to measure: {}", said());
        }
        sleep(Duration::from_millis(20));
    }
    let mut cpu = Duration::ZERO;
    loop {
        let now = proc::cpu_time(running.pid())?;
        if now.saturating_sub(cpu) < Duration::from_millis(20) || Instant::now() > until {
            cpu = now;
            break;
        }
        cpu = now;
        sleep(SETTLE);
    }
    let programs = proc::program_time(running.pid(), TRACING);
    let began = Instant::now();
    let rate = load.requests(port, args.seconds)?;
    let took = began.elapsed();
    // What is still in the ring is its work too.
    sleep(Duration::from_millis(200));
    let cpu = proc::cpu_time(running.pid())?.saturating_sub(cpu);
    let after = proc::program_time(running.pid(), TRACING);
    let peak_rss = proc::peak_rss(running.pid()).unwrap_or(0);
    running.interrupt(PATIENCE)?;
    let said = said();
    let figures = said.lines().rev().find(|line| line.starts_with('{'));
    let figures = figures.with_context(|| format!("descry said no figures: {said}"))?;
    let seen = number_in(figures, "\"requests\":")? as u64;
    let lost = figures.split_once("\"lost\":").and_then(|(_, rest)| Some(rest.split_once('}')?.0));
    let lost = lost.map_or("?", |lost| lost.trim_start_matches('{'));
    Ok(Watched {
        rate,
        lost: if lost.is_empty() { "nothing".to_owned() } else { lost.to_owned() },
        cpu: cpu.as_secs_f64() / took.as_secs_f64(),
        cpu_each: cpu.as_secs_f64() * 1e6 / seen.max(1) as f64,
        peak_rss,
        programs: ProgramTime { nanos: after.nanos - programs.nanos, runs: after.runs - programs.runs },
    })
}
