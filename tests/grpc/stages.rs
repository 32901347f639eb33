//! Every interop case, in every stage, as without the layer.

use std::time::Duration;

use tonic::service::Routes;
use tower::Layer;
use tower_migration::{
    FailurePolicy, MigrationHandle, MigrationLayer, Stage, protocol::grpc::Grpc,
};

use crate::{cases, fake::assert_idle, interop::Interop, support::*};

/// How the layer is told about the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// By its descriptors: all its methods write.
    Writes,
    /// The same, with keys.
    Keys,
    Nothing,
    /// Nothing, but that streams may be closed one day.
    Closes,
    /// All its methods read.
    Reads,
}

const METHODS: [&str; 7] = [
    "EmptyCall",
    "UnaryCall",
    "StreamingOutputCall",
    "StreamingInputCall",
    "FullDuplexCall",
    "HalfDuplexCall",
    "UnimplementedCall",
];

impl Told {
    fn grpc(self) -> Grpc {
        let paths = METHODS.map(|method| format!("/grpc.testing.TestService/{method}"));
        let described = || Grpc::new().descriptors(INTEROP).unwrap();
        match self {
            Self::Nothing => Grpc::new(),
            Self::Closes => Grpc::new().close_streams_after(LIMIT * 100).unwrap(),
            Self::Writes => described(),
            Self::Reads => described().reads(paths).unwrap(),
            Self::Keys => {
                paths.iter().fold(described(), |grpc, path| grpc.key(path, |_| "it").unwrap())
            }
        }
    }
}

/// What all the clients see in a stage, and in both ways to put the layer on.
async fn same_as_bare(told: Told, policy: FailurePolicy, rate: f64) {
    // A call whose outcome is unknown is refused if both sides must have it.
    let sure = policy == FailurePolicy::RequireBoth;
    let bare = serve_bare(Routes::new(Interop::default().served())).await;
    let wanted = cases::all(connect(bare).await, sure).await;
    for stage in Stage::ALL {
        for named in [false, true] {
            let what = format!("{told:?} {policy:?} {rate} {stage} named: {named}");
            let (old, new) = (Interop::default(), Interop::default());
            let handle = MigrationHandle::builder("interop").linger(Duration::from_millis(50));
            let handle = handle.build().unwrap();
            handle.set_shadow_rate(rate).unwrap();
            let address = if named {
                let layer =
                    MigrationLayer::with_protocol(handle.clone(), new.served(), told.grpc())
                        .noise(tower_migration::compare::Noise::off());
                let layered = layer.failure_policy(policy).layer(old.served());
                serve_bare(Routes::new(layered)).await
            } else {
                let new = Routes::new(new.served());
                let layer = MigrationLayer::with_protocol(handle.clone(), new, told.grpc())
                    .noise(tower_migration::compare::Noise::off());
                serve_around(layer.failure_policy(policy), Routes::new(old.served())).await
            };
            go(&handle, stage).await;
            if stage.is_two_sided() {
                handle.confirm_synced(stage.authority().other()).await.unwrap();
            }
            let found = cases::all(connect(address).await, sure).await;
            for (wanted, found) in wanted.iter().zip(&found) {
                assert_eq!(found, wanted, "{what}");
            }
            assert_eq!(found.len(), wanted.len());
            assert_idle(&handle).await;
            let (on_old, on_new) = (old.calls(), new.calls());
            match stage {
                Stage::OldOnly => assert!(on_old > 0 && on_new == 0, "{what}"),
                Stage::NewOnly => assert!(on_new > 0 && on_old == 0, "{what}"),
                _ if told != Told::Reads => assert_eq!(on_old, on_new, "{what}"),
                _ => assert_eq!(on_old.min(on_new) > 0, rate > 0.0, "{what} {on_old} {on_new}"),
            }
            if sure {
                assert!(handle.dirty_keys().is_empty(), "{what}");
                assert_eq!(handle.status().untracked_on_new, 0, "{what}: {}", handle.status());
            }
            assert!(handle.recent_mismatches().is_empty(), "{what}");
            tokio::time::timeout(LIMIT, handle.settled()).await.expect("settled");
        }
    }
}

const LIMIT: Duration = Duration::from_secs(20);

macro_rules! same_as_bare {
    ($($name:ident: $told:ident, $policy:ident, $rate:literal;)*) => {$(
        #[tokio::test]
        async fn $name() {
            same_as_bare(Told::$told, FailurePolicy::$policy, $rate).await;
        }
    )*};
}

same_as_bare! {
    writes: Writes, AuthorityWins, 0.0;
    writes_that_await_both: Writes, AwaitBoth, 0.0;
    writes_that_require_both: Writes, RequireBoth, 0.0;
    writes_with_keys: Keys, AuthorityWins, 0.0;
    writes_with_keys_that_await_both: Keys, AwaitBoth, 0.0;
    writes_with_keys_that_require_both: Keys, RequireBoth, 0.0;
    methods_of_which_nothing_is_known: Nothing, AuthorityWins, 0.0;
    methods_of_which_nothing_is_known_that_require_both: Nothing, RequireBoth, 0.0;
    streams_that_may_be_closed: Closes, AuthorityWins, 0.0;
    streams_that_may_be_closed_and_require_both: Closes, RequireBoth, 0.0;
    reads: Reads, AuthorityWins, 0.0;
    reads_that_are_shadowed: Reads, AuthorityWins, 1.0;
}
