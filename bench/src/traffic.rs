//! What devices send in a measure of the path from MQTT, and who sends it.

use crate::{message::DEVICES, process::Helper, stack::Stack};
use anyhow::Result;
use std::path::PathBuf;

/// Bytes of a device's message, at least.
const PAYLOAD: usize = 200;

/// Messages of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// How many.
    pub(crate) messages: u64,
    /// Readings in each.
    pub(crate) readings: u64,
    /// Devices that send them.
    pub(crate) devices: u64,
    /// Connections; with certificates one a device.
    pub(crate) connections: u64,
    /// With TLS and a certificate each.
    pub(crate) tls: bool,
}

impl Traffic {
    /// Many devices over a few connections, as a gateway or a broker's bridge brings them.
    pub(crate) fn shared(messages: u64, readings: u64) -> Self {
        Self { messages, readings, devices: DEVICES, connections: 4, tls: false }
    }

    /// Devices with a connection each, one reading a message.
    pub(crate) fn each(messages: u64, devices: u64, tls: bool) -> Self {
        Self { messages, readings: 1, devices, connections: devices, tls }
    }

    /// As tables name it.
    pub(crate) fn name(&self) -> String {
        let Self { readings, devices, connections, tls, .. } = self;
        if devices != connections {
            return format!("{readings} a message");
        }
        let tls = if *tls { "mTLS, " } else { "" };
        let plural = if *devices == 1 { "" } else { "s" };
        format!("{tls}{devices} device{plural}")
    }

    /// Starts the load; it is ready when this returns.
    pub(crate) async fn start(&self, stack: &Stack) -> Result<Helper> {
        let mut args = vec![
            format!("n={}", self.messages),
            format!("per={}", self.readings),
            format!("devices={}", self.devices),
            format!("connections={}", self.connections),
            format!("size={PAYLOAD}"),
            "shape=device".to_owned(),
            "gate=1".to_owned(),
        ];
        let mut port = stack.mosquitto.port();
        if self.tls {
            let folder: PathBuf = stack.certificates(self.devices)?;
            args.push(format!("tls={}", folder.display()));
            port = stack.mosquitto.server().listeners().mqtts;
        }
        Helper::start("load", &args, &[("MQTT_PORT", port.to_string())]).await
    }
}
