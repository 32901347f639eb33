//! Requests of every kind, many of them bad, from a seed.

use axum::http::Method;
use serde_json::{Value, json};

pub(super) struct Rng(pub(super) u64);
impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
    pub(super) fn num(&mut self, range: f64) -> f64 {
        match self.below(12) {
            0 => -0.0,
            1 => 0.0,
            2 => 7.0,
            3 => f64::MIN_POSITIVE / 8.0,
            4 => range * 1.01,
            _ => (self.next() as f64 / u64::MAX as f64 * 2.0 - 1.0) * range,
        }
    }
}

const KEYS: &[&str] = &[
    "EDDF",
    "EDDM",
    "_AYM",
    "A-1",
    "AAA",
    "ZZZZZZZZ",
    "00AA",
    "LFPG",
    "EGLL",
    "EDD",
    "EDDFX",
    "ab",
    "TOOLONGXX",
    "ÄÖÜ",
];
const COUNTRIES: &[&str] = &["DE", "DE", "FR", "GB", "US", "D", "de", "DEU", ""];
const TEXTS: &[&str] =
    &["", "Frankfurt", "München", "a\"b\\c", "nul\0in", "東京", " x ", "'; --", "\u{7f}\n\t", "🛫"];

pub(super) fn doc(r: &mut Rng, icao: &str) -> Value {
    let t = |r: &mut Rng| *r.pick(TEXTS);
    json!({"icao": icao, "iata": t(r), "name": t(r), "city": t(r), "subd": t(r), "country": r.pick(COUNTRIES),
        "elevation": r.num(1e9), "lat": r.num(90.0), "lon": r.num(180.0), "tz": t(r), "lid": t(r)})
}

fn enc(s: &str) -> String {
    s.bytes().map(|b| format!("%{b:02X}")).collect()
}

pub(super) fn op(r: &mut Rng) -> (Method, String, Option<Vec<u8>>) {
    let icao = *r.pick(KEYS);
    let uri = format!("/airports/{}", enc(icao));
    let junk: &[&[u8]] = &[
        b"",
        b"{",
        b"[]",
        b"null",
        b"{\"icao\":1}",
        b"{\"x\":1}",
        b"\xff",
        b"{\"lat\":1e999}",
        b"{\"icao\":\"EDDF\"}",
        b"{\"lat\":null,\"name\":\"n\"}",
    ];
    let body = |r: &mut Rng, v: Value| {
        if r.below(12) == 0 { r.pick(junk).to_vec() } else { serde_json::to_vec(&v).unwrap() }
    };
    match r.below(14) {
        0..3 => {
            let v = doc(r, icao);
            (Method::POST, "/airports".into(), Some(body(r, v)))
        }
        3..6 => {
            let within = if r.below(8) == 0 { *r.pick(KEYS) } else { icao };
            let v = doc(r, within);
            (Method::PUT, uri, Some(body(r, v)))
        }
        6..9 => {
            let Value::Object(mut v) = doc(r, icao) else { unreachable!() };
            if r.below(8) != 0 {
                v.remove("icao");
            }
            for k in
                ["iata", "name", "city", "subd", "country", "elevation", "lat", "lon", "tz", "lid"]
            {
                if r.below(3) != 0 {
                    v.remove(k);
                }
            }
            (Method::PATCH, uri, Some(body(r, v.into())))
        }
        9 => (Method::DELETE, uri, None),
        10..12 => (Method::GET, uri, None),
        12 => (
            Method::from_bytes(r.pick(&["GET", "PATCH", "POST", "OPTIONS"]).as_bytes()).unwrap(),
            (*r.pick(&[
                "/airports/%FF",
                "/",
                "/airports/",
                "/airports?limit=x",
                "/airports?x=1",
                "/airports?limit=-1",
            ]))
            .to_owned(),
            None,
        ),
        _ => {
            let mut q = vec![];
            if r.below(2) == 0 {
                q.push(format!("country={}", r.pick(COUNTRIES)));
            }
            if r.below(2) == 0 {
                q.push(format!("after={}", enc(r.pick::<&str>(KEYS))));
            }
            if r.below(2) == 0 {
                q.push(format!("limit={}", r.pick(&[0u64, 1, 2, 3, 5000, u64::MAX])));
            }
            (Method::GET, format!("/airports?{}", q.join("&")), None)
        }
    }
}
