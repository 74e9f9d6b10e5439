//! A device's connection with TLS and its certificate, for the load.

use anyhow::{Context, Result};
use std::{net::TcpStream, path::Path, sync::Arc};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};

/// A connection with TLS.
pub(crate) type Secure = StreamOwned<ClientConnection, TcpStream>;

/// Makes a connection secure, with the certificate of `device` in an authority's folder.
pub(crate) fn secure(stream: TcpStream, folder: &Path, device: &str) -> Result<Secure> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("ca.pem"))?)?;
    let own = folder.join("devices").join(device);
    let chain = CertificateDer::pem_file_iter(own.join("cert.pem"))
        .with_context(|| format!("no certificate of {device}"))?
        .collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(own.join("key.pem"))?;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    let connection = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost")?)?;
    Ok(StreamOwned::new(connection, stream))
}
