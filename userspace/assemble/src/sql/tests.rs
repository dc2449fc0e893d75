//! What is told of statements, and that literals are not.

use proptest::prelude::*;

use super::*;

const PG: Dialect = Dialect::PostgreSql(Backslash::Plain);
const MY: Dialect = Dialect::MySql(Backslash::Escapes);

#[track_caller]
fn check(dialect: Dialect, text: &str, summary: &str, sanitized: &str) {
    let statement = statement(text.as_bytes(), true, dialect);
    let told = (statement.summary.as_deref().unwrap_or_default(), &*statement.text);
    assert_eq!(told, (summary, sanitized));
}

#[track_caller]
fn check_summary(text: &str, summary: &str) {
    for dialect in [PG, MY] {
        let statement = statement(text.as_bytes(), true, dialect);
        assert_eq!(statement.summary.as_deref().unwrap_or_default(), summary, "{dialect:?}");
    }
}

#[test]
fn the_conventions_examples() {
    check_summary("SELECT *\nFROM   wuser_table\nWHERE  username = ?", "SELECT wuser_table");
    check_summary(
        "INSERT INTO shipping_details (order_id, address) SELECT order_id, address FROM orders WHERE order_id = ?",
        "INSERT shipping_details SELECT orders",
    );
    check_summary("SELECT * FROM songs, artists WHERE songs.artist_id == artists.id", "SELECT songs artists");
    check_summary(
        "SELECT order_date FROM (SELECT * FROM orders o JOIN customers c ON o.customer_id = c.customer_id)",
        "SELECT SELECT orders customers",
    );
    check(PG, "SELECT * FROM \"song list\"", "SELECT \"song list\"", "SELECT * FROM \"song list\"");
}

#[test]
fn operations_and_targets() {
    check_summary("select 1", "select");
    check_summary("  ", "");
    check_summary("gibberish from users", "");
    check_summary(
        "select a from s.t as x, u y join v on x.a = v.b where c in (select d from w)",
        "select s.t u v select w",
    );
    check_summary("select extract(year from day), trim(both from name) from t", "select t");
    check_summary("select 1 from t where a is distinct from b", "select t");
    check_summary("select * from generate_series(1, 2) g, t", "select t");
    check_summary("select * from (a join b using (id)) where x", "select a b");
    check_summary("update only t set a = 1 from u where t.id = u.id", "update t u");
    check_summary("update t set from_day = 1", "update t");
    check_summary("delete from t where a = 1", "delete t");
    check_summary("select a from t for update", "select t");
    check_summary("insert into t (a) values (1) on conflict (a) do update set a = 2", "insert t");
    check_summary("insert into t values (1) on duplicate key update a = 2", "insert t");
    check_summary("insert ignore into t select * from u", "insert t select u");
    check_summary("select lower(replace(a, 'b', 'c')) from t", "select t");
    check_summary("with x as (select 1 from a) select * from x", "select a select x");
    check_summary(
        "with x as (delete from a returning *) insert into b select * from x",
        "delete a insert b select x",
    );
    check_summary("merge into t using s on t.a = s.a when matched then update set b = 1", "merge t s");
    check_summary("create table if not exists s.t (id int references u (id))", "create table s.t");
    check_summary("create unique index concurrently i on t (a)", "create index i");
    check_summary("drop user bob", "drop user");
    check_summary("create temporary table t as select * from u", "create table t select u");
    check_summary("begin; update t set a = 1; commit", "begin update t commit");
    check_summary("explain analyze select 1 from t", "explain select t");
    check_summary("truncate table a, b", "truncate a b");
    check_summary("call do_it(1)", "call do_it");
    check_summary("copy t (a, b) from stdin", "copy t");
    check_summary("copy (select a from t) to stdout", "copy select t");
    check_summary("declare c cursor for select * from t", "declare select t");
    check_summary("fetch forward 2 from c", "fetch");
    check_summary("(select a from t) union (select b from u)", "select t select u");
    check_summary("select a from t union all select b from u", "select t select u");
    check_summary("load data local infile 'x' into table t", "load t");
    check_summary("execute s_17 (1)", "execute");
    check(MY, "select `a` from `s`.`t`", "select `s`.`t`", "select `a` from `s`.`t`");
}

#[test]
fn one_operation_and_one_table_are_told_apart() {
    let told = |text: &str| {
        let it = statement(text.as_bytes(), true, PG);
        [it.operation, it.collection, it.procedure].map(|it| it.unwrap_or_default().to_string())
    };
    assert_eq!(told("select a from t, t as u"), ["select", "t", ""]);
    assert_eq!(told("insert into t select * from u"), ["", "", ""]);
    assert_eq!(told("select a from t join u"), ["select", "", ""]);
    assert_eq!(told("call p(1)"), ["call", "", "p"]);
    assert_eq!(told("create index i on t (a)"), ["create index", "", ""]);
}

#[test]
fn literals_of_both_dialects() {
    check(
        PG,
        "select 'a''b', E'it\\'s', B'01', U&'\\0041', $$x$$, $q$ '$$' $q$",
        "select",
        "select ?, ?, ?, ?, ?, ?",
    );
    check(PG, "select 1, -2.5, .5e-3, 0xff, 1_000, t1, $1", "select", "select ?, -?, ?, ?, ?, t1, $1");
    check(PG, "select true, null, date '2020-01-01'", "select", "select ?, null, date ?");
    check(PG, "select E'a'\n'b\\'c' from t", "select t", "select ? from t");
    check(PG, "select 'C:\\', 'secret' from t", "select t", "select ?, ? from t");
    check(PG, "select 1e'a\\'b', 1$$secret$$, 2$1", "select", "select ??, ??, ?$1");
    check(PG, "select a->>'secret', b::int from t", "select t", "select a->>?, b::int from t");
    check(
        MY,
        "select \"se\\\"cret\", 'a\\'b', 'a''b', _utf8'x', N'y', x'00', @v",
        "select",
        "select ?, ?, ?, _utf8?, ?, ?, @v",
    );
    check(
        Dialect::MySql(Backslash::Plain),
        "select 'a\\', 'secret' from t",
        "select t",
        "select ?, ? from t",
    );
    check(Dialect::MySql(Backslash::Unknown), "select 'a\\', 'secret' from t", "select", "select ?…");
    check(
        Dialect::PostgreSql(Backslash::Unknown),
        "select 'a\\\\b', 'c\\d' from t",
        "select t",
        "select ?, ? from t",
    );
    check(PG, "set search_path to secret, other", "set", "set search_path to ?, other");
    check(MY, "set a = secret, @b = 2; select c", "set select", "set a = ?, @b = ?; select c");
}

#[test]
fn comments_are_dropped() {
    check(PG, "select a -- it's\n, /* 'x /* nested' */ */ b from t", "select t", "select a , b from t");
    check(MY, "select a -- it's\n, /* 'x */ b # it's\nfrom t", "select t", "select a , b from t");
    check(MY, "select 5--1", "select", "select ?--?");
    check(
        MY,
        "select /*!40001 SQL_NO_CACHE */ a from t where b = 'secret'",
        "select t",
        "select SQL_NO_CACHE a from t where b = ?",
    );
    check(MY, "/*!50000 set x = '*/'; */ select 'secret'", "set", "set x = ?…");
    check(MY, "/*!99999 it's */ select 'secret'", "", "it?…");
}

#[test]
fn lists_are_folded() {
    check(
        PG,
        "select a from t where b in (1, 2, 'x', $4) and c in (d, 1)",
        "select t",
        "select a from t where b in (?) and c in (d, ?)",
    );
    check(
        PG,
        "insert into t values (1, null), (2, 'x'), (3, now())",
        "insert t",
        "insert into t values (?, null), (?, now())",
    );
    check(
        PG,
        "insert into t (a) values ($1), ($2), ($3) returning a",
        "insert t",
        "insert into t (a) values ($1) returning a",
    );
}

#[test]
fn what_is_missing_is_not_guessed() {
    let cut = |text: &str| {
        let it = statement(text.as_bytes(), false, PG);
        (it.summary.unwrap_or_default().to_string(), it.text.to_string())
    };
    assert_eq!(cut("select a from user"), ("select".to_owned(), "select a from…".to_owned()));
    assert_eq!(
        cut("select a from users where b = 'sec"),
        ("select users".to_owned(), "select a from users where b =…".to_owned())
    );
    assert_eq!(
        cut("select a from users where b = 123"),
        ("select users".to_owned(), "select a from users where b =…".to_owned())
    );
    let latin = statement(b"select a from t where b = 'caf\xe9' and c = 'secret'", true, PG);
    assert_eq!(&*latin.text, "select a from t where b =…");
}

#[test]
fn long_texts_are_bounded() {
    let list = vec!["123"; 5000].join(", ");
    let it = statement(format!("select a from t where b in ({list})").as_bytes(), true, PG);
    assert!(it.text.len() <= MAX_TEXT + 3 && it.text.ends_with('…'), "{}", it.text);
    let tables: Vec<String> = (0..100).map(|number| format!("table_{number}")).collect();
    let it = statement(format!("select a from {}", tables.join(", ")).as_bytes(), true, PG);
    let summary = it.summary.unwrap_or_default();
    assert!(summary.len() <= MAX_SUMMARY && !summary.ends_with("table_"), "{summary}");
    assert_eq!((it.operation, it.collection), (None, None));
    let deep = format!("select {}1{} from t", "(".repeat(200), ")".repeat(200));
    assert_eq!(statement(deep.as_bytes(), true, PG).summary.as_deref(), Some("select t"));
}

/// A literal of a dialect around a secret that stands nowhere else.
fn literal(dialect: Dialect) -> impl Strategy<Value = String> {
    let inside = prop::collection::vec(
        prop::sample::select(vec![
            "SECRET", " ", "\\n", "''", "--", "/*", "*/", "#", "(", ",", "$$", "é", "\"\"", "`",
        ]),
        0..5,
    )
    .prop_map(|parts| parts.concat());
    (inside, 0..5_u8).prop_map(move |(inside, shape)| match (dialect, shape) {
        (Dialect::PostgreSql(_), 0) => format!("E'SECRET{inside}\\''"),
        (Dialect::PostgreSql(_), 1) => format!("$t${inside}SECRET$t$"),
        (Dialect::MySql(_), 0) => format!("\"SECRET{inside}\\\"\""),
        (Dialect::MySql(_), 1) => format!("'{inside}\\'SECRET'"),
        (_, 2) => format!("'SECRET{inside}'"),
        (_, 3) => format!("N'{inside}SECRET'"),
        _ => "424242".to_owned(),
    })
}

fn text(dialect: Dialect) -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "select",
        "insert into",
        "t",
        "from",
        "where",
        "in",
        "values",
        "(",
        ")",
        ",",
        "=",
        ";",
        "set",
        "a.b",
        "$1",
        "-",
        "/* SECRET ' */",
        "-- SECRET '\n",
        "e",
        "1x",
        "'' ",
        "+",
    ]);
    let piece = prop_oneof![word.prop_map(str::to_owned), literal(dialect)];
    prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.join(" "))
}

fn leaks(statement: &Statement) -> bool {
    let summary = statement.summary.as_deref().unwrap_or_default();
    [summary, &statement.text].iter().any(|told| told.contains("SECRET") || told.contains("4242"))
}

proptest! {
    #[test]
    fn no_literal_of_postgresql_comes_out(text in text(PG), cut in 0..400_usize) {
        prop_assert!(!leaks(&statement(text.as_bytes(), true, PG)));
        prop_assert!(!leaks(&statement(text.as_bytes(), true, Dialect::PostgreSql(Backslash::Unknown))));
        let head = text.as_bytes().get(..cut).unwrap_or(text.as_bytes());
        prop_assert!(!leaks(&statement(head, head.len() == text.len(), PG)));
    }

    /// Texts of the same tokens, whole and cut off: what was kept of the one is told of the other.
    #[test]
    fn what_is_known_is_what_would_be_told(text in text(PG), cut in 0..400_usize) {
        for dialect in [PG, Dialect::PostgreSql(Backslash::Unknown), MY] {
            let other = text.replace("SECRET", "other").replace("4242", "7");
            for text in [&text, &other] {
                let head = text.as_bytes().get(..cut).unwrap_or(text.as_bytes());
                for whole in [head.len() == text.len(), false] {
                    prop_assert_eq!(&*known_statement(head, whole, dialect), &statement(head, whole, dialect));
                }
            }
        }
    }

    #[test]
    fn no_literal_of_mysql_comes_out(text in text(MY), cut in 0..400_usize) {
        prop_assert!(!leaks(&statement(text.as_bytes(), true, MY)));
        prop_assert!(!leaks(&statement(text.as_bytes(), true, Dialect::MySql(Backslash::Unknown))));
        let head = text.as_bytes().get(..cut).unwrap_or(text.as_bytes());
        prop_assert!(!leaks(&statement(head, head.len() == text.len(), MY)));
    }

    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for dialect in [PG, MY] {
            let told = statement(&bytes, true, dialect);
            prop_assert!(told.text.len() <= MAX_TEXT + 3);
            prop_assert_eq!(&*known_statement(&bytes, true, dialect), &told);
        }
    }
}

#[test]
fn other_digits_in_a_number_are_the_same_statement() {
    let dialect = Dialect::PostgreSql(Backslash::Plain);
    let text = b"SELECT a1, '12' FROM t WHERE b = 12 AND c > 1.5 AND d = $1 AND e IN (0x12, 12e1, 34) /* 56 */ LIMIT 7";
    let found = numbers(text, dialect);
    let found: Vec<_> = found.into_iter().map(|it| std::str::from_utf8(&text[it]).unwrap()).collect();
    assert_eq!(found, ["12", "34", "7"]);
    for text in ["SELECT 1'a'", "SELECT 1$$a$$", "SELECT 1.", r"SELECT '\', 12", "SELECT 12, 'open"] {
        assert_eq!(numbers(text.as_bytes(), dialect), [], "{text}");
    }
}
