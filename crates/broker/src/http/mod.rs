//! The API: the same routes on the Unix socket, which its rights protect, and on `listen`, where a bearer token or a browser's
//! session is asked for; and there the web page.
//!
//! Handlers say what is asked of the core and put the answer into its wire form; they decide nothing. Every operation on an
//! agent runs as a task of its own, so that it comes to its end also when the client goes away in the middle of it.

mod agents;
mod auth;
mod behind;
mod exec;
mod history;
mod leases;
mod page;
mod problem;
mod sessions;
mod site;
mod streams;
mod system;

use std::io;
use std::sync::Arc;
use std::thread;

use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use axum::{Extension, Router, middleware};
use futures_util::future::join_all;
use tokio::net::UnixListener;
use tokio::runtime;
use tokio::sync::oneshot;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::core::Core;
use crate::descriptors::Descriptors;
use crate::listen::{self, Listener};
use crate::places::Places;
use crate::preview::{Front, Previews};
use sessions::Sessions;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Berthold",
        description = "Runs coding agents and gives each its own host ports. Errors are RFC 9457 problem documents with a stable `code`."
    ),
    components(schemas(api::Problem, api::Event, api::ErrorDocument)),
    tags((name = "agents"), (name = "leases"), (name = "pool"), (name = "broker"))
)]
struct Described;

/// The OpenAPI description of the API, as `/openapi.json` serves it.
pub fn openapi() -> utoipa::openapi::OpenApi {
    routes().into_openapi()
}

fn routes() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::with_openapi(Described::openapi())
        .routes(routes!(agents::list))
        .routes(routes!(agents::show, agents::start, agents::delete))
        .routes(routes!(agents::stop))
        .routes(routes!(agents::restart))
        .routes(routes!(leases::list))
        .routes(routes!(leases::show, leases::grant, leases::release))
        .route("/v1/leases/{owner}", get(leases::show).put(leases::grant).delete(leases::release))
        .routes(routes!(streams::logs))
        .routes(routes!(behind::behind))
        .routes(routes!(sessions::create))
        .routes(routes!(exec::exec))
        .routes(routes!(exec::attach))
        .routes(routes!(streams::events))
        .routes(routes!(system::pool))
        .routes(routes!(history::history))
        .routes(routes!(system::broker))
        .routes(routes!(system::reconcile))
        .routes(routes!(system::shutdown))
        .routes(routes!(system::healthz))
        .routes(routes!(system::readyz))
        .routes(routes!(system::metrics))
        .routes(routes!(system::describe))
}

/// Answers requests on both listeners until the broker ends.
pub(crate) async fn serve(core: Arc<Core>, socket: UnixListener, listener: Option<Listener>, token: String) {
    let router: Router<Arc<Core>> = routes().into();
    let router = router.method_not_allowed_fallback(problem::no_such_method);
    let sessions = Arc::new(Sessions::new(&core.id, &token));
    let looks = Arc::new(behind::Looks::default());
    let router = router.layer(Extension(Arc::clone(&sessions))).layer(Extension(looks));
    let open = router.clone().fallback(problem::no_such_call).with_state(Arc::clone(&core));
    let host = core.settings.server.broker.port_pool.as_ref().and_then(|pool| pool.host_url.as_ref());
    let guard = auth::Guard {
        token: token.clone(),
        sessions: Arc::clone(&sessions),
        host: host.map(pool::HostUrl::host),
    };
    let browsers = Router::new()
        .route("/signin", post(sessions::sign_in).layer(DefaultBodyLimit::max(sessions::LONGEST_TICKET)))
        .route("/signout", post(sessions::sign_out))
        .layer(Extension(sessions));
    let guarded = router
        .merge(browsers)
        .fallback(page::file)
        .with_state(Arc::clone(&core))
        .layer(middleware::from_fn_with_state(Arc::new(guard), auth::require))
        .layer(middleware::from_fn(page::harden));
    let on_listen = async {
        let Some(listener) = listener else { return };
        let limit = Descriptors::shared_out(core.state().guards.limit()).connections;
        // What is passed on takes another connection, at the most as many of them.
        let places = Places::new(limit);
        let (shares, dealing) = listener.shared(threads(), limit);
        let serving = shares.into_iter().map(|share| {
            // With connections to agents of its own: one thread does not wake another.
            let previews = Previews::new(Arc::clone(&core), places.clone(), token.clone());
            let front = Front::new(previews, guarded.clone());
            let serving = listen::serve(share, move |peer| front.visit(peer), core.shutdown.clone());
            async { tell(on_its_own_thread(serving).await) }
        });
        tokio::join!(core.shutdown.run_until_cancelled(dealing), join_all(serving));
    };
    let ended = core.shutdown.clone().cancelled_owned();
    let on_socket = async { tell(axum::serve(socket, open).with_graceful_shutdown(ended).await) };
    tokio::join!(on_socket, on_listen);
}

fn tell(served: io::Result<()>) {
    if let Err(error) = served {
        tracing::error!(%error, "a server of the API has ended");
    }
}

/// How many threads serve browsers: half as many as the host has processors, which agents need too, and four at the most.
fn threads() -> usize {
    thread::available_parallelism().map_or(1, |count| (count.get() / 2).clamp(1, 4))
}

/// Runs what serves browsers on one thread that does nothing else. Where a runtime's threads wake each other for each request that is
/// passed on, that costs more than passing it on: `benches/preview.rs` had 0.57 of nginx's small answers so, and 0.82 with this.
async fn on_its_own_thread(serving: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
    let (ended, served) = oneshot::channel();
    thread::Builder::new().name("listen".to_owned()).spawn(move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        // Nobody waits for it any more once the broker ends.
        drop(ended.send(runtime.map(|runtime| runtime.block_on(serving))));
    })?;
    served.await.unwrap_or_else(|_| Err(io::Error::other("its thread has panicked")))
}

#[cfg(test)]
mod tests {
    /// The description that is checked in is the one that is served. `UPDATE=1 cargo nextest run -p broker openapi` rewrites it.
    #[test]
    fn openapi_is_checked_in() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
        let current = super::openapi().to_pretty_json().unwrap() + "\n";
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, &current).unwrap();
        }
        let checked_in = std::fs::read_to_string(path).unwrap_or_default();
        assert!(checked_in == current, "openapi.json is out of date: run this test with UPDATE=1");
    }
}
