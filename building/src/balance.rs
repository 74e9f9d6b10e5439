//! The heat balance of a zone over one minute, for those who want to see that it closes.

/// Heat that a zone got in one minute, J; negative where it lost heat. The sources add up to
/// `stored` (to rounding).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Balance {
    /// Sun through glass, and what sunlit walls and roof pass on.
    pub solar: f64,
    /// People, sensible heat.
    pub people: f64,
    /// Lights.
    pub lighting: f64,
    /// Plug loads.
    pub plugs: f64,
    /// Through wall, glass and roof.
    pub envelope: f64,
    /// Outside air through cracks.
    pub infiltration: f64,
    /// From the floor's other zones.
    pub neighbours: f64,
    /// The VAV box's air, cooled or reheated.
    pub air: f64,
    /// What warmed the zone: its heat capacity times the change of its temperature.
    pub stored: f64,
}

impl Balance {
    /// The sum of all sources, J.
    pub fn sources(&self) -> f64 {
        self.solar
            + self.people
            + self.lighting
            + self.plugs
            + self.envelope
            + self.infiltration
            + self.neighbours
            + self.air
    }
}
