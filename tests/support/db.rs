//! Plain SQL on a test server.

use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, Row};

use super::eventually;

/// Where and as whom to connect.
#[derive(Debug, Clone)]
pub struct Address {
    /// TCP port on 127.0.0.1.
    pub port: u16,
    /// User name.
    pub user: String,
    /// Password.
    pub password: String,
}

impl Address {
    /// The administrator of a test server.
    pub fn root(port: u16) -> Address {
        Address { port, user: "root".into(), password: String::new() }
    }

    /// As the library takes it.
    pub fn opts(&self) -> Opts {
        OptsBuilder::default()
            .ip_or_hostname("127.0.0.1")
            .tcp_port(self.port)
            .user(Some(&self.user))
            .pass(Some(&self.password))
            .prefer_socket(false)
            .into()
    }

    /// One attempt to connect.
    pub async fn try_connect(&self) -> Result<Db, String> {
        let conn = Conn::new(self.opts()).await.map_err(|error| error.to_string())?;
        let mut db = Db { conn };
        // Independent of a server's defaults: text as UTF-8, times in UTC, and waits that end.
        db.try_run("SET NAMES utf8mb4, time_zone = '+00:00', innodb_lock_wait_timeout = 20").await?;
        Ok(db)
    }
}

/// A connection for tests: errors are panics with the statement in them, except in `try_` methods.
pub struct Db {
    conn: Conn,
}

impl Db {
    /// Runs statements in order.
    pub async fn run_all<S: AsRef<str>>(&mut self, statements: impl IntoIterator<Item = S>) {
        for statement in statements {
            self.run(statement.as_ref()).await;
        }
    }

    /// Makes a schema as all tests have it, and goes into it.
    pub async fn create_schema(&mut self, name: &str) {
        self.run(&format!("CREATE DATABASE {name} CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci")).await;
        self.run(&format!("USE {name}")).await;
    }

    /// Runs one statement.
    pub async fn run(&mut self, sql: &str) {
        if let Err(error) = self.try_run(sql).await {
            panic!("{error}\n  in: {}", shorten(sql));
        }
    }

    /// Runs one statement; the error as text.
    pub async fn try_run(&mut self, sql: &str) -> Result<(), String> {
        self.conn.query_drop(sql).await.map_err(|error| error.to_string())
    }

    /// The number of the error that a statement met, if any; panics if the connection is lost.
    pub async fn error_number(&mut self, sql: &str) -> Option<u16> {
        match self.conn.query_drop(sql).await {
            Ok(()) => None,
            Err(mysql_async::Error::Server(error)) => Some(error.code),
            Err(error) => panic!("{error}\n  in: {}", shorten(sql)),
        }
    }

    /// All rows, every value as the text (bytes) the server prints.
    pub async fn rows(&mut self, sql: &str) -> Vec<Vec<Option<Vec<u8>>>> {
        match self.try_rows(sql).await {
            Ok(rows) => rows,
            Err(error) => panic!("{error}\n  in: {}", shorten(sql)),
        }
    }

    /// As `rows`, the error as text.
    pub async fn try_rows(&mut self, sql: &str) -> Result<Vec<Vec<Option<Vec<u8>>>>, String> {
        let rows: Vec<Row> = self.conn.query(sql).await.map_err(|error| error.to_string())?;
        Ok(rows.into_iter().map(|row| row.unwrap().into_iter().map(bytes_of).collect()).collect())
    }

    /// All rows as text, NULL as `NULL`.
    pub async fn texts(&mut self, sql: &str) -> Vec<Vec<String>> {
        let text =
            |cell: Option<Vec<u8>>| cell.map_or("NULL".into(), |bytes| String::from_utf8_lossy(&bytes).into_owned());
        self.rows(sql).await.into_iter().map(|row| row.into_iter().map(text).collect()).collect()
    }

    /// The first value of the first row as text.
    pub async fn text(&mut self, sql: &str) -> String {
        let rows = self.texts(sql).await;
        match rows.first().and_then(|row| row.first()) {
            Some(value) => value.clone(),
            None => panic!("no row\n  from: {}", shorten(sql)),
        }
    }

    /// Waits until the server's clock, by whose whole seconds the binlog is dated, is in a later one.
    pub async fn next_second(&mut self) {
        let now = self.number("SELECT UNIX_TIMESTAMP()").await;
        eventually("the server's next second", Duration::from_secs(10), async || {
            match self.number("SELECT UNIX_TIMESTAMP()").await {
                later if later > now => Ok(()),
                _ => Err(format!("still {now}")),
            }
        })
        .await;
    }

    /// The first value of the first row as a number; NULL is 0.
    pub async fn number(&mut self, sql: &str) -> u64 {
        let text = self.text(sql).await;
        if text == "NULL" {
            return 0;
        }
        text.parse().unwrap_or_else(|_| panic!("{text:?} is no number\n  from: {}", shorten(sql)))
    }
}

fn bytes_of(value: mysql_async::Value) -> Option<Vec<u8>> {
    match value {
        mysql_async::Value::NULL => None,
        mysql_async::Value::Bytes(bytes) => Some(bytes),
        other => panic!("the text protocol gives bytes, not {other:?}"),
    }
}

fn shorten(sql: &str) -> String {
    let mut text: String = sql.chars().take(400).collect();
    if text.len() < sql.len() {
        text.push('…');
    }
    text
}
