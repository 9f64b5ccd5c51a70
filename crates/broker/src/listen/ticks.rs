//! Time as connections need it: to within seconds, and at no cost for each request.
//!
//! hyper waits with a timer for each head of a request. These have nothing to do with the runtime's and wake nobody: whoever drives the
//! connection looks at it every [`TICK`], and so sees that time is up.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};

/// How often a connection is to be looked at.
pub(super) const TICK: Duration = Duration::from_secs(5);

/// hyper's timer for a connection that is looked at every [`TICK`].
#[derive(Clone, Copy)]
pub(super) struct Ticks;

impl Timer for Ticks {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(Until(deadline))
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn Sleep>>, deadline: Instant) {
        *sleep = self.sleep_until(deadline);
    }
}

struct Until(Instant);

impl Future for Until {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if Ticks.now() >= self.0 { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Sleep for Until {}
