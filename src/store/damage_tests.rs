//! Whatever befalls the files of a checkpoint database: it opens with everything that was acknowledged, or it does not open
//! and says what to do. It never forgets a park.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;

/// How many damages are tried: few, since the engine has the whole machine's disks synced at each opening. `DAMAGES=5000` for
/// a longer run, `SEED=` replays one.
const DAMAGES: u64 = 12;

/// What is in a database: everything that reads the same later was kept.
type Content = BTreeMap<(&'static str, String), u64>;

async fn content(db: &CheckpointDb) -> Result<Content, StoreError> {
    let mut all = Content::new();
    for (name, ns) in [("task", Namespace::Task), ("park", Namespace::Park), ("checkpoint", Namespace::Checkpoint)] {
        all.extend(db.list::<u64>(ns, "").await?.into_iter().map(|(key, value)| ((name, key), value)));
    }
    Ok(all)
}

/// Enough for several leaves, reopened now and then as by restarts; the last write is a park.
async fn written(path: &Path) -> Content {
    for life in 0..4_u64 {
        let db = CheckpointDb::open(path.to_owned()).await.unwrap();
        for n in 0..60_u64 {
            let changes = Changes::new()
                .put(Namespace::Checkpoint, "t", &(life * 1000 + n))
                .put(Namespace::Task, &format!("t{n:03}"), &(life + n))
                .remove(Namespace::Task, &format!("t{:03}", n * 7 % 60));
            db.write(changes).await.unwrap();
        }
        db.put(Namespace::Park, "t", &life).await.unwrap();
        db.close().await.unwrap();
    }
    let db = CheckpointDb::open(path.to_owned()).await.unwrap();
    let content = content(&db).await.unwrap();
    db.close().await.unwrap();
    content
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() { found.extend(files_below(&entry)) } else { found.push(entry) }
    }
    found.sort();
    found
}

/// The next number of a sequence that a seed gives.
fn next(state: &mut u64, below: usize) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize % below.max(1)
}

#[derive(Clone, Copy)]
enum Kind {
    Removed,
    Emptied,
    Cut,
    Zeroed,
    Flipped,
}

/// Damages one of the files in some way and says how.
fn damage(files: &[PathBuf], state: &mut u64) -> String {
    let kinds = [Kind::Removed, Kind::Emptied, Kind::Cut, Kind::Zeroed, Kind::Flipped];
    let kind = kinds[next(state, kinds.len())];
    damage_as(files, kind, state)
}

fn damage_as(files: &[PathBuf], kind: Kind, state: &mut u64) -> String {
    let file = &files[next(state, files.len())];
    let mut bytes = fs::read(file).unwrap();
    let at = next(state, bytes.len());
    let what = match kind {
        Kind::Removed => {
            fs::remove_file(file).unwrap();
            return format!("{} removed", file.display());
        }
        Kind::Cut => {
            bytes.truncate(at);
            format!("cut to {at}")
        }
        Kind::Emptied => {
            bytes.clear();
            "emptied".to_owned()
        }
        Kind::Zeroed => {
            let end = (at + 1 + next(state, 4096)).min(bytes.len());
            bytes[at.min(end)..end].fill(0);
            format!("zero from {at} to {end}")
        }
        Kind::Flipped => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << next(state, 8);
            }
            format!("a bit flipped at {at}")
        }
    };
    fs::write(file, bytes).unwrap();
    format!("{} {what}", file.display())
}

#[tokio::test]
async fn all_that_was_acknowledged_or_a_refusal_that_says_what_to_do() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed: u64 = number("SEED").unwrap_or_else(rand::random);
    println!("SEED={seed}");
    let mut state = seed;
    let home = tempfile::tempdir().unwrap();
    let whole = home.path().join("whole");
    fs::create_dir(&whole).unwrap();
    let expected = written(&whole.join("checkpoint")).await;
    assert_eq!(expected[&("park", "t".to_owned())], 3);
    let (mut opened, mut refused) = (0, 0);
    for round in 0..number("DAMAGES").unwrap_or(DAMAGES) {
        let folder = home.path().join("damaged");
        let copied = std::process::Command::new("cp").arg("-a").args([&whole, &folder]).status().unwrap();
        assert!(copied.success());
        let files = files_below(&folder);
        // One that must open, one that must not; then whatever comes.
        let all_of = |part: &str, kind: Kind, state: &mut u64| -> String {
            let known = files.iter().filter(|file| file.display().to_string().contains(part));
            known.map(|file| damage_as(std::slice::from_ref(file), kind, state)).collect::<Vec<_>>().join(", ")
        };
        let what = match round {
            0 => all_of("checkpoint.tally", Kind::Removed, &mut state),
            1 => all_of("/metadata/", Kind::Emptied, &mut state),
            _ => damage(&files, &mut state),
        };
        let path = folder.join("checkpoint");
        let look = async {
            let db = CheckpointDb::open(path.clone()).await?;
            let found = content(&db).await?;
            db.close().await?;
            Ok::<_, StoreError>(found)
        };
        let looked = tokio::time::timeout(Duration::from_secs(20), look).await;
        match looked.unwrap_or_else(|_| panic!("round {round}: {what}: it hangs")) {
            Ok(found) => {
                opened += 1;
                assert_eq!(found, expected, "round {round}: {what}");
            }
            Err(error) => {
                refused += 1;
                let failure = Failure::from(&error);
                let told = failure.workaround.contains(&path.display().to_string());
                assert!(told, "round {round}: {what}: no remedy in {failure:?}");
            }
        }
        fs::remove_dir_all(&folder).unwrap();
    }
    println!("{opened} opened whole, {refused} refused");
    assert!(opened > 0 && refused > 0, "{opened} opened, {refused} refused");
}
