//! What a rule names is never seen outside of the comparer.

use std::io::Write;

use tower_migration::{Event, NdjsonFile, compare::Noise};
use tracing_subscriber::fmt::MakeWriter;

use super::*;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test(start_paused = true)]
async fn secrets_are_in_no_diff_no_log_no_list_no_report_and_no_file() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("verdicts.ndjson");
    let file = NdjsonFile::at(&path).matches(true).open().unwrap();
    let seen = Log::default();
    let mut sink = seen.clone();
    let sink = Mutex::new(move |event: &Event<'_>| write!(sink, "{event:?}").unwrap());

    let document = |n: u8| {
        side(move |path| match path {
            "/broken" => format!(r#"{{"password":"hunter2-{n}""#),
            "/text" => format!("hunter2-{n}"),
            _ => format!(
                r#"{{"name":"{n}","password":"hunter2-{n}","deep":[{{"pin":"hunter2-{n}"}}],"gone":{}}}"#,
                if n == 1 { r#"{"password":"hunter2"}"# } else { "null" }
            ),
        })
    };
    let rules = || Rules::new().redact("/**/password").unwrap().redact("/deep/*/pin").unwrap();
    let rig = shadowed(document(1), document(2), |layer| {
        layer
            .compare(by_fields(rules()))
            .redact_query(["token"])
            .noise(Noise::share(0.5).unwrap())
            .observer((file.clone(), move |event: &Event<'_>| (sink.lock().unwrap())(event)))
    })
    .await;
    let paths = (0..60).map(|n| format!("/rows/{n}?token=hunter2&tok%65n=hunter2&page=2"));
    let report = read_all(&rig, paths.chain(["/broken".into(), "/text".into()])).await;
    file.close();
    let places: Vec<_> = report.places().map(|place| &*place.place).collect();
    for name in ["/name", "/password", "/deep/*/pin", "/gone"] {
        assert!(places.contains(&name), "compared all the same: {places:?}");
    }
    let outputs = [
        report.to_string(),
        format!("{report:?}"),
        serde_json::to_string(&report).unwrap(),
        format!("{:?}", rig.handle.recent_mismatches()),
        format!("{:?}", rig.handle.evidence()),
        std::fs::read_to_string(&path).unwrap(),
        String::from_utf8(seen.0.lock().unwrap().clone()).unwrap(),
        String::from_utf8(log.0.lock().unwrap().clone()).unwrap(),
    ];
    for (at, output) in outputs.iter().enumerate() {
        assert!(!output.is_empty(), "{at}");
        assert!(!output.contains("hunter2"), "{at}: {output}");
    }
    assert!(report.to_string().contains("token=(redacted)&tok%65n=(redacted)&page=2"), "{report}");
}
