//! Services that are not HTTP, through the closures of `Plain`.

#[path = "plain/closures.rs"]
mod closures;
#[path = "plain/fallback.rs"]
mod fallback;
#[path = "plain/judged.rs"]
mod judged;
#[path = "plain/legs.rs"]
mod legs;
#[path = "plain/shadow.rs"]
mod shadow;
#[path = "plain/store.rs"]
mod store;
#[path = "plain/writes.rs"]
mod writes;
