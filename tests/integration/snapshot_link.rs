//! A task that copies existing rows, slow enough to be met in the middle: what tests of whole tasks begin with.

use std::time::Duration;

use crate::support::db::Db;
use crate::support::eventually;
use crate::support::fixture::{CATCH_UP_LIMIT, Link, LinkOptions};

/// Settings under which a copy takes long enough to be met in the middle.
const SLOW: &str = "mydumpers:\n  slow: {threads: 1, rows: 20}\nloaders:\n  slow: {pool-size: 1}\n";

const SLOW_NAMES: &str = "  mydumper-config-name: slow\n  loader-config-name: slow\n";

pub fn slow() -> LinkOptions {
    LinkOptions { task_extra: SLOW.into(), instance_extra: SLOW_NAMES.into(), ..LinkOptions::default() }
}

/// Fills a table with a key, `rows` rows of about 50 bytes.
pub async fn fill(source: &mut Db, table: &str, rows: u32) {
    source.run(&format!("CREATE TABLE {table} (id INT PRIMARY KEY, n INT NOT NULL, s VARCHAR(60))")).await;
    for first in (0..rows).step_by(1000) {
        let values: Vec<String> =
            (first..(first + 1000).min(rows)).map(|id| format!("({id},{id},'row {id}')")).collect();
        source.run(&format!("INSERT INTO {table} VALUES {}", values.join(","))).await;
    }
}

/// Waits until the copy has some rows and is not at its end.
pub async fn in_the_copy(link: &Link) {
    eventually("the copy is under way", Duration::from_secs(30), async || {
        let status = link.status().await;
        let written = status["load"]["finishedBytes"].as_str().and_then(|text| text.parse::<u64>().ok());
        if status["unit"] == "Load" && written > Some(0) { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
}

pub async fn wait_exact(link: &Link) {
    eventually("the exact mode has begun", CATCH_UP_LIMIT, async || {
        let status = link.agent.status().await;
        let task = &status["tasks"][0];
        let exact = task["safe_mode"].as_str().unwrap_or_default().is_empty() && task["unit"] == "Sync";
        if exact && task["stage"] == "Running" { Ok(()) } else { Err(task.to_string()) }
    })
    .await;
}
