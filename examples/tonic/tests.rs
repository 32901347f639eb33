//! `cargo test --example tonic`

use tonic::Code;
use tower_migration::Stage;

use super::{service::proto::ListRequest, *};

#[tokio::test]
async fn the_whole_way_leaves_both_stores_right() {
    story().await.expect("all is well");
}

#[tokio::test]
async fn reads_and_writes_do_as_the_stage_says() {
    let (handle, old, new, address) = serve().await.expect("a free port");
    let mut client = AirportsClient::connect(format!("http://{address}")).await.expect("served");
    for stage in Stage::ALL {
        let code = format!("X{}", u8::from(stage));
        let put = PutRequest { airport: Some(airport(&code, "here")) };
        client.put(put).await.expect("written");
        let on = (old.rows().contains_key(&code), new.rows().contains_key(&code));
        assert_eq!(on, (stage != Stage::NewOnly, stage != Stage::OldOnly), "{stage}");
        let list = ListRequest { prefix: code, limit: 1 };
        let mut listed = client.list(list).await.expect("listed").into_inner();
        assert!(listed.message().await.expect("a message").is_some(), "{stage}");
        let gone = client.delete(DeleteRequest { code: "none".into() }).await;
        assert_eq!(gone.expect_err("nothing is there").code(), Code::NotFound, "{stage}");
        assert!(handle.dirty_keys().is_empty(), "{stage}");
        if stage == Stage::WriteBoth {
            copy(&handle, &old, &new).await.expect("copied");
        }
        if stage != Stage::NewOnly {
            handle.advance().await.expect("nothing is in the way");
        }
    }
}
