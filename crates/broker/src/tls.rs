//! TLS with the certificate of the settings.
//!
//! A certificate is renewed by whoever made it, most often every few weeks. So the files are looked at again now and then, and what
//! is new in them is used for new connections; if that is no good, the old one stays.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use settings::Tls;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;

/// How often the files are looked at, at the most.
const LOOK: Duration = Duration::from_secs(10);
/// What is spoken, the better first (RFC 7301).
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// A file of `server.broker.tls` that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the {what} in {} cannot be used: {reason}", path.display())]
pub(crate) struct TlsError {
    /// `certificate` or `private key`.
    what: &'static str,
    path: PathBuf,
    reason: String,
}

/// What makes TLS of a connection.
///
/// # Errors
/// [`TlsError`] if a file is missing or is not what it should be.
pub(crate) fn acceptor(files: &Tls) -> Result<TlsAcceptor, TlsError> {
    let renewed = Renewed {
        files: files.clone(),
        state: Mutex::new(State { key: load(files)?, written: written(files), looked: Instant::now() }),
    };
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has what TLS 1.2 and 1.3 need");
    let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(renewed));
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn load(files: &Tls) -> Result<Arc<CertifiedKey>, TlsError> {
    let of_certificate =
        |reason: String| TlsError { what: "certificate", path: files.certificate.clone(), reason };
    let of_key = |reason: String| TlsError { what: "private key", path: files.key.clone(), reason };
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(&files.certificate).and_then(Iterator::collect);
    let chain = chain.map_err(|error| of_certificate(error.to_string()))?;
    if chain.is_empty() {
        return Err(of_certificate("it has none in PEM (`-----BEGIN CERTIFICATE-----`)".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| of_key(error.to_string()))?;
    let certified = CertifiedKey::from_der(chain, key, &ring::default_provider());
    certified.map(Arc::new).map_err(|error| of_key(error.to_string()))
}

/// When the files were written last.
fn written(files: &Tls) -> [Option<SystemTime>; 2] {
    let written = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    [written(&files.certificate), written(&files.key)]
}

/// The certificate as it is now.
#[derive(Debug)]
struct Renewed {
    files: Tls,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    key: Arc<CertifiedKey>,
    written: [Option<SystemTime>; 2],
    looked: Instant,
}

impl ResolvesServerCert for Renewed {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() >= LOOK {
            state.look(&self.files);
        }
        Some(Arc::clone(&state.key))
    }
}

impl State {
    fn look(&mut self, files: &Tls) {
        self.looked = Instant::now();
        let written = written(files);
        if written == self.written {
            return;
        }
        match load(files) {
            Ok(key) => {
                tracing::info!(certificate = %files.certificate.display(), "the certificate was renewed");
                (self.key, self.written) = (key, written);
            }
            // Perhaps only one of the two is written yet: it is looked at again.
            Err(error) => tracing::warn!(%error, "the certificate stays the old one"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a new certificate and its key; the certificate.
    fn write(files: &Tls) -> Vec<u8> {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(&files.certificate, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        made.cert.der().to_vec()
    }

    fn files(directory: &Path) -> Tls {
        Tls { certificate: directory.join("cert.pem"), key: directory.join("key.pem") }
    }

    #[test]
    fn a_renewed_certificate_is_used_and_a_broken_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        let first = write(&files);
        let mut state = State { key: load(&files).unwrap(), written: [None; 2], looked: Instant::now() };
        assert_eq!(state.key.end_entity_cert().unwrap().as_ref(), first);
        let second = write(&files);
        state.look(&files);
        assert_eq!(state.key.end_entity_cert().unwrap().as_ref(), second);
        std::fs::write(&files.certificate, "half").unwrap();
        state.written = [None; 2];
        state.look(&files);
        assert_eq!(state.key.end_entity_cert().unwrap().as_ref(), second);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        let said = || {
            let text = acceptor(&files).err().map_or_else(|| "fine".to_owned(), |error| error.to_string());
            text.replace(&directory.path().display().to_string(), "DIR")
        };
        assert_eq!(
            said(),
            "the certificate in DIR/cert.pem cannot be used: I/O error: No such file or directory (os error 2)"
        );
        write(&files);
        assert_eq!(said(), "fine");
        let key = std::fs::read(&files.key).unwrap();
        write(&files);
        std::fs::write(&files.key, key).unwrap();
        assert_eq!(
            said(),
            "the private key in DIR/key.pem cannot be used: keys may not be consistent: KeyMismatch"
        );
        std::fs::write(&files.key, "").unwrap();
        assert_eq!(said(), "the private key in DIR/key.pem cannot be used: no items found");
        std::fs::write(&files.certificate, "no PEM").unwrap();
        assert_eq!(
            said(),
            "the certificate in DIR/cert.pem cannot be used: it has none in PEM (`-----BEGIN CERTIFICATE-----`)"
        );
    }
}
