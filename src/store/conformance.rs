//! The contract of [`Table`], run on each engine.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{Profile, StoreError, Table, open};

type Open = fn(&Path, Profile) -> Result<Box<dyn Table>, StoreError>;

fn key(n: u64) -> [u8; 8] {
    n.to_be_bytes()
}

fn value(n: u64) -> Vec<u8> {
    let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::new();
    for _ in 0..2_000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.push(state as u8);
    }
    bytes
}

/// Every clause of the contract.
fn conforms(open: Open) {
    orders_and_replaces(open);
    keeps_what_was_flushed(open);
    takes_values_beside_a_flush(open);
    shares_and_releases(open);
    refuses_a_second_owner(open);
}

fn orders_and_replaces(open: Open) {
    let dir = tempfile::tempdir().unwrap();
    let mut table = open(&dir.path().join("t"), Profile::Chunks).unwrap();
    assert!(table.at_or_before(&key(5)).unwrap().is_none());
    assert!(table.range(&[], 5).unwrap().is_empty());
    for n in [40, 10, 30, 20, 50, 60, 70, 80, 90] {
        table.put(&key(n), &value(n)).unwrap();
    }
    table.put(&key(30), b"again").unwrap();
    table.remove(&key(40)).unwrap();
    table.remove(&key(41)).unwrap();
    assert_eq!(table.get(&key(30)).unwrap().as_deref(), Some(&b"again"[..]));
    assert_eq!(table.get(&key(40)).unwrap(), None);
    let before = |n| table.at_or_before(&key(n)).unwrap().map(|(key, _)| key);
    assert_eq!(before(9), None);
    assert_eq!(before(10).as_deref(), Some(&key(10)[..]));
    assert_eq!(before(49).as_deref(), Some(&key(30)[..]));
    assert_eq!(before(u64::MAX).as_deref(), Some(&key(90)[..]));
    let keys: Vec<_> = table.range(&key(20), 3).unwrap().into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, [&key(20)[..], &key(30), &key(50)]);
}

fn keeps_what_was_flushed(open: Open) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t");
    for round in 0..3 {
        let mut table = open(&path, Profile::Chunks).unwrap();
        for n in 0..round * 20 {
            assert_eq!(table.get(&key(n)).unwrap().as_deref(), Some(&value(n)[..]));
        }
        for n in round * 20..(round + 1) * 20 {
            table.put(&key(n), &value(n)).unwrap();
            table.flush().unwrap();
        }
        assert!(table.disk_bytes().unwrap() > 0 && table.damaged_from().is_none());
        table.close().unwrap();
    }
}

/// One handle flushes all the time, another one writes: the newest page is changed while it is written to the disk.
fn takes_values_beside_a_flush(open: Open) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t");
    let mut table = open(&path, Profile::Chunks).unwrap();
    let (mut flushed, flushes, done) = (table.share(), AtomicU64::new(0), AtomicBool::new(false));
    let mut count = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // A failed write makes this one fail, too: it ends either way.
            while !done.load(Ordering::Acquire) && flushed.flush().is_ok() {
                flushes.fetch_add(1, Ordering::AcqRel);
            }
        });
        while count < 200 || flushes.load(Ordering::Acquire) < 5 && count < 20_000 {
            table.put(&key(count), b"to be replaced").unwrap();
            table.put(&key(count), &value(count)).unwrap();
            count += 1;
        }
        done.store(true, Ordering::Release);
    });
    assert!(flushes.into_inner() >= 5, "they were at it together");
    table.close().unwrap();
    drop(flushed);
    let table = open(&path, Profile::ChunksReadOnly).unwrap();
    for n in 0..count {
        assert_eq!(table.get(&key(n)).unwrap().as_deref(), Some(&value(n)[..]), "{n}");
    }
}

fn shares_and_releases(open: Open) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t");
    let mut table = open(&path, Profile::Chunks).unwrap();
    let reader = table.share();
    table.put(&key(1), b"seen").unwrap();
    let seen = std::thread::spawn(move || reader.get(&key(1)).unwrap()).join().unwrap();
    assert_eq!(seen.as_deref(), Some(&b"seen"[..]));
    table.close().unwrap();
    assert_eq!(open(&path, Profile::ChunksReadOnly).unwrap().get(&key(1)).unwrap().as_deref(), Some(&b"seen"[..]));
    fs::remove_dir_all(&path).unwrap();
    assert_eq!(open(&path, Profile::Chunks).unwrap().get(&key(1)).unwrap(), None);
}

fn refuses_a_second_owner(open: Open) {
    let dir = tempfile::tempdir().unwrap();
    let table = open(dir.path(), Profile::Records).unwrap();
    assert!(matches!(open(dir.path(), Profile::Records), Err(StoreError::Locked { .. })));
    drop(table);
    open(dir.path(), Profile::Records).unwrap();
}

/// The engine acknowledges a drop before it lets go of the directory.
#[test]
fn waits_for_a_directory_that_was_dropped_a_moment_ago() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path(), Profile::Records).unwrap());
    let held = fs::File::open(dir.path()).unwrap();
    held.lock().unwrap();
    let late = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(100));
        drop(held);
    });
    open(dir.path(), Profile::Records).unwrap();
    late.join().unwrap();
}

#[test]
fn sled_conforms() {
    conforms(open);
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false if fs::metadata(&path).unwrap().len() > 0 => found.push(path),
            false => {}
        }
    }
    found.sort();
    found
}

/// Each file of a store is cut or has a bit flipped, at several places: what is read afterwards is right or an error.
#[test]
fn damage_is_an_error_never_other_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (sound, broken) = (dir.path().join("sound"), dir.path().join("broken"));
    let mut table = open(&sound, Profile::Chunks).unwrap();
    for n in 0..30 {
        table.put(&key(n), &value(n)).unwrap();
        table.flush().unwrap();
    }
    table.close().unwrap();
    let (mut refused, mut bounded) = (0, 0);
    for victim in files(&sound) {
        for place in [0.0, 0.3, 0.6, 0.99] {
            for cut in [false, true] {
                copy(&sound, &broken);
                let path = broken.join(victim.strip_prefix(&sound).unwrap());
                let mut bytes = fs::read(&path).unwrap();
                let at = (bytes.len() as f64 * place) as usize;
                match cut {
                    true => bytes.truncate(at),
                    false => bytes[at] ^= 0x10,
                }
                fs::write(&path, bytes).unwrap();
                let Ok(table) = open(&broken, Profile::ChunksReadOnly) else {
                    refused += 1;
                    continue;
                };
                bounded += usize::from(table.damaged_from().is_some());
                for n in 0..30 {
                    if let Ok(Some(found)) = table.get(&key(n)) {
                        assert_eq!(found, value(n), "{} at {at}", path.display());
                    }
                }
                let _ = table.at_or_before(&key(99));
            }
        }
    }
    assert!(refused > 0 && bounded > 0, "{refused} refused, {bounded} bounded");
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &target),
            false => drop(fs::copy(&path, &target).unwrap()),
        }
    }
}
