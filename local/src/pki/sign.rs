//! Keys, certificates and CRLs (RFC 5280), ECDSA P-256 throughout.

use super::register::{Issued, Register, Role};
use anyhow::{Context, Result};
use domain::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint,
    CrlIssuingDistributionPoint, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, RevocationReason,
    RevokedCertParams, SanType, SerialNumber,
};
use std::net::IpAddr;
use time::OffsetDateTime;

/// Stands before a CRL, so that its number can be read without parsing it.
const NUMBER: &str = "# CRL number ";
/// This machine, as its own clients call it.
const HERE: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Signs for an authority.
pub(super) struct Signer {
    issuer: Issuer<'static, KeyPair>,
    crl_url: Option<String>,
}

impl Signer {
    pub(super) fn new(register: &Register, key: &str) -> Result<Self> {
        let key = KeyPair::from_pem(key).context("the authority's key is spoiled")?;
        let issuer = Issuer::new(authority_params(register)?, key);
        Ok(Self { issuer, crl_url: register.crl_url.clone() })
    }

    /// A new key and its certificate, as PEM.
    pub(super) fn certificate(&self, issued: &Issued) -> Result<(String, String)> {
        let key = new_key()?;
        let mut params = params(&issued.name, &issued.serial, issued.from, issued.until)?;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.is_ca = IsCa::ExplicitNoCa;
        params.crl_distribution_points = self.crl_point().into_iter().collect();
        match issued.role {
            Role::Device | Role::Service => {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
                params.subject_alt_names = vec![san(&issued.name)?];
            }
            Role::Server => {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
                let hosts = HERE.into_iter().chain(issued.hosts.iter().map(String::as_str));
                params.subject_alt_names = hosts.map(san).collect::<Result<_>>()?;
            }
        }
        let certificate = params.signed_by(&key, &self.issuer).context("can't sign")?;
        Ok((key.serialize_pem(), certificate.pem()))
    }

    fn crl_point(&self) -> Option<CrlDistributionPoint> {
        self.crl_url.clone().map(|url| CrlDistributionPoint { uris: vec![url] })
    }

    /// The list of all that is revoked.
    pub(super) fn crl(&self, register: &Register, now: Timestamp) -> Result<String> {
        let revoked = register.issued.iter().filter_map(|issued| {
            let revocation_time = issued.revoked.map(moment)?;
            Some(revocation_time.and_then(|revocation_time| {
                Ok(RevokedCertParams {
                    serial_number: serial_number(&issued.serial)?,
                    revocation_time,
                    reason_code: Some(RevocationReason::Unspecified),
                    invalidity_date: None,
                })
            }))
        });
        let params = CertificateRevocationListParams {
            this_update: moment(now.plus_micros(-super::BACKDATE_MICROS))?,
            next_update: moment(register.crl_until)?,
            crl_number: SerialNumber::from(register.crl_number),
            issuing_distribution_point: self.crl_point().map(|distribution_point| {
                CrlIssuingDistributionPoint { distribution_point, scope: None }
            }),
            revoked_certs: revoked.collect::<Result<_>>()?,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let crl = params.signed_by(&self.issuer).context("can't sign the list of the revoked")?;
        let pem = crl.pem().context("can't write the list of the revoked")?;
        Ok(format!("{NUMBER}{}\n{pem}", register.crl_number))
    }
}

/// The number of a CRL that [`Signer::crl`] wrote.
pub(super) fn crl_number(text: &str) -> Option<u64> {
    text.lines().next()?.strip_prefix(NUMBER)?.parse().ok()
}

/// A new authority's key and certificate, as PEM.
pub(super) fn authority(register: &Register) -> Result<(String, String)> {
    let key = new_key()?;
    let certificate = authority_params(register)?.self_signed(&key).context("can't sign")?;
    Ok((key.serialize_pem(), certificate.pem()))
}

/// Whether a certificate can name the host.
pub(super) fn check_host(host: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let is_name = (1..=253).contains(&host.len()) && host.chars().all(plain);
    anyhow::ensure!(
        is_name || host.parse::<IpAddr>().is_ok(),
        "{host:?} is no host name and no IP address"
    );
    Ok(())
}

fn new_key() -> Result<KeyPair> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("can't make a key")
}

fn authority_params(register: &Register) -> Result<CertificateParams> {
    let mut params = params(&register.name, &register.serial, register.from, register.until)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn params(
    name: &str,
    serial: &str,
    from: Timestamp,
    until: Timestamp,
) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(serial_number(serial)?);
    params.not_before = moment(from)?;
    params.not_after = moment(until)?;
    Ok(params)
}

fn san(host: &str) -> Result<SanType> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let name = host.try_into().with_context(|| format!("{host:?} is no host name"))?;
    Ok(SanType::DnsName(name))
}

fn serial_number(hex: &str) -> Result<SerialNumber> {
    let number = u128::from_str_radix(hex, 16).with_context(|| format!("{hex:?} is no serial"))?;
    Ok(SerialNumber::from_slice(&number.to_be_bytes()))
}

fn moment(at: Timestamp) -> Result<OffsetDateTime> {
    let seconds = at.micros().div_euclid(1_000_000);
    OffsetDateTime::from_unix_timestamp(seconds).context("a moment that no certificate can bear")
}
