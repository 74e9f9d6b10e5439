//! TLS to the broker, by files that are read anew for each connection.

use super::broker::Tls;
use std::{path::Path, sync::Arc};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    },
};

/// Makes the connection secure. The error is for people.
pub(super) async fn secure(
    socket: TcpStream,
    host: &str,
    tls: &Tls,
) -> Result<TlsStream<TcpStream>, String> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| format!("{host:?} can't be in a certificate"))?;
    let connector = TlsConnector::from(Arc::new(config(tls)?));
    connector.connect(name, socket).await.map_err(|error| format!("TLS: {error}"))
}

fn config(tls: &Tls) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&tls.ca)? {
        roots.add(certificate).map_err(|error| format!("{}: {error}", tls.ca.display()))?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let Some((cert, key)) = &tls.identity else { return Ok(builder.with_no_client_auth()) };
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| format!("the key {}: {error}", key.display()))?;
    let config = builder.with_client_auth_cert(certificates(cert)?, private);
    config.map_err(|error| format!("{}: {error}", cert.display()))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let told = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let read = CertificateDer::pem_file_iter(file).map_err(|error| told(&error))?;
    let found: Vec<_> = read.collect::<Result<_, _>>().map_err(|error| told(&error))?;
    if found.is_empty() {
        return Err(told(&"there is no certificate in it"));
    }
    Ok(found)
}
