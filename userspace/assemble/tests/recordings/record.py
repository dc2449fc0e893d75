#!/usr/bin/env python3
"""Records sessions of real clients with real servers: the files *.session beside this script.

Usage: record.py DIRECTORY [NAME...]   (as root on Debian; loopback only; stops all that it starts)

Needs postgresql, mariadb-server, redis-server, dnsmasq-base and dnsutils; psycopg, pymysql, redis from PyPI.

A client talks to its server through a proxy, which writes one line for whatever it reads at once:

    CONNECTION C|S MICROSECONDS HEX     C: from the client, S: from the server

Lines that begin with `#` tell what the client did, as the client itself counts it.
"""
import os
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager


class Recorder:
    """A proxy on a port of its own; `datagrams` for UDP."""

    def __init__(self, upstream, datagrams=False):
        self.upstream, self.lines, self.connections = upstream, [], 0
        self.begin, self.lock = time.monotonic(), threading.Lock()
        kind = socket.SOCK_DGRAM if datagrams else socket.SOCK_STREAM
        self.listener = socket.socket(socket.AF_INET, kind)
        self.listener.bind(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        if datagrams:
            threading.Thread(target=self.relay_datagrams, daemon=True).start()
        else:
            self.listener.listen(64)
            threading.Thread(target=self.accept, daemon=True).start()

    def write(self, connection, way, data):
        with self.lock:
            micros = int((time.monotonic() - self.begin) * 1e6)
            self.lines.append(f"{connection} {way} {micros} {data.hex()}")

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.create_connection(self.upstream)
            for it in (client, server):
                it.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.relay, args=(self.connections, client, server), daemon=True).start()
            self.connections += 1

    def relay(self, connection, client, server):
        selector = selectors.DefaultSelector()
        selector.register(client, selectors.EVENT_READ, ("C", server))
        selector.register(server, selectors.EVENT_READ, ("S", client))
        while True:
            for key, _ in selector.select():
                way, other = key.data
                try:
                    data = key.fileobj.recv(65536)
                    if not data:
                        raise ConnectionError
                    self.write(connection, way, data)
                    other.sendall(data)
                except OSError:
                    client.close()
                    server.close()
                    return

    def relay_datagrams(self):
        known = {}
        while True:
            data, source = self.listener.recvfrom(65536)
            if source not in known:
                upstream = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                upstream.connect(self.upstream)
                known[source] = (len(known), upstream)
                threading.Thread(target=self.answers, args=(len(known) - 1, upstream, source), daemon=True).start()
            connection, upstream = known[source]
            self.write(connection, "C", data)
            upstream.send(data)

    def answers(self, connection, upstream, source):
        while True:
            data = upstream.recv(65536)
            self.write(connection, "S", data)
            self.listener.sendto(data, source)

    def save(self, name, *told):
        time.sleep(0.2)
        with self.lock, open(os.path.join(OUT, name + ".session"), "w") as file:
            for line in told:
                file.write(f"# {line}\n")
            file.write("\n".join(self.lines) + "\n")
        print(name, *told, f"{len(self.lines)} pieces", sep="\n    ")


def free_port():
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


def wait_for(port):
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"nothing listens on {port}")


@contextmanager
def running(*command, port=None, **options):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    try:
        if port:
            wait_for(port)
        yield process
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def directory(user):
    path = tempfile.mkdtemp(prefix="record-")
    shutil.chown(path, user, user)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def postgres_server():
    bin, port = "/usr/lib/postgresql/15/bin", free_port()
    with directory("postgres") as data:
        run("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", f"{bin}/initdb", "-A", "trust", "-D", data)
        server = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", f"{bin}/postgres", "-D", data]
        with running(*server, "-p", str(port), "-c", "listen_addresses=127.0.0.1", "-k", data, port=port):
            for _ in range(100):
                # It listens before it takes connections.
                if subprocess.run([f"{bin}/pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]).returncode == 0:
                    break
                time.sleep(0.1)
            run(f"{bin}/createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "shop")
            yield ("127.0.0.1", port)


def run(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout


def postgres():
    import psycopg

    bin = "/usr/lib/postgresql/15/bin"
    with postgres_server() as server:
        initialize = [f"{bin}/pgbench", "-h", "127.0.0.1", "-p", str(server[1]), "-U", "postgres", "shop"]
        run(*initialize, "-i", "-s", "1")
        for mode in ("simple", "extended", "prepared"):
            recorder = Recorder(server)
            bench = [f"{bin}/pgbench", "-h", "127.0.0.1", "-p", str(recorder.port), "-U", "postgres", "-n", "-M", mode]
            run(*bench, "-t", "2", "-c", "2", "shop")
            recorder.save(f"pgbench_{mode}", "pgbench: 2 clients, 2 transactions of 7 statements each")

        recorder = Recorder(server)
        script = """
create table people (id int primary key, name text);
insert into people values (1, 'secret-one'), (2, 'secret-two');
copy people from stdin;
3\tsecret-three
\\.
copy people to stdout;
select name from people where id = 1;
select nothing from people;
begin; update people set name = 'secret-four' where id = 1; commit;
insert into people values (1, 'secret-five');
-- a comment with secret-six
select id from people where name in ('secret-seven', 'secret-eight') and id <> 3;
drop table people;
"""
        shell = ["psql", "-h", "127.0.0.1", "-p", str(recorder.port), "-U", "postgres", "shop", "-f", "-"]
        run(*shell, input=script)
        recorder.save("psql", "psql: 12 queries; 2 errors: 42703, 23505")

        recorder = Recorder(server)
        link = f"host=127.0.0.1 port={recorder.port} user=postgres dbname=shop sslmode=disable"
        with psycopg.connect(link, autocommit=True, prepare_threshold=1) as it:
            it.execute("create table orders (id int primary key, note text)")
            for number in range(4):
                it.execute("insert into orders values (%s, %s)", (number, "secret"))
            with it.pipeline():
                for number in range(3):
                    it.execute("select note from orders where id = %s", (number,))
            try:
                with it.pipeline() as pipeline:
                    it.execute("insert into orders values (%s, %s)", (10, "secret"))
                    it.execute("insert into orders values (%s, %s)", (10, "secret"))
                    it.execute("delete from orders where id = %s", (10,))
                    pipeline.sync()
            except psycopg.Error as error:
                print("    expected:", error.sqlstate)
            with it.transaction(), it.cursor() as cursor:
                with cursor.copy("copy orders from stdin") as copy:
                    copy.write_row((20, "secret"))
                with it.cursor(name="walk") as named:
                    named.execute("select id from orders")
                    named.fetchmany(2)
            try:
                it.execute("select from where")
            except psycopg.Error as error:
                print("    expected:", error.sqlstate)
        recorder.save("psycopg", "psycopg: 1 create, 4 inserts, 3 pipelined selects, a pipeline of insert, insert (23505), "
                      "delete (aborted)", "BEGIN, COPY, DECLARE, FETCH, CLOSE, COMMIT, a syntax error (42601)")


def mysql():
    import pymysql

    with directory("mysql") as data:
        port = free_port()
        run("mariadb-install-db", "--no-defaults", f"--datadir={data}", "--user=mysql", "--auth-root-authentication-method=normal")
        server = ["mariadbd", "--no-defaults", "--user=mysql", f"--datadir={data}", f"--socket={data}/socket", "--local-infile=1"]
        with running(*server, f"--port={port}", "--bind-address=127.0.0.1", port=port):
            recorder = Recorder(("127.0.0.1", port))
            with tempfile.NamedTemporaryFile("w", suffix=".csv") as rows:
                rows.write("7\tsecret-infile\n8\tsecret-infile\n")
                rows.flush()
                it = pymysql.connect(host="127.0.0.1", port=recorder.port, user="root", local_infile=True, autocommit=True,
                                     client_flag=pymysql.constants.CLIENT.MULTI_STATEMENTS)
                with it.cursor() as cursor:
                    cursor.execute("create database shop")
                    it.select_db("shop")
                    cursor.execute("create table people (id int primary key, name text)")
                    for number in range(3):
                        cursor.execute("insert into people values (%s, %s)", (number, "sec'ret"))
                    cursor.execute("select * from people where id in (%s, %s)", (1, 2))
                    cursor.execute("select 1 from people; select name from people; update people set name = 'secret'")
                    while cursor.nextset():
                        pass
                    for bad in ("select nothing from people", "insert into people values (1, 'secret')"):
                        try:
                            cursor.execute(bad)
                        except pymysql.Error as error:
                            print("    expected:", error.args[0])
                    cursor.execute(f"load data local infile '{rows.name}' into table people")
                    it.ping()
                it.close()
            recorder.save("pymysql", "pymysql: SET NAMES of the driver, 10 queries (one of 3 statements), 1 INIT_DB, 1 PING; "
                          "errors 1054, 1062")

            recorder = Recorder(("127.0.0.1", port))
            client = ["mariadb", "--no-defaults", "-h", "127.0.0.1", "-P", str(recorder.port), "-uroot", "--skip-ssl", "shop"]
            run(*client, input="select count(*) from people;\nprepare p from 'select ?';\nset @a = 'secret';\n"
                "execute p using @a;\nshow tables;\ndelete from people where name = 'secret';\n")
            recorder.save("mariadb_client", "mariadb: 6 queries")

            recorder = Recorder(("127.0.0.1", port))
            bench = ["sysbench", "oltp_read_only", "--mysql-host=127.0.0.1", f"--mysql-port={recorder.port}", "--mysql-user=root",
                     "--mysql-db=shop", "--tables=1", "--table-size=20", "--mysql-ssl=off"]
            direct = [word.replace(str(recorder.port), str(port)) for word in bench]
            run(*direct, "prepare")
            told = run(*bench, "--events=1", "--time=20", "--threads=1", "--range-size=3", "run")
            told = " ".join(line.strip() for line in told.splitlines() if "queries:" in line or "transactions:" in line)
            recorder.save("sysbench", f"sysbench: {told}")


def redis():
    import redis

    port = free_port()
    with directory("redis") as data, running("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", data,
                                             "--save", "", port=port):
        recorder = Recorder(("127.0.0.1", port))
        run("redis-benchmark", "-p", str(recorder.port), "-n", "40", "-c", "2", "-P", "4", "-q", "-t", "set,get")
        recorder.save("redis_benchmark", "redis-benchmark: 40 SET and 40 GET in pipelines of 4 (and CONFIG GET at its start)")

        for version in (2, 3):
            recorder = Recorder(("127.0.0.1", port))
            it = redis.Redis(port=recorder.port, protocol=version, decode_responses=True, single_connection_client=True)
            it.set("secret-key", "secret-value")
            it.get("secret-key")
            it.hset("secret-hash", mapping={"a": 1, "b": 2})
            it.hgetall("secret-hash")
            it.lpush("secret-list", "a", "b")
            it.lrange("secret-list", 0, -1)
            it.blpop("secret-list", 1)
            with it.pipeline(transaction=True) as batch:
                batch.incr("secret-count").incr("secret-count").get("secret-count").execute()
            with it.pipeline(transaction=False) as batch:
                batch.get("a").get("b").get("c").execute()
            try:
                it.lpush("secret-key", "x")
            except redis.ResponseError as error:
                print("    expected:", error)
            it.xadd("secret-stream", {"field": "secret-value"})
            it.xrange("secret-stream")
            it.xread({"secret-stream": "0"})
            it.eval("return {KEYS[1], ARGV[1]}", 1, "secret-key", "secret-value")
            digest = it.script_load("return 1")
            it.evalsha(digest, 0)
            it.zadd("secret-set", {"a": 1.5})
            it.zrange("secret-set", 0, -1, withscores=True)
            it.config_get("save")
            it.close()
            recorder.save(f"redis_py_resp{version}", "redis-py: 7 commands, MULTI 3 EXEC, 3 in a pipeline, 1 error (WRONGTYPE), "
                          "8 more after it (and what the driver sends at connect)")

        recorder = Recorder(("127.0.0.1", port))
        subscriber = redis.Redis(port=recorder.port, single_connection_client=True).pubsub()
        subscriber.subscribe("secret-channel", "secret-other")
        publisher = redis.Redis(port=port)
        for _ in range(3):
            subscriber.get_message(timeout=1)
            publisher.publish("secret-channel", "secret-message")
        for _ in range(4):
            subscriber.get_message(timeout=0.2)
        subscriber.unsubscribe()
        for _ in range(2):
            subscriber.get_message(timeout=0.2)
        subscriber.close()
        recorder.save("redis_pubsub", "redis-py: SUBSCRIBE of 2 channels, 3 messages came, UNSUBSCRIBE")

        recorder = Recorder(("127.0.0.1", port))
        with socket.create_connection(("127.0.0.1", recorder.port)) as it:
            it.sendall(b"PING\r\nSET secret-key 'secret value'\r\nNOSUCH secret\r\nSELECT 3\r\nget secret-key\r\nQUIT\r\n")
            while it.recv(4096):
                pass
        recorder.save("redis_inline", "by hand, inline: PING, SET, an unknown command, SELECT 3, get, QUIT")


def dns():
    port = free_port()
    zone = ["--address=/one.example/192.0.2.1", "--address=/one.example/2001:db8::1", "--txt-record=text.example,hello",
            "--cname=alias.example,host.example", "--host-record=host.example,192.0.2.7,2001:db8::7", "--local=/example/"]
    with running("dnsmasq", "--no-daemon", "--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--listen-address=127.0.0.1",
                 "--bind-interfaces", "--pid-file=", f"--port={port}", *zone, port=port):
        for name, options in (("dns_udp", []), ("dns_tcp", ["+tcp", "+keepopen"])):
            recorder = Recorder(("127.0.0.1", port), datagrams=not options)
            questions = ["one.example", "A", "one.example", "AAAA", "text.example", "TXT", "alias.example", "A",
                         "missing.example", "A", "other.test", "A"]
            run("dig", "@127.0.0.1", "-p", str(recorder.port), *options, *questions)
            recorder.save(name, "dig: 6 questions: A, AAAA, TXT, A (an alias), A (NXDOMAIN), A (REFUSED)")


OUT = sys.argv[1]
for which in sys.argv[2:] or ("postgres", "mysql", "redis", "dns"):
    {"postgres": postgres, "mysql": mysql, "redis": redis, "dns": dns}[which]()
