//! Arms a failpoint from the environment, in builds that have them.

/// `HAYSTACK_FAILPOINT=<name>:<passes>:<file>`: abort at the hit after `passes` harmless ones,
/// and write the name into `file` first.
#[cfg(feature = "failpoints")]
pub fn arm_from_environment() -> anyhow::Result<()> {
    use anyhow::Context;
    let Ok(text) = std::env::var("HAYSTACK_FAILPOINT") else { return Ok(()) };
    let mut parts = text.splitn(3, ':');
    let (Some(name), Some(passes), Some(file)) = (parts.next(), parts.next(), parts.next()) else {
        anyhow::bail!("HAYSTACK_FAILPOINT: expected name:passes:file");
    };
    anyhow::ensure!(domain::failpoint::ALL.contains(&name), "no failpoint {name}");
    let passes = passes.parse().context("HAYSTACK_FAILPOINT: passes")?;
    let (trace, line) = (std::path::PathBuf::from(file), format!("{name}\n"));
    domain::failpoint::arm(name, passes, move || {
        // The process dies next: there is nobody to tell about a failed write but the test.
        let _ = std::fs::write(&trace, &line);
    });
    Ok(())
}

/// Does nothing: this build has no failpoints.
#[cfg(not(feature = "failpoints"))]
pub fn arm_from_environment() -> anyhow::Result<()> {
    Ok(())
}
