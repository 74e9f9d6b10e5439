use super::*;
use std::{os::unix::fs::PermissionsExt, process::Command};

const NAME: &str = "TS-001-2024";

fn now() -> Timestamp {
    use domain::Clock;
    domain::SystemClock.now()
}

fn days(days: i64) -> Timestamp {
    now().plus_micros(days * DAY_MICROS)
}

fn device() -> DeviceId {
    DeviceId::parse(NAME).unwrap()
}

/// What OpenSSL says of a certificate: it is not our code that judges what our code made.
fn openssl(arguments: &[&str]) -> (bool, String) {
    let output = Command::new("openssl").args(arguments).output().expect("openssl is installed");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn verify(authority: &Authority, cert: &Path) -> (bool, String) {
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let (ca, crl, cert) = (path(&authority.ca()), path(&authority.crl()), path(cert));
    openssl(&["verify", "-x509_strict", "-crl_check", "-CAfile", &ca, "-CRLfile", &crl, &cert])
}

#[test]
fn a_certificate_is_believed_until_it_is_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::init(folder.path(), &["hub.example".to_owned()], now()).unwrap();
    let issued = authority.issue(&device(), DEVICE_DAYS, now()).unwrap();
    let (cert, key) = authority.device(&device());
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    for cert in [&cert, &authority.server().0] {
        let (believed, text) = verify(&authority, cert);
        assert!(believed, "{text}");
    }
    let (_, text) = openssl(&["x509", "-noout", "-text", "-in", cert.to_str().unwrap()]);
    let said =
        ["CN = TS-001-2024", "TLS Web Client Authentication", "DNS:TS-001-2024", "prime256v1"];
    for said in said {
        assert!(text.contains(said), "{said} in {text}");
    }
    assert!(!text.contains("TLS Web Server"), "{text}");
    let server = authority.server().0;
    let (_, text) = openssl(&["x509", "-noout", "-text", "-in", server.to_str().unwrap()]);
    let names = "DNS:localhost, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1, DNS:hub.example";
    assert!(text.contains(names) && !text.contains("Client Auth"), "{text}");

    let revoked = authority.revoke(NAME, None, now()).unwrap();
    assert_eq!(revoked.iter().map(|it| &it.serial).collect::<Vec<_>>(), [&issued.serial]);
    let (believed, text) = verify(&authority, &cert);
    assert!(!believed && text.contains("certificate revoked"), "{text}");
    assert_eq!(authority.revoke(NAME, None, now()).unwrap(), []);
}

#[test]
fn the_next_certificate_overlaps_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::init(folder.path(), &[], now()).unwrap();
    let never = authority.renew(&device(), 1, now()).unwrap_err().to_string();
    assert!(never.contains("pki issue device TS-001-2024"), "{never}");
    let first = authority.issue(&device(), DEVICE_DAYS, now()).unwrap();
    let twice = authority.issue(&device(), DEVICE_DAYS, now()).unwrap_err().to_string();
    assert!(twice.contains("pki renew TS-001-2024"), "{twice}");
    assert_eq!(first.state(days(240)), State::Valid);
    assert_eq!(first.state(days(250)), State::RenewalDue);
    assert_eq!(first.state(days(366)), State::Expired);
    let second = authority.renew(&device(), DEVICE_DAYS, now()).unwrap();
    assert_ne!(first.serial, second.serial);
    let (cert, _) = authority.device(&device());
    for cert in [cert.clone(), cert.with_file_name("previous-cert.pem")] {
        let (believed, text) = verify(&authority, &cert);
        assert!(believed, "{text}");
    }
    // One of them can be taken back alone.
    authority.revoke(NAME, Some(&first.serial), now()).unwrap();
    assert!(verify(&authority, &cert).0);
    assert!(!verify(&authority, &cert.with_file_name("previous-cert.pem")).0);
}

#[test]
fn what_is_our_own_is_renewed_in_time_and_nothing_else_changes() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::init(folder.path(), &[], now()).unwrap();
    let ca = fs::read(authority.ca()).unwrap();
    assert_eq!(authority.refresh(now()).unwrap(), Refreshed::default());
    assert_eq!(authority.refresh(days(9)).unwrap(), Refreshed::default());
    assert_eq!(authority.refresh(days(11)).unwrap(), Refreshed { server: false, crl: true });
    assert_eq!(authority.refresh(days(266)).unwrap(), Refreshed { server: true, crl: true });
    Authority::init(folder.path(), &["a.example".to_owned()], days(266)).unwrap();
    assert_eq!(authority.list().unwrap().len(), 3, "another host needs another certificate");
    Authority::init(folder.path(), &[], days(266)).unwrap();
    assert_eq!(authority.list().unwrap().len(), 3, "a host is remembered");
    assert_eq!(fs::read(authority.ca()).unwrap(), ca);
}

#[test]
fn a_crash_before_the_list_was_written_is_made_good() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::init(folder.path(), &[], now()).unwrap();
    authority.issue(&device(), DEVICE_DAYS, now()).unwrap();
    let before = fs::read(authority.crl()).unwrap();
    authority.revoke(NAME, None, now()).unwrap();
    fs::write(authority.crl(), before).unwrap();
    let (cert, _) = authority.device(&device());
    assert!(verify(&authority, &cert).0, "the crash is not what was meant");
    assert!(authority.refresh(now()).unwrap().crl);
    assert!(!verify(&authority, &cert).0);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let missing = Authority::open(folder.path()).unwrap_err().to_string();
    assert!(missing.contains("haystack pki init"), "{missing}");
    let authority = Authority::init(folder.path(), &[], now()).unwrap();
    assert!(authority.issue(&device(), 0, now()).is_err());
    assert!(authority.issue(&device(), MAX_DAYS + 1, now()).is_err());
    assert!(authority.revoke("nobody", None, now()).is_err());
    assert!(Authority::init(folder.path(), &["a b".to_owned()], now()).is_err());
    fs::write(folder.path().join("register.json"), "{").unwrap();
    let spoiled = authority.list().unwrap_err().to_string();
    assert!(spoiled.contains("spoiled"), "{spoiled}");
}

#[test]
fn a_list_that_is_fetched_says_from_where() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::init(folder.path(), &[], now()).unwrap();
    authority.publish_crl_at("http://crl.example/crl.pem", now()).unwrap();
    assert!(authority.publish_crl_at("file:///crl.pem", now()).is_err());
    authority.issue(&device(), DEVICE_DAYS, now()).unwrap();
    let (cert, _) = authority.device(&device());
    let (believed, text) = verify(&authority, &cert);
    assert!(believed, "{text}");
    let (_, text) = openssl(&["x509", "-noout", "-text", "-in", cert.to_str().unwrap()]);
    assert!(text.contains("URI:http://crl.example/crl.pem"), "{text}");
    let crl = authority.crl();
    let (_, text) = openssl(&["crl", "-noout", "-text", "-in", crl.to_str().unwrap()]);
    assert!(text.contains("Issuing Distribution Point") && text.contains("crl.example"), "{text}");
    authority.revoke(NAME, None, now()).unwrap();
    assert!(!verify(&authority, &cert).0);
}
