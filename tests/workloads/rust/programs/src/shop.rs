//! A small web shop and its customer, whose time goes where its names say.
//!
//! ```text
//! GET /checkout/{number}   CPU (price), waits for the stock's lock (some ms), writes a journal and fsyncs it
//! GET /search?q=...        CPU (rank), 200
//! GET /report              sleeps 30 ms (wait_for_report), asks /search of itself as a client, 200
//! GET /missing             404
//! ```
//!
//! `shop [--requests N]`: the customer asks for the four in turn, 20 ms apart, on one connection kept alive; without a
//! number until it is killed. It prints `ready` when it listens, and at the end how many of each were answered.
#![forbid(unsafe_code)]

use std::fs::File;
use std::hint::black_box;
use std::io::{BufRead, BufReader, Error, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Rounds of arithmetic in one share of the work, some tens of microseconds.
const ROUNDS: u64 = 20_000;
/// What the stock clerk does: holds the lock for this long, then lets it go for one of these times in turn (ms). They differ,
/// lest customers, who wait until it is let go, always come back when it is.
const HOLD: Duration = Duration::from_millis(5);
const PAUSES: [u64; 8] = [2, 9, 4, 7, 3, 8, 5, 6];
/// Between two requests of the customer.
const PAUSE: Duration = Duration::from_millis(20);

static STOCK: Mutex<u64> = Mutex::new(1_000_000);

#[inline(never)]
fn mix(rounds: u64) -> u64 {
    let mut value = rounds;
    for _ in 0..rounds {
        value =
            black_box(value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
    }
    value
}

#[inline(never)]
fn price(shares: u64) -> u64 {
    (0..shares).fold(0, |total, _| total ^ black_box(mix(ROUNDS)))
}

#[inline(never)]
fn rank(shares: u64) -> u64 {
    (0..shares).fold(0, |total, _| total ^ black_box(mix(ROUNDS)))
}

/// Waits for the clerk.
#[inline(never)]
fn take_from_stock() -> u64 {
    let Ok(mut stock) = STOCK.lock() else { return 0 };
    *stock = stock.saturating_sub(1);
    *stock
}

#[inline(never)]
fn write_journal(journal: &Mutex<File>, line: &str) -> Result<(), Error> {
    let Ok(mut journal) = journal.lock() else { return Ok(()) };
    journal.write_all(line.as_bytes())?;
    journal.sync_all()
}

#[inline(never)]
fn wait_for_report() {
    std::thread::sleep(Duration::from_millis(30));
}

/// Holds the lock half of the time.
fn clerk() {
    for pause in PAUSES.iter().cycle() {
        if let Ok(mut stock) = STOCK.lock() {
            *stock = stock.saturating_add(1);
            std::thread::sleep(HOLD);
        }
        std::thread::sleep(Duration::from_millis(*pause));
    }
}

struct Shop {
    address: SocketAddr,
    journal: Mutex<File>,
}

impl Shop {
    #[inline(never)]
    fn checkout(&self, number: &str) -> Result<String, Error> {
        let price = price(6);
        let left = take_from_stock();
        write_journal(&self.journal, &format!("order {number} price {price} left {left}\n"))?;
        Ok(format!("ordered {number}\n"))
    }

    #[inline(never)]
    fn search(&self) -> String {
        format!("found {}\n", rank(3))
    }

    #[inline(never)]
    fn report(&self) -> Result<String, Error> {
        wait_for_report();
        let mut connection = Customer::connect(self.address)?;
        let found = connection.get("/search?q=report")?;
        Ok(format!("report {found}\n"))
    }

    fn answer(&self, path: &str) -> Result<(u16, String), Error> {
        if let Some(number) = path.strip_prefix("/checkout/") {
            return Ok((200, self.checkout(number)?));
        }
        Ok(match path.split('?').next() {
            Some("/search") => (200, self.search()),
            Some("/report") => (200, self.report()?),
            _ => (404, "no such page\n".to_owned()),
        })
    }

    fn serve(&self, stream: TcpStream) -> Result<(), Error> {
        stream.set_nodelay(true)?;
        let mut writer = stream.try_clone()?;
        let mut reader = BufReader::new(stream);
        loop {
            let Some(line) = read_head(&mut reader)? else { return Ok(()) };
            let path = line.split(' ').nth(1).unwrap_or("/").to_owned();
            let (status, body) = self.answer(&path)?;
            let reason = if status == 200 { "OK" } else { "Not Found" };
            write!(
                writer,
                "HTTP/1.1 {status} {reason}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )?;
        }
    }
}

/// The first line of a request or an answer, when all of its head has come; none: the connection was closed.
fn read_head(reader: &mut impl BufRead) -> Result<Option<String>, Error> {
    let mut first = String::new();
    if reader.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    Ok(Some(first))
}

struct Customer {
    writer: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Customer {
    fn connect(address: SocketAddr) -> Result<Self, Error> {
        let writer = TcpStream::connect(address)?;
        writer.set_nodelay(true)?;
        let reader = BufReader::new(writer.try_clone()?);
        Ok(Self { writer, reader })
    }

    /// Asks for a page; returns the status.
    fn get(&mut self, path: &str) -> Result<u16, Error> {
        let host = self.writer.peer_addr()?;
        self.writer.write_all(format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes())?;
        let mut first = String::new();
        self.reader.read_line(&mut first)?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line)? <= 2 {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        let mut body = vec![0; length];
        self.reader.read_exact(&mut body)?;
        Ok(first.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0))
    }
}

fn shop(requests: Option<u64>) -> Result<(), Error> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let path = std::env::temp_dir().join(format!("shop-{}.journal", std::process::id()));
    let journal = Mutex::new(File::create(&path)?);
    // It goes when the process does.
    std::fs::remove_file(&path)?;
    let shop: &'static Shop = Box::leak(Box::new(Shop { address, journal }));
    let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
    thread("clerk").spawn(clerk)?;
    thread("listener").spawn(move || {
        for stream in listener.incoming().flatten() {
            // A connection that breaks is the customer's business.
            let served = thread("waiter").spawn(move || shop.serve(stream));
            drop(served);
        }
    })?;
    println!("ready");
    std::io::stdout().flush()?;
    let (mut customer, mut asked, mut found) = (Customer::connect(address)?, 0, 0);
    let began = Instant::now();
    while requests.is_none_or(|requests| asked < requests) {
        let path = match asked % 4 {
            0 => format!("/checkout/{}", 1000 + asked),
            1 => "/search?q=shoes".to_owned(),
            2 => "/report".to_owned(),
            _ => "/missing".to_owned(),
        };
        found += u64::from(customer.get(&path)? == 200);
        asked += 1;
        std::thread::sleep(PAUSE);
    }
    println!("asked {asked}, found {found} in {} ms", began.elapsed().as_millis());
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let requests = match arguments.as_slice() {
        [] => None,
        ["--requests", number] if number.parse::<u64>().is_ok() => number.parse().ok(),
        _ => {
            eprintln!("usage: shop [--requests N]");
            return ExitCode::from(2);
        }
    };
    match shop(requests) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shop: {error}");
            ExitCode::FAILURE
        }
    }
}
