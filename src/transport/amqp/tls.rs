//! TLS of a connection: verified always, by the system's roots or by a CA of one's own alone.

use crate::error::{Error, ErrorKind};
use lapin::tcp::{RustlsConnector, RustlsConnectorConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};

/// Files that a URL of scheme `amqps` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tls {
    /// Trusted instead of the system's roots.
    pub(super) ca: Option<PathBuf>,
    /// The client's certificate chain …
    pub(super) cert: Option<PathBuf>,
    /// … and its private key, both PEM.
    pub(super) key: Option<PathBuf>,
}

impl Tls {
    /// Reads the files; they are read anew for each connection, so that a renewed certificate needs no restart.
    ///
    /// # Errors
    /// A file that cannot be read or holds no certificate or key, by option and path.
    pub(super) fn connector(&self) -> Result<RustlsConnector, Error> {
        let roots = match &self.ca {
            // Alone: a CA of one's own is trusted instead of the system's, not besides.
            Some(path) => RustlsConnectorConfig::default().with_parsable_certificates(certificates("ca", path)?),
            None => RustlsConnectorConfig::new_with_native_certs()
                .map_err(|error| refused("the system's root certificates cannot be read").caused_by(error))?,
        };
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                let chain = certificates("cert", cert)?;
                let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable("cert-key", key, error))?;
                roots.connector_with_single_cert(chain, key)
            }
            _ => roots.connector_with_no_client_auth(),
        }
        .map_err(|error| refused("the certificates cannot be used").caused_by(error))
    }
}

fn refused(text: &str) -> Error {
    Error::new(ErrorKind::Credentials, text)
}

fn unreadable(option: &str, path: &Path, error: rustls_pki_types::pem::Error) -> Error {
    refused(&format!("option '{option}={}' cannot be read as PEM", path.display())).caused_by(error.to_string())
}

fn certificates(option: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable(option, path, error))?;
    if found.is_empty() {
        return Err(refused(&format!("option '{option}={}' holds no certificate", path.display())));
    }
    Ok(found)
}
