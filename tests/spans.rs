//! What a tracing subscriber sees. A binary of its own: whether a callsite is
//! enabled is cached for the whole process, and tests without a subscriber would
//! decide it for this one.
#![allow(clippy::unwrap_used, reason = "a test")]

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::{Layer, ServiceExt};
use tower_migration::{MigrationHandle, MigrationLayer};

#[tokio::test]
async fn every_leg_has_a_span_under_the_requests_own() {
    use std::sync::{Arc, Mutex};
    use tracing::Instrument;
    use tracing_subscriber::{layer::SubscriberExt, registry::LookupSpan};

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
    let service = MigrationLayer::new(handle.clone(), side()).layer(side());
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

#[tokio::test]
async fn the_log_warns_of_a_flag_in_memory_and_of_writes_without_keys() {
    use std::sync::{Arc, Mutex};
    use tracing_subscriber::layer::SubscriberExt;

    #[derive(Clone, Default)]
    struct Warnings(Arc<Mutex<Vec<String>>>);
    struct Message<'a>(&'a mut Vec<String>);
    impl tracing::field::Visit for Message<'_> {
        fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
            if field.name() == "message" {
                self.0.push(format!("{value:?}"));
            }
        }
    }
    impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Warnings {
        fn on_event(
            &self,
            event: &tracing::Event<'_>,
            _: tracing_subscriber::layer::Context<'_, S>,
        ) {
            if *event.metadata().level() == tracing::Level::WARN {
                event.record(&mut Message(&mut self.0.lock().unwrap()));
            }
        }
    }

    let warnings = Warnings::default();
    let subscriber = tracing_subscriber::registry().with(warnings.clone());
    let _default = tracing::subscriber::set_default(subscriber);
    let handle = MigrationHandle::new("warned");
    let layer = MigrationLayer::new(handle.clone(), ()).without_keys();
    let _service = layer.layer(());
    handle.advance().await.unwrap();
    handle.rollback().await.unwrap();
    let seen = warnings.0.lock().unwrap();
    let count = |text: &str| seen.iter().filter(|seen| seen.contains(text)).count();
    assert_eq!(count("writes have no keys"), 1, "{seen:?}");
    assert_eq!(count("kept in memory only"), 1, "at the first step: {seen:?}");
}
