use std::{
    fs,
    time::{Duration, SystemTime},
};

use serde_json::Value;

use super::*;
use crate::{
    compare::{Diff, SkipReason},
    observe::ShadowRead,
    stage::{Side, Stage},
};

fn read(n: usize, verdict: Verdict) -> ShadowRead {
    ShadowRead {
        request: format!("GET /a/{n}").into(),
        route: "GET /a/*".into(),
        keys: crate::reconcile::Key::from(format!("/a/{n}")).into(),
        stage: Stage::WriteBoth,
        authority: Side::Old,
        verdict,
        error: None,
        rereads: 2,
        authority_took: Some(Duration::from_micros(310)),
        other_took: None,
        at: SystemTime::UNIX_EPOCH,
    }
}

fn mismatch(n: usize) -> ShadowRead {
    read(n, Verdict::Mismatch(Diff::at("/*/name", "/3/name", "Zürich\n", "Zurich")))
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).expect("there");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn each_verdict_is_a_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("v.ndjson");
    let sink = NdjsonFile::at(&path).open().expect("open");
    sink.observe(&Event::Shadow(&mismatch(1)));
    sink.observe(&Event::Shadow(&read(2, Verdict::Match)));
    sink.observe(&Event::Shadow(&read(3, Verdict::Skipped(SkipReason::Dirty))));
    sink.close();
    let lines = lines(&path);
    assert_eq!(lines.len(), 2, "matches are left out");
    assert_eq!(lines[0]["differs"][0]["authority"], "Zürich\n");
    assert_eq!(lines[0]["keys"][0], "/a/1");
    assert_eq!(lines[0]["authority_us"], 310);
    assert_eq!(lines[0]["at"], "1970-01-01T00:00:00Z");
    assert_eq!((&lines[1]["verdict"], &lines[1]["reason"]), (&"skipped".into(), &"dirty".into()));
    assert_eq!((sink.written(), sink.dropped()), (2, 0));
    // After the end, nothing is written, and that is said.
    sink.observe(&Event::Shadow(&mismatch(4)));
    assert_eq!((sink.written(), sink.dropped()), (2, 1));
}

#[test]
fn a_file_makes_room_for_itself_and_loses_no_line_of_those_it_keeps() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("v.ndjson");
    let sink = NdjsonFile::at(&path).max_bytes(2_000).keep(2).capacity(1_000).open().expect("open");
    for n in 0..100 {
        sink.observe(&Event::Shadow(&mismatch(n)));
    }
    sink.close();
    assert_eq!((sink.written(), sink.dropped()), (100, 0));
    let file = |name: &str| dir.path().join(name);
    let mut all = Vec::new();
    for name in ["v.ndjson.2", "v.ndjson.1", "v.ndjson"] {
        assert!(fs::metadata(file(name)).expect("there").len() <= 2_000);
        all.extend(lines(&file(name)).into_iter().map(|line| line["request"].to_string()));
    }
    assert!(!file("v.ndjson.3").exists());
    let last: Vec<_> = (100 - all.len()..100).map(|n| format!("\"GET /a/{n}\"")).collect();
    assert_eq!(all, last, "the newest, in their order");
}

#[test]
fn a_line_that_was_cut_by_a_kill_spoils_no_other() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("v.ndjson");
    fs::write(&path, "{\"cut").expect("written");
    let sink = NdjsonFile::at(&path).open().expect("open");
    sink.observe(&Event::Shadow(&mismatch(1)));
    sink.close();
    let text = fs::read_to_string(&path).expect("there");
    let whole: Vec<_> =
        text.lines().filter(|line| serde_json::from_str::<Value>(line).is_ok()).collect();
    assert_eq!(whole.len(), 1);
}

#[test]
fn what_cannot_be_opened_is_an_error_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    assert!(NdjsonFile::at(dir.path()).open().is_err());
    assert!(NdjsonFile::at(dir.path().join("no/such/v")).open().is_err());
    assert!(NdjsonFile::at(dir.path().join("v")).max_bytes(0).open().is_err());
    assert!(NdjsonFile::at(dir.path().join("v")).capacity(0).open().is_err());
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_loses_lines_and_nothing_else() {
    let sink = NdjsonFile::at("/dev/full").open().expect("open");
    for n in 0..10 {
        sink.observe(&Event::Shadow(&mismatch(n)));
    }
    sink.close();
    assert_eq!((sink.written(), sink.dropped()), (0, 10));
}

#[test]
fn a_file_that_was_moved_or_removed_is_begun_anew() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("v.ndjson");
    let mut file = Rotating::open(path.clone(), 1_000, 1).expect("open");
    file.write(b"{\"n\":1}\n").expect("written");
    fs::rename(&path, dir.path().join("moved")).expect("moved");
    file.look();
    file.write(b"{\"n\":2}\n").expect("written");
    assert_eq!(lines(&path)[0]["n"], 2);
    // The whole directory, too: then it is said that nothing is written.
    fs::remove_dir_all(dir.path()).expect("removed");
    file.look();
    assert!(file.write(b"{\"n\":3}\n").is_err());
    fs::create_dir(dir.path()).expect("made");
    file.write(b"{\"n\":4}\n").expect("written");
    assert_eq!(lines(&path)[0]["n"], 4);
    file.look();
    file.write(b"{\"n\":5}\n").expect("written");
    assert_eq!(lines(&path).len(), 2, "the same file is kept");
}

#[test]
fn a_line_that_has_its_end_is_followed_by_the_next() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("v.ndjson");
    for (before, after) in
        [("{\"n\":1}\n", "{\"n\":1}\n{\"n\":2}\n"), ("{\"n\"", "{\"n\"\n{\"n\":2}\n")]
    {
        fs::write(&path, before).expect("written");
        let mut file = Rotating::open(path.clone(), 1_000, 1).expect("open");
        file.write(b"{\"n\":2}\n").expect("written");
        assert_eq!(fs::read_to_string(&path).expect("there"), after);
    }
}

#[test]
fn a_line_that_no_file_may_hold_is_lost_and_counted() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("v.ndjson");
    let sink = NdjsonFile::at(&path).max_bytes(1_000).open().expect("open");
    let mut long = mismatch(1);
    long.error = Some("e".repeat(5_000));
    sink.observe(&Event::Shadow(&long));
    sink.observe(&Event::Shadow(&mismatch(2)));
    sink.close();
    assert_eq!((sink.written(), sink.dropped()), (1, 1));
    assert_eq!(lines(&path).len(), 1);
}
