//! `serve-demo`: the browser's page and local models over HTTP, with cross-origin isolation, ranges and validators.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use anyhow::{Context as _, Result, bail};
use axum::extract::{Path as UrlPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tower_http::services::{ServeDir, ServeFile};

use crate::args::ServeDemoArgs;
use crate::load::ModelSource;
use crate::output::{self, note};

/// What every answer carries. The first two isolate the page from other origins, which shared memory needs; the policy
/// lets it load scripts and wasm from here alone and models from wherever a person says.
const HEADERS: [(HeaderName, HeaderValue); 6] = [
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (
        HeaderName::from_static("cross-origin-embedder-policy"),
        HeaderValue::from_static("require-corp"),
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' data:; \
             connect-src 'self' https: http://localhost:* http://127.0.0.1:*; worker-src 'self'; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'",
        ),
    ),
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
];

/// Models by the name in their address.
type Models = BTreeMap<String, PathBuf>;

struct Site {
    models: Models,
    /// Only this machine is served, so other names for it in a request are somebody's trick.
    loopback: bool,
}

pub(super) fn run(source: &ModelSource, args: &ServeDemoArgs) -> Result<()> {
    let page = page(args.page.as_deref())?;
    let models = models(
        source
            .path()
            .into_iter()
            .chain(args.models.iter().map(PathBuf::as_path)),
    )?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the server")?;
    runtime.block_on(serve(page, models, args.host, args.port))
}

async fn serve(page: PathBuf, models: Models, host: IpAddr, port: u16) -> Result<()> {
    let listener = tokio::net::TcpListener::bind(SocketAddr::new(host, port))
        .await
        .with_context(|| format!("cannot listen on {host}, port {port}; try another --port"))?;
    let address = listener.local_addr()?;
    for (name, path) in &models {
        note(&format!("model {name}: {}", path.display()));
    }
    if !host.is_loopback() {
        note(&format!(
            "everyone who reaches {host} can load the page and these models"
        ));
    }
    output::to_stdout(&format!("http://{address}/\n"))?;
    let site = Site {
        models,
        loopback: host.is_loopback(),
    };
    axum::serve(listener, app(&page, site)).await?;
    Ok(())
}

fn app(page: &Path, site: Site) -> Router {
    let site = Arc::new(site);
    Router::new()
        .route("/models", get(list))
        .route("/models/{name}", get(model))
        .fallback_service(ServeDir::new(page))
        .layer(middleware::from_fn_with_state(Arc::clone(&site), guard))
        .with_state(site)
}

/// Refuses requests for this machine by a name that is not its own, which a page of another site can bring a browser to
/// send (DNS rebinding), and puts the headers on every answer.
async fn guard(State(site): State<Arc<Site>>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|h| h.to_str().ok());
    let mut response = if site.loopback && !host.is_none_or(is_loopback) {
        (StatusCode::FORBIDDEN, "this server answers for localhost alone\n").into_response()
    } else {
        next.run(request).await
    };
    for (name, value) in &HEADERS {
        response.headers_mut().insert(name, value.clone());
    }
    response
}

fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The models, for the page's list.
async fn list(State(site): State<Arc<Site>>) -> Json<Value> {
    let models: Vec<Value> = site
        .models
        .iter()
        .map(|(name, path)| json!({"name": name, "bytes": path.metadata().map(|m| m.len()).ok()}))
        .collect();
    Json(json!({ "models": models }))
}

async fn model(
    State(site): State<Arc<Site>>,
    UrlPath(name): UrlPath<String>,
    mut request: Request,
) -> Response {
    let Some(path) = site.models.get(&name) else {
        return (StatusCode::NOT_FOUND, "there is no such model\n").into_response();
    };
    let Some(tag) = tag(path) else {
        return (StatusCode::NOT_FOUND, "the model's file is gone\n").into_response();
    };
    let asks = |headers: &HeaderMap, name| headers.get(name).is_some_and(|value| *value == tag);
    if asks(request.headers(), header::IF_NONE_MATCH) {
        return (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response();
    }
    // A range of the file as it was is not one of the file as it is: then all of it is sent.
    if request.headers().contains_key(header::IF_RANGE) && !asks(request.headers(), header::IF_RANGE) {
        request.headers_mut().remove(header::RANGE);
    }
    match ServeFile::new(path).try_call(request).await {
        Ok(response) => {
            let headers = [
                (header::ETAG, tag),
                (
                    header::CONTENT_TYPE,
                    HeaderValue::from_static("application/octet-stream"),
                ),
            ];
            (headers, response).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// A strong validator: another one whenever the file was written.
fn tag(path: &Path) -> Option<HeaderValue> {
    let metadata = path.metadata().ok()?;
    let written = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    HeaderValue::from_str(&format!("\"{:x}-{:x}\"", metadata.len(), written.as_nanos())).ok()
}

/// The directory of the built page.
fn page(given: Option<&Path>) -> Result<PathBuf> {
    let installed = std::env::current_exe()
        .ok()
        .and_then(|program| Some(program.parent()?.parent()?.join("share/twinfer/www")));
    let candidates = match given {
        Some(path) => vec![path.to_owned()],
        None => [Some(PathBuf::from("www/dist")), installed]
            .into_iter()
            .flatten()
            .collect(),
    };
    match candidates.iter().find(|path| path.join("index.html").is_file()) {
        Some(path) => Ok(path.clone()),
        None => {
            let shown: Vec<String> = candidates.iter().map(|p| format!("`{}`", p.display())).collect();
            bail!(
                "there is no built page in {}; build it with `cargo xtask web`, or give its directory with --page",
                shown.join(" or ")
            )
        }
    }
}

/// The files by name; each must be there, and no two may have the same name.
fn models<'a>(paths: impl Iterator<Item = &'a Path>) -> Result<Models> {
    let mut models = Models::new();
    for path in paths {
        let shown = path.display();
        if !path.is_file() {
            bail!("`{shown}` is not a file");
        }
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if let Some(other) = models.insert(name, path.to_owned())
            && other != path
        {
            bail!("`{}` and `{shown}` have the same name", other.display());
        }
    }
    Ok(models)
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn loopback_names() {
        for host in [
            "localhost",
            "localhost:8080",
            "127.0.0.1:80",
            "[::1]:8080",
            "[::1]",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "example.org",
            "127.0.0.1.example.org:8080",
            "localhost.example.org",
            "10.0.0.1",
            "",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
