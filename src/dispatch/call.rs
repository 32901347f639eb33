//! A service that is called once it is ready.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_service::Service;

use super::Ready;

pin_project! {
    /// Waits for a service's readiness, unless it is there, and calls it.
    ///
    /// No `async` block: that has room for the request beside the future that is made
    /// of it, and each request that is more than one leg has a few of these.
    #[project = CallProj]
    pub(super) enum Call<S, Req, F> {
        Waits { service: Ready<S>, request: Option<Req> },
        Runs { #[pin] future: F },
        Ended,
    }
}

/// The call of a service with such a request.
pub(super) type CallOf<S, Req> = Call<S, Req, <S as Service<Req>>::Future>;

impl<S: Service<Req>, Req> CallOf<S, Req> {
    pub(super) const fn new(service: Ready<S>, request: Req) -> Self {
        Self::Waits { service, request: Some(request) }
    }

    /// Whether the service has not been called yet.
    pub(super) const fn waits(&self) -> bool {
        matches!(self, Self::Waits { .. })
    }
}

impl<S: Service<Req>, Req> Future for CallOf<S, Req> {
    type Output = Result<S::Response, S::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match self.as_mut().project() {
                CallProj::Waits { service, request } => {
                    ready!(service.poll_ready(cx))?;
                    let request = request.take().expect("a service is called once");
                    let future = service.call(request);
                    self.set(Self::Runs { future });
                }
                CallProj::Runs { future } => {
                    let answer = ready!(future.poll(cx));
                    // Before anybody is told: until it is gone it may hold a permit, or a
                    // transaction, and whoever waits for the leg's end waits for that.
                    self.set(Self::Ended);
                    return Poll::Ready(answer);
                }
                CallProj::Ended => panic!("a call was polled after it had ended"),
            }
        }
    }
}
