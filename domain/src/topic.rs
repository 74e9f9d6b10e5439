//! MQTT topics: `devices/{deviceId}/{channel}`.

/// The filter under which the bridge receives device data.
pub const TELEMETRY_FILTER: &str = "devices/+/telemetry";
/// The same of births and last wills.
pub const STATUS_FILTER: &str = "devices/+/status";

/// What a device talks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// Data.
    Telemetry,
    /// Whether it is there.
    Status,
}

/// The device that a topic names, as the device wrote it, and what it talks about; `None` where the
/// topic is another. It may be no valid device id: what an unknown sender sends is set aside, not
/// dropped.
pub fn from_device(topic: &str) -> Option<(&str, Channel)> {
    let (device, channel) = topic.strip_prefix("devices/")?.split_once('/')?;
    let channel = match channel {
        "telemetry" => Channel::Telemetry,
        "status" => Channel::Status,
        _ => return None,
    };
    Some((device, channel))
}

/// The topic on which a device is told what to do.
pub fn commands(device: &crate::DeviceId) -> String {
    format!("devices/{device}/commands")
}

/// The topic on which a device is told what is stored.
pub fn receipts(device: &crate::DeviceId) -> String {
    format!("devices/{device}/receipts")
}

/// The topic on which a device sends data.
pub fn telemetry(device: &crate::DeviceId) -> String {
    format!("devices/{device}/telemetry")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_topics_of_devices_name_a_sender() {
        assert_eq!(from_device("devices/TS-1/telemetry"), Some(("TS-1", Channel::Telemetry)));
        assert_eq!(from_device("devices/TS-1/status"), Some(("TS-1", Channel::Status)));
        assert_eq!(from_device("devices//telemetry"), Some(("", Channel::Telemetry)));
        for other in ["devices/a/b/telemetry", "devices/a/commands", "devices/telemetry", ""] {
            assert_eq!(from_device(other), None, "{other}");
        }
    }
}
