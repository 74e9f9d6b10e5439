//! Takes readings out of the streams: what every registered target has applied and is older than the history
//! that is kept, or, above the high-water mark, is younger. Everything it does may be done twice, and by two
//! instances at once.

use domain::{
    Clock, OrgKey, SystemClock, TargetName,
    retention::{Held, Marks},
};
use nats::{
    PublishFault, Wire, letters,
    model::{self, ModelFault},
    publish::Patience,
    retention::{self, Applied, READINGS},
    retry::Pauses,
    streams::TELEMETRY,
    targets::{self, Register},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// How often it is looked, ...
const EVERY: Duration = Duration::from_secs(10);
/// ... and while a stream is fuller than it should be.
const EVERY_WHILE_HIGH: Duration = Duration::from_secs(1);
/// What came in the last minutes stays below the high-water mark.
const LEAST_HISTORY: Duration = Duration::from_mins(10);
/// Old messages wait until they are so many hundredths of what the stream may hold, ...
const STEP: u64 = 1;
/// ... or so long: each time costs a look at the letters.
const AT_LEAST_EVERY: Duration = Duration::from_hours(1);

/// When readings may go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    history: Duration,
    marks: Marks,
}

impl From<service::config::Retention> for Settings {
    fn from(config: service::config::Retention) -> Self {
        let history = Duration::from_hours(config.history_hours.into()).max(LEAST_HISTORY);
        Self { history, marks: Marks::below(config.high_water_percent) }
    }
}

/// Why a round came to no end.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Model(#[from] ModelFault),
    #[error(transparent)]
    Publish(#[from] PublishFault),
    #[error("the register of targets changed meanwhile")]
    Register,
}

/// Trims until shutdown.
pub(crate) async fn run(
    wire: Wire,
    settings: Settings,
    targets: Vec<TargetName>,
    patience: Patience,
) {
    let mut trimmer = Trimmer { wire, settings, targets, last: BTreeMap::new() };
    let mut pauses = Pauses::default();
    loop {
        let pause = match trimmer.round().await {
            Ok(high) => {
                patience.moving();
                pauses = Pauses::default();
                if high { EVERY_WHILE_HIGH } else { EVERY }
            }
            Err(fault) => {
                if !patience.pause(&mut pauses, &fault.to_string()).await {
                    return;
                }
                continue;
            }
        };
        tokio::select! {
            () = patience.shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

struct Trimmer {
    wire: Wire,
    settings: Settings,
    /// Those of this process. Until all of them are registered, nothing is removed.
    targets: Vec<TargetName>,
    /// When a stream was trimmed last.
    last: BTreeMap<&'static str, Instant>,
}

impl Trimmer {
    /// Looks at each stream once; whether one is fuller than it should be.
    async fn round(&mut self) -> Result<bool, Fault> {
        let mut high = false;
        let register = targets::list(&self.wire).await?;
        if register.values().any(|target| target.detached.is_some()) {
            retention::release(&self.wire, &register, &self.orgs().await?).await?;
        }
        // A target that is not registered yet would not be waited for.
        let attached = register.values().any(|target| target.detached.is_none());
        if !attached || self.targets.iter().any(|name| !register.contains_key(name)) {
            return Ok(false);
        }
        for stream in READINGS {
            let held = retention::held(&self.wire, stream).await?;
            high |= held.is_high(self.settings.marks);
            let before = SystemClock.now().plus_micros(-(self.settings.history.as_micros() as i64));
            let aged = retention::aged(&self.wire, stream, before, &held).await?;
            let Some(most) = held.cut(u64::MAX, aged, self.settings.marks) else { continue };
            if !self.worth_it(stream, &held, most) {
                continue;
            }
            let orgs = self.orgs().await?;
            let applied = retention::applied(&self.wire, stream, &held, &register, &orgs).await?;
            self.trim(stream, &held, &applied, aged, &register).await?;
        }
        Ok(high)
    }

    async fn orgs(&self) -> Result<Vec<OrgKey>, ModelFault> {
        let keys = |directory: &domain::directory::Directory| {
            directory.orgs().iter().map(|org| org.key.clone()).collect()
        };
        model::look(&self.wire, keys).await
    }

    /// Whether what may go is enough, or has waited for long enough.
    fn worth_it(&self, stream: &'static str, held: &Held, cut: u64) -> bool {
        let waited = self.last.get(stream).is_none_or(|last| last.elapsed() >= AT_LEAST_EVERY);
        let much = held.limit > 0 && held.bytes_up_to(cut) >= held.limit / 100 * STEP;
        waited || much || held.is_high(self.settings.marks)
    }

    async fn trim(
        &mut self,
        stream: &'static str,
        held: &Held,
        applied: &Applied,
        aged: u64,
        register: &Register,
    ) -> Result<(), Fault> {
        let marks = self.settings.marks;
        self.last.insert(stream, Instant::now());
        if let Some(cut) = held.cut(applied.done, aged, marks) {
            self.keep(stream, cut, register).await?;
            let removed = retention::remove_up_to(&self.wire, stream, cut).await?;
            told(stream, cut, removed);
        }
        // A target that holds one org must not fill the stream with what the others are done with.
        let left = retention::held(&self.wire, stream).await?;
        if stream != TELEMETRY || !left.is_high(marks) {
            return Ok(());
        }
        let ahead = applied.orgs.iter().filter(|(_, done)| **done > applied.done);
        let mut cuts = Vec::new();
        for (org, done) in ahead {
            let Some(cut) = left.cut(*done, aged, marks) else { continue };
            if retention::has_up_to(&self.wire, org, cut).await? {
                cuts.push((org, cut));
            }
        }
        let Some(most) = cuts.iter().map(|(_, cut)| *cut).max() else { return Ok(()) };
        self.keep(stream, most, register).await?;
        for (org, cut) in cuts {
            let removed = retention::remove_of_org(&self.wire, org, cut).await?;
            told(stream, cut, removed);
        }
        Ok(())
    }

    /// Keeps what letters are about beside them, which may take a while, and looks whether the targets are
    /// still those that were asked.
    async fn keep(&self, stream: &'static str, cut: u64, register: &Register) -> Result<(), Fault> {
        letters::keep(&self.wire, stream, cut).await?;
        let now = targets::list(&self.wire).await?;
        let attached = |register: &Register| -> BTreeSet<TargetName> {
            let attached = register.iter().filter(|(_, target)| target.detached.is_none());
            attached.map(|(name, _)| name.clone()).collect()
        };
        let archives =
            |register: &Register| register.iter().filter(|(_, target)| target.archives).count();
        if attached(&now) == attached(register) && archives(&now) == archives(register) {
            return Ok(());
        }
        Err(Fault::Register)
    }
}

fn told(stream: &'static str, cut: u64, removed: u64) {
    metrics::counter!("haystack_ingest_messages_trimmed_total", "stream" => stream)
        .increment(removed);
    if removed > 0 {
        tracing::info!(stream, up_to = cut, removed, "trimmed");
    }
}
