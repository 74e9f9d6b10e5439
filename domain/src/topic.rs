//! MQTT topics: `devices/{deviceId}/{channel}`.

/// The filter under which the bridge receives device data.
pub const TELEMETRY_FILTER: &str = "devices/+/telemetry";

/// The device that a data topic names, as the device wrote it; `None` where the topic is another.
/// It may be no valid device id: what an unknown sender sends is set aside, not dropped.
pub fn telemetry_device(topic: &str) -> Option<&str> {
    let device = topic.strip_prefix("devices/")?.strip_suffix("/telemetry")?;
    (!device.contains('/')).then_some(device)
}

/// The topic on which a device sends data.
pub fn telemetry(device: &crate::DeviceId) -> String {
    format!("devices/{device}/telemetry")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_data_topics_name_a_sender() {
        assert_eq!(telemetry_device("devices/TS-1/telemetry"), Some("TS-1"));
        assert_eq!(telemetry_device("devices//telemetry"), Some(""));
        for other in ["devices/a/b/telemetry", "devices/a/status", "devices/telemetry", ""] {
            assert_eq!(telemetry_device(other), None, "{other}");
        }
    }
}
