//! Another description: taken over at a moment that both have.

use super::{
    Session,
    open::{config_of, simulated},
};
use domain::{
    model::Poller,
    simulator::{EventType, Status},
};
use serde_json::json;
use std::sync::Arc;

impl Session {
    /// Whether a description waits to be taken over. One that can't be run waits for nothing.
    pub(super) fn waits_to_adopt(&self) -> bool {
        self.shared.poller(self.saved.id).is_some_and(|poller| !self.knows(&poller))
    }

    fn knows(&self, poller: &Arc<Poller>) -> bool {
        self.adopted.as_ref().is_some_and(|known| Arc::ptr_eq(poller, known))
    }

    /// Takes over what the platform wants simulated, at a boundary that both descriptions have.
    pub(crate) fn adopt(&mut self) {
        let Some(poller) = self.shared.poller(self.saved.id) else { return };
        // What an earlier description made, must be known to be stored or not; and a state that does
        // not belong to the stream must not come to look as if it did.
        let standing = self.unsure || self.unsaved || self.saved.status == Status::Error;
        if self.knows(&poller) || standing {
            return;
        }
        let adopted = config_of(&poller).and_then(|config| {
            let simulated = simulated(&config, &poller)?;
            Ok((config, simulated))
        });
        match adopted {
            Ok((config, simulated)) => {
                if simulated.floor(self.memory.at) != self.memory.at {
                    return;
                }
                if config.fingerprint() != self.saved.config.fingerprint() {
                    let before = self.saved.lineage;
                    self.saved.lineage = config.lineage_after(before, self.memory.at);
                    self.memory = simulated.plan().carry_over(&self.memory);
                    self.memory.seed = config.seed;
                    let text = format!("another description from {} on", self.memory.at);
                    self.note(EventType::Config, text, json!({}));
                    self.saved.changed = true;
                }
                self.saved.config = config;
                self.simulated = simulated;
                self.saved.error = None;
                self.unsaved = true;
            }
            Err(why) => {
                let why = format!("its new configuration can't be run, the old one goes on: {why}");
                self.note(EventType::Error, why.clone(), json!({}));
                self.saved.error = Some(why);
                self.unsaved = true;
            }
        }
        self.adopted = Some(poller.clone());
        self.poller = poller;
    }
}
