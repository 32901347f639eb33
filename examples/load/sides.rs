//! The old service and the new one, well or not.

use std::{future::pending, net::SocketAddr, time::Duration};

use axum::{
    Router,
    body::Bytes,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{net::TcpStream, time::sleep};

/// How a side is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Health {
    /// Answers at once.
    Fine,
    /// Answers after so many milliseconds.
    After(u64),
    /// Stands before a server that is gone.
    Dead,
    Hangs,
}

/// About one KiB, as an answer to a read often is.
const ROW: &str = r#"{"icao":"LSZH","name":"Zürich-Kloten","city":"Zürich","subd":"Zurich","country":"CH","elevation":1416.0,"lat":47.4582,"lon":8.5481,"tz":"Europe/Zurich","runways":[{"id":"10/28","length":8202,"surface":"asphalt","lit":true},{"id":"14/32","length":10827,"surface":"concrete","lit":true},{"id":"16/34","length":12139,"surface":"concrete","lit":true}],"frequencies":[{"kind":"tower","mhz":118.1},{"kind":"ground","mhz":121.9},{"kind":"apron","mhz":121.755},{"kind":"delivery","mhz":121.93},{"kind":"atis","mhz":128.53}],"notes":"Noise abatement: departures on 16 turn left at 2.1 DME. Helicopters follow the routes of the visual approach chart. Slots are coordinated; general aviation asks for prior permission, at least two hours before arrival. De-icing pads lie north of runway 10/28 and west of taxiway E. Birds are common in autumn near the ponds of Kloten."}"#;

/// One port of an address where nobody listens: the kernel refuses at once.
const NOBODY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9);

async fn answer(health: Health, body: impl IntoResponse) -> Response {
    match health {
        Health::Fine => {}
        Health::After(millis) => sleep(Duration::from_millis(millis)).await,
        Health::Dead => {
            if TcpStream::connect(NOBODY).await.is_err() {
                return StatusCode::BAD_GATEWAY.into_response();
            }
        }
        Health::Hangs => pending().await,
    }
    body.into_response()
}

/// Things that can be read and written, on a side of this health.
pub(crate) fn side(health: Health) -> Router {
    let read = move || answer(health, ([(CONTENT_TYPE, "application/json")], ROW));
    let write = move |row: Bytes| answer(health, row.len().to_string());
    Router::new().route("/things/{id}", get(read).put(write))
}
