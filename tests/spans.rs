//! What a tracing subscriber sees. A binary of its own: whether a callsite is
//! enabled is cached for the whole process, and tests without a subscriber would
//! decide it for this one.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::{Layer, ServiceExt};
use tower_migration::{AutoRollback, MigrationHandle, MigrationLayer, Side, Stage};
use tracing_subscriber::layer::SubscriberExt;

#[tokio::test]
async fn every_leg_has_a_span_under_the_requests_own() {
    use tracing::Instrument;
    use tracing_subscriber::registry::LookupSpan;

    #[derive(Clone, Default)]
    struct Spans(Arc<Mutex<Vec<Seen>>>);
    /// A span's name and fields, and its parent's name.
    type Seen = (String, Option<String>);
    struct Fields(String);
    impl tracing::field::Visit for Fields {
        fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
            if ["side", "role"].contains(&field.name()) {
                self.0.push_str(&format!(" {value:?}"));
            }
        }
    }
    impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> tracing_subscriber::Layer<S> for Spans {
        fn on_new_span(
            &self,
            attrs: &tracing::span::Attributes<'_>,
            id: &tracing::span::Id,
            context: tracing_subscriber::layer::Context<'_, S>,
        ) {
            let mut fields = Fields(attrs.metadata().name().to_owned());
            attrs.record(&mut fields);
            let parent = context.span(id).and_then(|span| span.parent());
            let parent = parent.map(|parent| parent.name().to_owned());
            self.0.lock().unwrap().push((fields.0, parent));
        }
    }

    let spans = Spans::default();
    let subscriber = tracing_subscriber::registry().with(spans.clone());
    let _default = tracing::subscriber::set_default(subscriber);
    let side = || {
        tower::service_fn(|_: Request<Full<Bytes>>| async {
            Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::default()))
        })
    };
    let handle = MigrationHandle::new("spans");
    let service = MigrationLayer::new(handle.clone(), side())
        .noise(tower_migration::compare::Noise::off())
        .layer(side());
    handle.advance().await.unwrap();
    handle.set_shadow_rate(1.0).unwrap();
    async {
        for method in ["PUT", "GET"] {
            let request = Request::builder().method(method).uri("/a").body(Full::default());
            service.clone().oneshot(request.unwrap()).await.unwrap();
        }
    }
    .instrument(tracing::info_span!("request"))
    .await;
    handle.shutdown().await;
    let mut seen = spans.0.lock().unwrap().clone();
    seen.sort();
    let parent = Some("request".to_owned());
    let expected =
        ["migration_leg new other", "migration_leg new shadow", "migration_leg old authority"];
    seen.retain(|(name, _)| name != "request");
    assert_eq!(seen, expected.map(|name| (name.to_owned(), parent.clone())));
}

/// The warnings and errors that were logged.
#[derive(Clone, Debug, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    fn of_this_thread() -> (Self, tracing::subscriber::DefaultGuard) {
        let warnings = Self::default();
        let subscriber = tracing_subscriber::registry().with(warnings.clone());
        (warnings, tracing::subscriber::set_default(subscriber))
    }

    fn count(&self, text: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|seen| seen.contains(text)).count()
    }
}

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Warnings {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        struct Message<'a>(&'a mut Vec<String>);
        impl tracing::field::Visit for Message<'_> {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    self.0.push(format!("{value:?}"));
                }
            }
        }
        if *event.metadata().level() <= tracing::Level::WARN {
            event.record(&mut Message(&mut self.0.lock().unwrap()));
        }
    }
}

#[tokio::test]
async fn the_log_warns_of_a_flag_in_memory_and_of_writes_without_keys() {
    let (warnings, _default) = Warnings::of_this_thread();
    let handle = MigrationHandle::new("warned");
    let layer = MigrationLayer::new(handle.clone(), ()).without_keys();
    let _service = layer.layer(());
    handle.advance().await.unwrap();
    handle.rollback().await.unwrap();
    assert_eq!(warnings.count("writes have no keys"), 1, "{warnings:?}");
    assert_eq!(warnings.count("kept in memory only"), 1, "at the first step: {warnings:?}");
}

#[tokio::test(start_paused = true)]
async fn the_log_is_loud_about_a_rollback_and_an_alarm_and_says_each_once() {
    let (warnings, _default) = Warnings::of_this_thread();
    let broken = || {
        tower::service_fn(|_: Request<Full<Bytes>>| async {
            let mut answer = Response::new(Full::<Bytes>::default());
            *answer.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
            Ok::<_, std::convert::Infallible>(answer)
        })
    };
    let watch = AutoRollback::new().error_share(0.5).min_samples(1);
    let handle = MigrationHandle::builder("loud").auto_rollback(watch).build().unwrap();
    let service = MigrationLayer::new(handle.clone(), broken()).layer(broken());
    let traffic = || async {
        for _ in 0..5 {
            let request = Request::get("/a").body(Full::default()).unwrap();
            service.clone().oneshot(request).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    handle.advance().await.unwrap();
    handle.confirm_synced(Side::New).await.unwrap();
    handle.advance().await.unwrap();
    traffic().await;
    assert_eq!(handle.stage(), Stage::WriteBoth);
    assert_eq!(warnings.count("ROLLING BACK BY ITSELF: new failed 100.0 %"), 1, "{warnings:?}");
    assert_eq!(warnings.count("ALARM"), 0, "{warnings:?}");
    handle.force(Stage::NewOnly, "test").await.unwrap();
    traffic().await;
    assert_eq!(warnings.count("ALARM: new failed 100.0 %"), 1, "{warnings:?}");
    assert_eq!(warnings.count("old has missed writes"), 1, "{warnings:?}");
    handle.rearm().unwrap();
    assert_eq!(warnings.count("re-armed by an operator"), 1, "{warnings:?}");
}
